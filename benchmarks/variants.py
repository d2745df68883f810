"""One change at a time: python benchmarks/variants.py steps=640 times=logit-normal lr=4e-3 …

Trains the sprite model once and prints its seconds, its last loss and its prompt accuracy. NOTES.md
is made of such lines. What may be set, with the defaults:
"""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: kinder to a busy machine
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch  # noqa: E402
from speedrun import Counted, clocked, examined  # noqa: E402

from diffusion_lib import TextToImage, course_config, shuffled, train  # noqa: E402
from diffusion_lib.muon import Muon  # noqa: E402
from diffusion_lib.pipeline import TIMES, sprite_config  # noqa: E402


@dataclass
class Options:
    seed: int = 0
    threads: int = 2
    steps: int = 640
    batch: int = 64
    lr: float = 2e-3
    warmup: int = 100
    decay: float = 0.995  # of the moving average
    clip: float = 1.0
    beta2: float = 0.99
    optimiser: str = "adamw"  # or muon
    gain: float = 5.0  # Muon's steps, over lr
    rounds: int = 5  # of Muon's polynomial
    prediction: str = "v"
    schedule: str = "cosine"
    times: str = "uniform"  # or logit-normal, or a power of the uniform share, such as 0.7
    weight: str = "none"  # or min-snr
    drop: float = 0.1  # the share of captions withheld
    channels: str = "32-64-64"
    attention: str = "011"  # at which levels
    guidance: float = 2.0


def build(o: Options, words) -> TextToImage:
    torch.manual_seed(o.seed)
    config = sprite_config(words) | {"prediction": o.prediction, "schedule": o.schedule}
    config["times"] = o.times if o.times in TIMES else "uniform"
    config["unet"]["channels"] = [int(c) for c in o.channels.split("-")]
    config["unet"]["attention"] = [a == "1" for a in o.attention]
    model = TextToImage.from_config(config)
    model.drop = o.drop
    denoiser, T = model.denoiser, model.denoiser.schedule.T
    if o.times not in TIMES:
        power = float(o.times)
        denoiser.times = lambda n, g: (
            (torch.rand(n, generator=g) ** power * T).ceil().long().clamp(1)
        )
    if o.weight == "min-snr":  # min-SNR-5, for v: min(SNR, 5) / (SNR + 1)
        snr = (denoiser.schedule.alpha / denoiser.schedule.sigma.clamp(min=1e-6)).square()
        denoiser.weight = lambda t: snr[t].clamp(max=5) / (snr[t] + 1)
    return model.to(course_config().device, memory_format=torch.channels_last)


def optimiser(o: Options) -> type:
    base = {"adamw": torch.optim.AdamW, "muon": Muon}[o.optimiser]
    more = {"gain": o.gain, "rounds": o.rounds} if base is Muon else {}

    class Chosen(base):
        def __init__(self, params, **options):
            super().__init__(params, **options | {"betas": (0.9, o.beta2)} | more)

    return Chosen


def main() -> None:
    kinds = {name: type(value) for name, value in asdict(Options()).items()}
    pairs = [word.partition("=")[::2] for word in sys.argv[1:]]
    if any(name not in kinds for name, _ in pairs):
        sys.exit(f"{__doc__}\n" + "\n".join(f"    {k}={v}" for k, v in asdict(Options()).items()))
    o = Options(**{name: kinds[name](value) for name, value in pairs})
    torch.set_num_threads(o.threads)
    data = Counted()
    walk = train(
        build(o, data.words), shuffled(data, o.batch, o.seed), steps=o.steps, lr=o.lr, clip=o.clip,
        warmup=o.warmup, decay=o.decay, seed=o.seed, optimiser=optimiser(o),
    )  # fmt: skip
    state, seconds = clocked(walk, " ".join(sys.argv[1:]), o.steps)
    right, low, high = examined(state.ema.model, steps=20, guidance=o.guidance)
    print(
        f"{' '.join(sys.argv[1:])}: {seconds:.0f} s, {data.shown / seconds:.0f} images/s, last loss "
        f"{state.loss:.3f}, {right:.1%} right, 95% interval {low:.1%} to {high:.1%}"
    )


if __name__ == "__main__":
    main()
