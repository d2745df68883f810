"""Stable Diffusion v1 in full size with random weights, here and in diffusers: one call of the UNet
for two latents (a guided step), one decode to 512 x 512: python benchmarks/full_size.py

It prints how far the answers are apart, and the seconds and memory that each needs (float32, about
5 GB in all; the memory of a call only on Linux). Needs the extra `benchmark`; downloads nothing.
"""

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: kinder to a busy machine
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import diffusers  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from diffusion_lib.autoencoder import Autoencoder  # noqa: E402
from diffusion_lib.stable_diffusion import (  # noqa: E402
    SD1_AUTOENCODER,
    SD1_UNET,
    autoencoder_weights,
    unet_weights,
)
from diffusion_lib.unet import UNet  # noqa: E402

DOWN = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
UP = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3


def memory(which: str) -> float:
    """GB of this process: VmRSS now, or VmHWM, the most since `forget_most`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 2**20


def forget_most() -> bool:
    """VmHWM begins anew, where Linux allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@torch.no_grad()
def taken(call: Callable[[], Tensor]) -> tuple[Tensor, str]:
    """The answer of a second call (the first one warms up), its seconds, and the memory it adds."""
    call()
    known = forget_most()
    before = memory("VmRSS") if known else 0.0
    began = time.perf_counter()
    answer = call()
    seconds = time.perf_counter() - began
    if not known:
        return answer, f"{seconds:6.1f} s"
    return answer, f"{seconds:6.1f} s, {memory('VmHWM') - before:5.2f} GB on top of the weights"


def loaded(build: Callable[[], nn.Module], weights: dict[str, Tensor]) -> nn.Module:
    with torch.device("meta"):
        model = build()
    model.load_state_dict(weights, assign=True)  # the very tensors that diffusers has
    return model.eval()


def compared(what: str, theirs: Callable[[], Tensor], ours: Callable[[], Tensor]) -> None:
    (expected, first), (found, second) = taken(theirs), taken(ours)
    apart = (expected - found).abs().max() / expected.abs().max()
    print(f"{what}: apart by {apart:.0e} of the largest value")
    print(f"  diffusers: {first}\n  here:      {second}", flush=True)


def main() -> None:
    print(f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}")
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(cross_attention_dim=768, down_block_types=DOWN, up_block_types=UP).eval()  # fmt: skip
    ours = loaded(lambda: UNet(SD1_UNET), unet_weights(theirs.state_dict()))
    print(f"UNet: {sum(p.numel() for p in ours.parameters()):,} parameters")
    x, context = torch.randn(2, 4, 64, 64), torch.randn(2, 77, 768)
    heard = torch.tensor([500, 500])
    compared(
        "one call, two latents of 64 x 64",
        lambda: theirs(x, heard, context).sample,
        lambda: ours(x, heard, context),
    )
    del theirs, ours
    theirs = diffusers.AutoencoderKL(
        block_out_channels=SD1_AUTOENCODER.channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    ).eval()
    ours = loaded(
        lambda: Autoencoder(SD1_AUTOENCODER), autoencoder_weights(theirs.state_dict(), 1.0)
    )
    print(f"autoencoder: {sum(p.numel() for p in ours.parameters()):,} parameters")
    compared(
        "one decode to 512 x 512",
        lambda: theirs.decode(x[:1]).sample,
        lambda: ours.decode(x[:1]),
    )


if __name__ == "__main__":
    main()
