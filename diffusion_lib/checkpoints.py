"""Checkpoints: one safetensors file of "model.…", "ema.…", "optimiser.…", "generator", and JSON."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from diffusion_lib.files import write

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
ABOUT = dict(config=dict, step=int, scaler=dict, recipe=dict, log=list)  # what the JSON holds


@dataclass
class Checkpoint:
    """What lies in a checkpoint file: tensors by name, the model's configuration, a few numbers."""

    config: dict
    step: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    scaler: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)
    log: list = field(default_factory=list)  # the caller's own, for a loss curve, say

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of "model" or "ema", named as in its state_dict; empty if it has none."""
        return {k[len(name) + 1 :]: v for k, v in self.tensors.items() if k.startswith(name + ".")}

    def same(self, recipe: dict) -> None:
        """Raises ValueError if training is to go on by another recipe than it began with."""
        for name, value in recipe.items():
            if self.recipe.get(name, value) != value:
                raise ValueError(
                    f"this run was begun with {name} {self.recipe[name]}, not {value}: "
                    "resume it with the same, or begin anew"
                )

    def restore(self, state) -> None:
        """Puts everything back into a `Training`, where `state_of` took it from."""
        saved = self.part("optimiser")
        if not saved:
            raise ValueError("this checkpoint holds a finished model only: it cannot be resumed")
        self.same(state.recipe)
        state.step = self.step
        for model, part in ((state.model, "model"), (state.ema.model, "ema")):
            wrapped = {plain: name for name, plain in plain_names(model).items()}
            try:
                model.load_state_dict({wrapped.get(k, k): w for k, w in self.part(part).items()})
            except RuntimeError as error:
                raise ValueError(f"the checkpoint is of another model: {error}") from error
        kept: dict[str, dict[str, Tensor]] = {}  # weight -> what the optimiser remembers of it
        for full, tensor in saved.items():
            name, _, key = full.rpartition(".")
            kept.setdefault(name, {})[key] = tensor
        moments, names = {}, plain_names(state.model)
        trained = (pair for pair in state.model.named_parameters() if pair[1].requires_grad)
        for i, (name, weight) in enumerate(trained):
            for key, tensor in kept.get(names[name], {}).items():
                # laid out in memory as the weight is: the fused optimiser takes that for granted
                like = tensor if tensor.shape != weight.shape else torch.empty_like(weight)
                moments.setdefault(i, {})[key] = like.copy_(tensor)
        state.optimiser.load_state_dict(state.optimiser.state_dict() | {"state": moments})
        state.generator.set_state(self.tensors["generator"])
        state.scaler.load_state_dict(self.scaler)


def state_of(state, config: dict) -> Checkpoint:
    """A copy of everything that `train` needs to go on, from the `Training` that it yielded."""
    names = plain_names(state.model)
    tensors = {f"model.{names[k]}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"ema.{names[k]}": v for k, v in state.ema.model.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{names[name]}.{key}"] = value
    tensors["generator"] = state.generator.get_state()
    tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    return Checkpoint(config, state.step, tensors, state.scaler.state_dict(), dict(state.recipe))


def finished(checkpoint: Checkpoint) -> Checkpoint:
    """The moving average alone, to share: a quarter of the size, and it cannot be resumed."""
    weights = checkpoint.part("ema") or checkpoint.part("model")
    weights = {f"model.{name}": tensor for name, tensor in weights.items()}
    return Checkpoint(checkpoint.config, checkpoint.step, weights)


def plain_names(model: nn.Module) -> dict[str, str]:
    """{name in the state_dict: name as if nothing were wrapped by torch.compile or in parallel}."""
    prefixes = []
    for path, module in model.named_modules():
        if hasattr(module, "_orig_mod") or isinstance(module, WRAPPERS):
            inner = "_orig_mod." if hasattr(module, "_orig_mod") else "module."
            prefixes.append((f"{path}." if path else "", inner))
    plain = {name: name for name in model.state_dict()}
    for outer, inner in reversed(prefixes):  # the innermost first
        for name, short in plain.items():
            if short.startswith(outer + inner):
                plain[name] = outer + short[len(outer + inner) :]
    return plain


def fingerprint(model: nn.Module) -> str:
    """Of what a model is, weights and wrappings aside: its modules, their sizes, their configs."""
    told = []
    for module in model.modules():
        if not (hasattr(module, "_orig_mod") or isinstance(module, WRAPPERS)):
            told += [type(module).__name__, module.extra_repr(), str(getattr(module, "config", ""))]
    told += sorted({str(p.dtype) for p in model.parameters()})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes the file whole or not at all, with a checksum of all that it holds.

    Raises OSError, in words, when the disk is full or the folder cannot be written to, ValueError
    when the model has diverged; an earlier checkpoint at `path` is then untouched.
    """
    about = {key: getattr(checkpoint, key) for key in ABOUT}
    try:
        about = json.loads(json.dumps(about, allow_nan=False))  # as it will be read
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"config, recipe and log must be plain JSON: {error}") from None
    if not _agreed(about):
        raise ValueError(f"a checkpoint has {ABOUT}, not {about}")
    tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.tensors.items()}
    about["sha256"] = _checksum(about, tensors)
    write(path, save(tensors, {"diffusion_lib": json.dumps(about)}))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU. No pickle: loading a file runs no code from it.

    Raises FileNotFoundError, or ValueError for a damaged file (a single flipped bit is noticed),
    for one that this library did not write, and for a model that has diverged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("diffusion_lib", "0"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except PermissionError as error:
        raise OSError(f"you may not read {path}") from error
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged, cut short, or no safetensors file: {error}"
        ) from error
    if not _agreed(about):
        raise ValueError(f"{path} is a safetensors file, but no checkpoint of diffusion_lib")
    if about.pop("sha256", None) != _checksum(about, tensors):
        raise ValueError(f"{path} is damaged: its checksum is not that of what it holds")
    return Checkpoint(tensors=tensors, **{key: about[key] for key in ABOUT})


def _agreed(about: object) -> bool:
    return isinstance(about, dict) and all(isinstance(about.get(k), ABOUT[k]) for k in ABOUT)


def _checksum(about: dict, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the JSON, and of each tensor's name, type, shape and bytes.

    Raises ValueError for NaN and infinite numbers: such a model is neither saved nor loaded.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"the model has diverged: {name} holds NaN or infinite numbers")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
