"""Low-rank adapters: a trained model bent by few numbers of one's own. (Hu et al. 2021)

    W x   becomes   W x + scale · B A x        A: (rank, in), B: (out, rank), and B = 0 at first

so that nothing changes before something is learned. W stays as it is, and only A and B are trained
and saved. Files have diffusers' names; those with peft's load too, if they are a UNet's alone.
"""

import re
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from diffusion_lib.files import write
from diffusion_lib.guards import real, whole
from diffusion_lib.stable_diffusion import UNET_NAMES

ATTENTION = r"_attention\.(query|key|value|out)"  # of the UNet: where adapters usually sit
PART = re.compile(r"(.*?)\.(lora_A|lora\.down|lora_B|lora\.up|alpha)(?:\.default)?(?:\.weight)?")
DIFFUSERS = [  # (ours, theirs) of the layers that adapters sit in, applied in this order
    (r"^(down|up)\.", r"\1_blocks."),
    (r"^middle\.", "mid_block."),
    (r"\.block\.self_attention\.", ".transformer_blocks.0.attn1."),
    (r"\.block\.cross_attention\.", ".transformer_blocks.0.attn2."),
    (r"\.block\.feed_forward\.wide", ".transformer_blocks.0.ff.net.0.proj"),
    (r"\.block\.feed_forward\.out", ".transformer_blocks.0.ff.net.2"),
    (r"\.(query|key|value)$", lambda m: f".to_{m[1][0]}"),
    (r"(\.attn[12])\.out$", r"\1.to_out.0"),
]


class Adapter(nn.Module):
    """A linear layer and what is added to it."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale
        like = dict(bias=False, device=layer.weight.device, dtype=layer.weight.dtype)
        self.down = nn.Linear(layer.in_features, rank, **like)  # A
        self.up = nn.Linear(rank, layer.out_features, **like)  # B
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.scale * self.up(self.down(x))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One layer that does the same: W + scale · B A."""
        self.layer.weight += self.scale * self.up.weight @ self.down.weight
        return self.layer


def adapters(model: nn.Module) -> dict[str, Adapter]:
    """{the name of its layer: adapter}."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Adapter)}


def adapt(model: nn.Module, rank: int = 8, scale: float = 1.0, where: str = ATTENTION) -> int:
    """Puts an adapter around each linear layer whose name ends in the pattern `where`; only adapters
    will be trained. Returns how many numbers that are.

    Raises ValueError if no layer is called so, or if there are adapters already (merge them first).
    """
    rank, scale = whole("rank", rank, 1), real("scale", scale)
    if adapters(model):
        raise ValueError("this model has adapters already: merge(model) makes them part of it")
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    chosen = [name for name in linear if re.search(f"(?:{where})$", name)]
    if not chosen:
        raise ValueError(f"no linear layer's name ends in {where!r}; there are {linear[:3]}, …")
    model.requires_grad_(False)
    for name in chosen:
        layer = model.get_submodule(name)
        put(model, name, Adapter(layer, rank, scale))
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Sets the submodule of that name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def merge(model: nn.Module) -> nn.Module:
    """Makes the adapters part of the layers that they sit in: the same answers at the old price."""
    for name, adapter in adapters(model).items():
        put(model, name, adapter.merged())
    return model


def save_lora(model: nn.Module, path: str | Path) -> None:
    """Writes the adapters alone, whole or not at all, their scale within B: a UNet's under diffusers'
    names for it."""
    found = adapters(model)
    if not found:
        raise ValueError("this model has no adapters: adapt(model) gives it some")
    tensors = {}
    for name, adapter in found.items():
        up = adapter.scale * adapter.up.weight
        tensors[f"{theirs(name)}.lora_A.weight"] = adapter.down.weight.detach().cpu().contiguous()
        tensors[f"{theirs(name)}.lora_B.weight"] = up.detach().cpu().contiguous()
    write(path, save(tensors, {"format": "pt"}))


def theirs(name: str) -> str:
    """`denoiser.net.up.1…query` -> `unet.up_blocks.1…to_q`."""
    if not name.startswith("denoiser.net."):
        return name
    name = name.removeprefix("denoiser.net.")
    for pattern, new in DIFFUSERS:
        name = re.sub(pattern, new, name)
    return f"unet.{name}"


def ours(name: str) -> str:
    """`unet.up_blocks.1…to_q` -> `denoiser.net.up.1…query`."""
    if not name.startswith("unet."):
        return name
    name = name.removeprefix("unet.").replace(".processor.", ".") + "."
    for pattern, new in UNET_NAMES:
        name = re.sub(pattern, new, name)
    return "denoiser.net." + name.removesuffix(".")


def load_lora(model: nn.Module, path: str | Path, scale: float = 1.0) -> nn.Module:
    """Gives `model` the adapters of a file; scale: how much of their effect, 1 = as trained.

    Of peft's or diffusers' names, with `lora_A`, `lora_B` or `lora.down`, `lora.up`. Raises
    ValueError if they belong to another model.
    """
    scale, parts = real("scale", scale), {}
    for key, tensor in load(Path(path).read_bytes()).items():
        key = key.removeprefix("base_model.model.")
        found = PART.fullmatch(key)
        if found is None:
            raise ValueError(f"{path}: {key!r} is no part of a low-rank adapter")
        part = {"lora_A": "down", "lora_B": "up"}.get(found[2], found[2].removeprefix("lora."))
        parts.setdefault(ours(found[1]), {})[part] = tensor
    if adapters(model):
        raise ValueError("this model has adapters already: merge(model) makes them part of it")
    for name, part in parts.items():
        try:
            layer = model.get_submodule(name)
            rank = len(part["down"])
            fits = part["down"].shape[1:] + part["up"].shape[:1]
        except (AttributeError, KeyError) as error:
            raise ValueError(f"{path} has an adapter for {name}: {error}") from None
        if not isinstance(layer, nn.Linear) or fits != (layer.in_features, layer.out_features):
            raise ValueError(f"{path} does not fit {name}, which is {layer}")
        adapter = Adapter(layer, rank, scale * float(part.get("alpha", rank)) / rank)
        adapter.load_state_dict(
            {"down.weight": part["down"], "up.weight": part["up"]}, strict=False
        )
        put(model, name, adapter.requires_grad_(False))
    return model
