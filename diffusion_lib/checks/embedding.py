"""The check of the time embedding."""

import math

import torch
from torch import Tensor

from diffusion_lib.checks._core import Mistake, as_tensor, call, exercise, judge, on_another_device
from diffusion_lib.layers import timestep_embedding


def _waves(
    t: Tensor, dim: int, base: float = 10_000.0, last: int = 0, scale: float = 1.0
) -> Tensor:
    half = dim // 2
    rates = torch.exp(-math.log(base) * torch.arange(half) / (half - last))
    return scale * t.float()[:, None] * rates


def _embedded(**options) -> object:
    def answer(t: Tensor, dim: int) -> Tensor:
        angles = _waves(t, dim, **options)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    return answer


def _sine_first(t: Tensor, dim: int) -> Tensor:
    angles = _waves(t, dim)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _interleaved(t: Tensor, dim: int) -> Tensor:
    angles = _waves(t, dim)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1)


def _interleaved_sine_first(t: Tensor, dim: int) -> Tensor:
    angles = _waves(t, dim)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _over_dim(t: Tensor, dim: int) -> Tensor:
    rates = torch.exp(-math.log(10_000) * torch.arange(dim // 2) / dim)
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _growing(t: Tensor, dim: int) -> Tensor:
    rates = torch.exp(math.log(10_000) * torch.arange(dim // 2) / (dim // 2))
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _cosines(t: Tensor, dim: int) -> Tensor:
    angles = _waves(t, dim)
    return torch.cat([angles.cos(), angles.cos()], dim=-1)


MISTAKES = [
    Mistake("sine first", "the two halves have changed places: cosines come first", _sine_first),
    Mistake(
        "interleaved",
        "cosine and sine take turns here; wanted are all cosines, then all sines",
        _interleaved,
    ),
    Mistake(
        "interleaved",
        "sine and cosine take turns here; wanted are all cosines, then all sines",
        _interleaved_sine_first,
    ),
    Mistake(
        "one too few",
        "the exponent is divided by dim/2 - 1, so that the slowest rate is 1/10000 itself; divide by "
        "dim/2",
        _embedded(last=1),
    ),
    Mistake("over dim", "the exponent is k/(dim/2), not k/dim: your hands are too fast", _over_dim),
    Mistake("growing", "the rates must fall, from 1 towards 1/10000; yours grow", _growing),
    Mistake(
        "full turns",
        "you multiply by 2 pi: the angle is the rate times t itself",
        _embedded(scale=2 * math.pi),
    ),
    Mistake(
        "time scaled",
        "you divide t by 1000 first: then all hands stand nearly still",
        _embedded(scale=1 / 1000),
    ),
    Mistake("another base", "the slowest rate is near 1/10000, not 1/1000", _embedded(base=1000.0)),
    Mistake("cosines only", "the second half are cosines again; it should be the sines", _cosines),
]


@exercise(
    13,
    "The network cannot tell 500 from 501",
    'notebook 03, "1. Time becomes a pattern"',
    "emb(t) = [cos(w_0 t), …, cos(w_h-1 t), sin(w_0 t), …, sin(w_h-1 t)],   w_k = 10000^(-k/h)",
    "Every time has a pattern of its own.",
    slow_start=True,
)
def time_embedding(answer) -> None:
    """answer(t, dim) -> (B, dim) float32. t: (B,), integers or floats; dim: even."""
    cases = [
        (torch.tensor([0, 1, 499, 500, 999]), 32),
        (torch.tensor([3.0, 250.5]), 8),
        (torch.tensor([17]), 64),
    ]
    judge(answer, cases, timestep_embedding, MISTAKES, atol=2e-4, name="time_embedding")
    result = as_tensor(
        call(answer, cases[0][0].double(), 16, name="time_embedding"), "time_embedding"
    )
    want = timestep_embedding(cases[0][0], 16)
    judge(lambda t, dim: result, [(cases[0][0], 16)], lambda t, dim: want, atol=2e-4)
    on_another_device(answer, torch.tensor([1, 2]), 8, name="time_embedding")
