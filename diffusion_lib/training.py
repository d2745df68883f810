"""The training loop, and the moving average of the weights."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from diffusion_lib import parallel
from diffusion_lib.checkpoints import Checkpoint, fingerprint
from diffusion_lib.guards import fits, real, whole, why_not
from diffusion_lib.noise import seeded


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
    recipe: dict  # what `train` was told, and the size of the batches


def learning_rate(step: int, steps: int, lr: float, warmup: int = 100) -> float:
    """`lr` times half a cosine from 1 down to 0 at `steps`, times a linear rise in `warmup` steps."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return lr * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(
    model: nn.Module,
    batches: Iterable,
    *,
    steps: int,
    lr: float = 2e-3,
    warmup: int = 100,
    decay: float = 0.999,
    clip: float = 1.0,
    seed: int = 0,
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    amp: torch.dtype | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[Training]:
    """Trains `model`, of which it knows only `model.loss(*batch, generator=g)`.

    A generator: it yields after each of `steps` optimiser steps, and whoever runs it logs, draws,
    saves or stops. `batches` (of tuples, or of bare tensors) is run through again when it ends.
    Warm-up and cosine decay of the learning rate; gradients clipped to norm `clip`; `optimiser`:
    AdamW, or `muon.Muon`, or a partial of either; `amp` = torch.bfloat16 or float16 for mixed
    precision. Frozen weights stay; a model that is frozen as a whole, as `load_pretrained` gives it,
    is thawed. With `resume`, goes on exactly where that checkpoint was (with batches that do too:
    `shuffled(..., start=resume.step)`, and a network that draws no numbers of its own, as dropout
    does); `steps` alone may be others.
    Raises FloatingPointError before a step that would spoil the weights, ValueError or TypeError
    for batches that the model cannot take and for a checkpoint of another recipe.
    """
    steps, decay = whole("steps", steps, 1), real("decay", decay, 0, 1)
    lr, clip, warmup = real("lr", lr, 1e-12), real("clip", clip, 1e-12), whole("warmup", warmup, 0)
    if amp not in (None, torch.bfloat16, torch.float16):
        raise ValueError(f"amp is torch.bfloat16, torch.float16 or None, not {amp!r}")
    if not any(p.requires_grad for p in model.parameters()):
        model.requires_grad_(True)
    weights = [p for p in model.parameters() if p.requires_grad]
    if not weights or any(p.dtype not in (torch.float32, torch.float64) for p in weights):
        raise ValueError("train wants weights in float32: model.float(); amp= for half precision")
    device = weights[0].device
    recipe = {"optimiser": getattr(optimiser, "__name__", repr(optimiser))}
    optimiser = optimiser(weights, lr=lr, betas=(0.9, 0.99), fused=device.type != "mps")
    generator = seeded(seed)  # on the CPU: the same noise on every device
    scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
    recipe |= dict(lr=lr, warmup=warmup, decay=decay, clip=clip, seed=int(seed), amp=str(amp))
    batches = _forever(batches)
    first = next(batches)
    whole_batch = fits(first, model) * parallel.place()[1]
    recipe |= {"batch": whole_batch, "model's fingerprint": fingerprint(model)}
    none, ema = torch.tensor(math.nan), EMA(model, decay)
    state = Training(0, none, model, ema, optimiser, generator, scaler, recipe)
    if resume is not None:
        whole("steps (the checkpoint has done that many)", steps, resume.step + 1)
        resume.restore(state)
    model.train()
    loss_of = parallel.loss_of(model)
    for batch in chain([first], batches):
        batch = [b.to(device) if isinstance(b, Tensor) else b for b in batch]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(state.step, steps, lr, warmup)
        optimiser.zero_grad()
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            loss = loss_of(*batch, generator=generator)
        if loss.ndim:
            raise ValueError(f"loss must be one number, not of shape {tuple(loss.shape)}: .mean()?")
        if not loss.isfinite():
            raise FloatingPointError(why_not(batch, loss, state.step, lr))
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(weights, clip)
        if not norm.isfinite() and not scaler.is_enabled():  # a scaler skips such a step by itself
            raise FloatingPointError(why_not(batch, loss, state.step, lr))
        scaler.step(optimiser)
        scaler.update()
        state.step += 1
        state.loss = parallel.agreed(loss.detach())
        state.ema.update(model, state.step)
        yield state
        if state.step >= steps:
            return


def _forever(batches: Iterable) -> Iterator[tuple]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield (batch,) if isinstance(batch, Tensor) else batch
        if empty:
            raise ValueError("there are no batches to train on (or an iterator that has ended)")


def shuffled(dataset, batch_size: int, seed: int = 0, start: int = 0) -> Iterator[tuple]:
    """Endless shuffled batches, a new order each epoch; `start` skips that many at no cost.

    dataset: any map-style data set. One with `batch(row numbers)` is asked for whole batches; the
    items of others are collated, as by PyTorch's DataLoader. Under torchrun each process gets its
    part of every batch.
    """
    if not hasattr(dataset, "__len__"):
        raise TypeError("shuffled takes a data set with len() and [i]; train takes any iterable")
    n, start = len(dataset), whole("start", start, 0)
    batch_size = whole("batch_size", batch_size, 1)
    per_epoch = n // batch_size
    if per_epoch == 0:
        raise ValueError(f"a batch of {batch_size} is larger than the data set ({n})")
    while True:
        epoch, first = divmod(start, per_epoch)
        order = torch.randperm(n, generator=seeded(whole("seed", seed) * 1_000_003 + epoch))
        for i in range(first, per_epoch):
            rows = parallel.part(order[i * batch_size : (i + 1) * batch_size])
            if hasattr(dataset, "batch"):
                yield dataset.batch(rows)
            else:
                yield default_collate([dataset[row] for row in rows.tolist()])
        start = (epoch + 1) * per_epoch
