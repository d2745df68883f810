"""The training loop, the moving average of the weights, and checkpoints that survive a crash."""

import copy
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class EMA:
    """An exponential moving average of a model's weights, which samples better than the last ones.

    It warms up: after n updates its memory is at most (1 + n) / (10 + n), so that the random
    first weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, n: int) -> None:
        """Moves towards the model's weights after its n-th step."""
        decay = min(self.decay, (1 + n) / (10 + n))
        mine, its = list(self.model.parameters()), [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(mine, its, 1 - decay)
        for buffer, new in zip(self.model.buffers(), model.buffers()):
            buffer.copy_(new)


@dataclass
class Training:
    """What `train` yields after each step, and all that a checkpoint keeps."""

    step: int  # optimiser steps done
    loss: Tensor  # of this step, a scalar
    model: nn.Module
    ema: EMA
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    scaler: torch.amp.GradScaler


def learning_rate(step: int, steps: int, lr: float, warmup: int = 100) -> float:
    """A linear rise to `lr` over `warmup` steps, then half a cosine down to 0 at `steps`."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return lr * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(
    model: nn.Module,
    batches: Iterable[tuple],
    *,
    steps: int,
    lr: float = 2e-3,
    warmup: int = 100,
    decay: float = 0.999,
    clip: float = 1.0,
    seed: int = 0,
    amp: torch.dtype | None = None,
    resume: "Checkpoint | None" = None,
) -> Iterator[Training]:
    """Trains `model`, of which it knows only `model.loss(*batch, generator=g)`.

    A generator: it yields after each of `steps` optimiser steps, and whoever runs it logs, draws,
    saves or stops. `batches` is run through again when it ends. AdamW; warm-up and cosine decay of
    the learning rate; gradients clipped to norm `clip`; `amp` = torch.bfloat16 or float16 for mixed
    precision. With `resume`, goes on exactly where that checkpoint was (give it batches that do:
    `shuffled(..., start=resume.step)`).
    Raises FloatingPointError when the loss is no longer finite.
    """
    device = next(model.parameters()).device
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
    scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
    state = Training(
        0, torch.tensor(math.nan), model, EMA(model, decay), optimiser, generator, scaler
    )
    if resume is not None:
        resume.restore(state)
    endless = _forever(batches)
    model.train()
    while state.step < steps:
        batch = [b.to(device) if isinstance(b, Tensor) else b for b in next(endless)]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(state.step, steps, lr, warmup)
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            loss = model.loss(*batch, generator=generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {state.step}: try a smaller learning rate than "
                f"{lr:g}, and see that the images are finite and in [-1, 1]"
            )
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimiser)
        scaler.update()
        state.step += 1
        state.loss = loss.detach()
        state.ema.update(model, state.step)
        yield state


def _forever(batches: Iterable[tuple]) -> Iterator[tuple]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("there are no batches to train on (or an iterator that has ended)")


def shuffled(dataset, batch_size: int, seed: int = 0, start: int = 0) -> Iterator[tuple]:
    """Endless shuffled batches, a new order each epoch; `start` skips that many at no cost.

    dataset: anything with `__len__` and `__getitems__(list of indices) -> a batch`.
    """
    per_epoch = len(dataset) // batch_size
    if per_epoch == 0:
        raise ValueError(f"a batch of {batch_size} is larger than the data set ({len(dataset)})")
    while True:
        epoch, first = divmod(start, per_epoch)
        order = torch.randperm(
            len(dataset), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        )
        for i in range(first, per_epoch):
            yield dataset.__getitems__(order[i * batch_size : (i + 1) * batch_size])
        start = (epoch + 1) * per_epoch


# ---------------------------------------------------------------------------------------------
# Checkpoints: one safetensors file, tensors named "model.…", "ema.…", "optimiser.…", and JSON.


@dataclass
class Checkpoint:
    """What lies in a checkpoint file: tensors by name, the model's configuration, a few numbers."""

    config: dict
    step: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    scaler: dict = field(default_factory=dict)

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of "model" or "ema", named as in its state_dict; empty if it has none."""
        return {k[len(name) + 1 :]: v for k, v in self.tensors.items() if k.startswith(name + ".")}

    def restore(self, state: Training) -> None:
        """Puts everything back where `state_of` took it from."""
        if not self.part("optimiser"):
            raise ValueError("this checkpoint holds a finished model only: it cannot be resumed")
        state.step = self.step
        state.model.load_state_dict(self.part("model"))
        state.ema.model.load_state_dict(self.part("ema"))
        saved, moments = self.part("optimiser"), {}
        for i, (name, weight) in enumerate(state.model.named_parameters()):
            if f"{name}.step" in saved:
                # laid out in memory as the weight is, which the fused optimiser takes for granted
                moments[i] = {
                    key: torch.empty_like(weight).copy_(saved[f"{name}.{key}"])
                    for key in ("exp_avg", "exp_avg_sq")
                } | {"step": saved[f"{name}.step"]}
        fresh = state.optimiser.state_dict() | {"state": moments}
        state.optimiser.load_state_dict(fresh)
        state.generator.set_state(self.tensors["generator"])
        state.scaler.load_state_dict(self.scaler)


def state_of(state: Training, config: dict) -> Checkpoint:
    """Everything that `train` needs to go on, taken from what it yielded."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.model.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{name}.{key}"] = value
    tensors["generator"] = state.generator.get_state()
    return Checkpoint(config, state.step, tensors, state.scaler.state_dict())


def finished(checkpoint: Checkpoint) -> Checkpoint:
    """The moving average alone, to share: a fifth of the size, and it cannot be resumed."""
    weights = {f"model.{name}": tensor for name, tensor in checkpoint.part("ema").items()}
    return Checkpoint(checkpoint.config, checkpoint.step, weights)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes to a temporary file beside `path`, then renames it: `path` is always whole.

    Raises OSError, in words, when the disk is full or the folder cannot be written to; an earlier
    checkpoint at `path` is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".partial")
    about = {"config": checkpoint.config, "step": checkpoint.step, "scaler": checkpoint.scaler}
    tensors = {k: v.detach().contiguous() for k, v in checkpoint.tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, {"diffusion_lib": json.dumps(about)})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        kept = "; the previous one is untouched" if path.exists() else ""
        raise OSError(f"could not write the checkpoint {path}{kept}: {error}") from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU. No pickle: loading a file runs no code from it.

    Raises FileNotFoundError, or ValueError for a damaged file or one that this library did not
    write.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("diffusion_lib", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is damaged, cut short, or no safetensors file: {error}"
        ) from error
    if "config" not in about:
        raise ValueError(f"{path} is a safetensors file, but no checkpoint of diffusion_lib")
    return Checkpoint(about["config"], about["step"], tensors, about["scaler"])
