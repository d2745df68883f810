"""Exercise 13: time becomes a pattern."""

import torch

from diffusion_lib.checks._call import call
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._own import own
from diffusion_lib.layers import timestep_embedding


def right(t, dim):
    half = dim // 2
    k = torch.arange(half)
    rates = 10_000.0 ** (-k / half)
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


TABLE = Table(
    right,
    """
sine first | [angles.cos(), angles.sin()] -> [angles.sin(), angles.cos()]
    the two halves have changed places: cosines come first
interleaved | cat( -> stack( ;; dim=1) -> dim=-1).flatten(1)
interleaved | cat([angles.cos(), angles.sin()], dim=1) -> stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    cosine and sine take turns here; wanted are all cosines, then all sines
one too few | / half) -> / (half - 1))
    the exponent is divided by dim/2 - 1, so that the slowest rate is 1/10000 itself; divide by dim/2
over dim | / half) -> / dim)
twice the exponent | (-k -> (-2 * k
    the slowest rate is to be near 1/10000: the base is 10000 and the exponent k/(dim/2), not k/dim, 2k/…
growing | (-k -> (k
    the rates must fall, from 1 towards 1/10000; yours grow: the exponent lacks its minus
from the second | (half) -> (1, half + 1)
    k begins at 0, so that the fastest rate is 1; yours begins at 1
exponent without brackets | (-k / half) -> -k / half
    10000 ** -k / h is (10000 ** -k) / h: put brackets around -k / h
whole rates | (-k / half) -> (-k / half); rates = rates.long()
    the rates are rounded to whole numbers, 1 and then 0: keep them floating-point
full turns | * rates -> * rates * 2 * torch.pi
    you multiply by 2 pi: the angle is the rate times t itself
time scaled | t.float() -> (t / 1000)
    you divide t by 1000 first: then all hands stand nearly still
another base | 10_000.0 -> 1000.0
another base | 10_000.0 -> torch.e
    the rates are powers of another number than 10000 (in exp(…), of e: the factor log(10000) is missing)
cosines only | angles.sin() -> angles.cos()
sines only | angles.cos() -> angles.sin()
    both halves are the same; wanted are the cosines, then the sines
negative sine | angles.sin() -> -angles.sin()
    the sines have the wrong sign
dtype
    make the times, or the result, float32
""",
)


@exercise(
    13,
    "The network cannot tell 500 from 501",
    'notebook 03, "1. Time becomes a pattern"',
    "emb(t) = [cos(w_0 t), …, cos(w_h-1 t), sin(w_0 t), …, sin(w_h-1 t)],   w_k = 10000^(-k/h)",
    "Every time has a pattern of its own.",
)
def time_embedding(answer) -> None:
    """answer(t, dim) -> (B, dim) float32. t: (B,), integers or floats; dim: even."""
    low = [
        ([0, 1, 2, 5], 4),
        ([1.5, 0.25], 6),
        ([0.03, 0.11], 32),
    ]  # float32 holds growing rates too
    high = [([0, 1, 499, 500, 999], 32), ([3.0, 250.5], 8), ([17], 64), ([2, 3, 998], 98)]
    for cases in (low, high):
        cases = [(torch.tensor(t), dim) for t, dim in cases]
        observe = lambda f: own(f, timestep_embedding)  # noqa: E731
        judge(answer, cases, TABLE, "time_embedding", 2e-4, observe=observe, guards="device")
    for times in (cases[0][0], cases[0][0].double()):
        dtype = call(answer, times, 32, name="time_embedding").dtype
        reason = f"For times in {times.dtype} `time_embedding` returned {dtype}, expected float32."
        TABLE.demand(dtype == torch.float32, "dtype", reason)
