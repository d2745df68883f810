"""The check of the time embedding."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.checks._core import (
    Mistake,
    Wrong,
    as_tensor,
    call,
    exercise,
    judge,
    on_another_device,
)
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


def _with_rates(rates: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
    def answer(t: Tensor, dim: int) -> Tensor:
        angles = t.float()[:, None] * rates(torch.arange(dim // 2).float(), dim // 2)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    return answer


_growing = _with_rates(lambda k, half: torch.exp(math.log(10_000) * k / half))
_over_dim = _with_rates(lambda k, half: 10_000.0 ** (-k / (2 * half)))


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
    Mistake(
        "over dim", "the exponent is k/(dim/2), not k/dim: your rates fall too slowly", _over_dim
    ),
    Mistake(
        "growing",
        "the rates must fall, from 1 towards 1/10000; yours grow: the exponent lacks its minus",
        _growing,
    ),
    Mistake(
        "exponent without brackets",
        "10000 ** -k / h is (10000 ** -k) / h: put brackets around -k / h",
        _with_rates(lambda k, half: 10_000.0**-k / half),
    ),
    Mistake(
        "whole rates",
        "the rates are rounded to whole numbers, 1 and then 0: keep them floating-point",
        _with_rates(lambda k, half: (k == 0).float()),
    ),
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


def _single_precision(result: Tensor, times: Tensor) -> None:
    if result.dtype != torch.float32:
        raise Wrong(
            f"For times in {times.dtype} `time_embedding` returned {result.dtype}, expected "
            "torch.float32.",
            "make the times, or the result, float32",
            "dtype",
        )


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
        (torch.tensor([2, 3, 998]), 98),
    ]
    judge(answer, cases, timestep_embedding, MISTAKES, atol=2e-4, name="time_embedding")
    for times in (cases[0][0], cases[0][0].double()):
        result = as_tensor(call(answer, times, 16, name="time_embedding"), "time_embedding")
        _single_precision(result, times)
    want = timestep_embedding(cases[0][0], 16)
    judge(lambda t, dim: result, [(cases[0][0], 16)], lambda t, dim: want, atol=2e-4)
    on_another_device(answer, torch.tensor([1, 2]), 8, name="time_embedding")
