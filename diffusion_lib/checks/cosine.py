"""Exercise 14: the cosine schedule."""

import math

import torch

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._schedule import ROOTS, ROWS, alpha_and_sigma
from diffusion_lib.schedules import cosine_schedule, from_betas


def right(T, s, cap):
    t = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=cap)
    share = torch.cat([torch.ones(1), (1 - beta).cumprod(0)])
    alpha, sigma = share.sqrt(), (1 - share).sqrt()
    return alpha, sigma


TABLE = Table(
    right,
    """
cap fixed | max=cap -> max=0.999
    your cap is 0.999 always; take the `cap` that you are given
offset fixed | t = -> s = 0.008; t =
    your offset is 0.008 always; take the `s` that you are given
no cap | .clamp(max=cap) ->
    the last beta is 1, so alpha_T is 0 and whoever divides by it fails: cap each beta
only the last capped | .clamp(max=cap) -> ; beta[-1] = beta[-1].clamp(max=cap)
only the last capped | .clamp(max=cap) -> ; beta[-1] = cap
    the cap holds for every beta, not only for the last
cap on alpha | torch.cat([torch.ones(1), (1 - beta).cumprod(0)]) -> (f / f[0]).clamp(min=1 - cap)
    the cap belongs to each beta, not to alpha²
cap from below | max=cap -> min=1 - cap
cap from below | max=cap -> min=cap
    the cap is an upper limit of beta, not a lower one
not normalised | torch.cat([torch.ones(1), (1 - beta).cumprod(0)]) -> f
    alpha_0 must be 1: divide the curve by its value at t = 0
no offset | t = -> s = 0; t =
    the offset s is not used: the first steps add almost no noise
offset not divided | / (1 + s) ->
    (t/T + s) is to be divided by (1 + s), or the cosine runs past its zero
not squared | ) ** 2 -> ).abs()
    the cosine is alpha itself; alpha² is the *square* of the cosine
squared twice | ) ** 2 -> ) ** 4
    the squared cosine is alpha² already; you squared once more
half a turn | math.pi / 2 -> math.pi
    the cosine must fall to 0 over the T steps: a quarter turn, pi/2, not pi
no ratio | f[1:] / f[:-1] -> f[1:]
ratio upside down | f[1:] / f[:-1] -> f[:-1] / f[1:]
    a beta compares f with its value one step before, by their ratio: new over old
"""
    + ROOTS,
)


@exercise(
    14,
    "A schedule that wastes no steps",
    'notebook 01, "Which schedule?"',
    "f(t) = cos²( (t/T + s)/(1 + s) · pi/2 ),   beta_t = min(1 - f(t)/f(t-1), cap)",
    "The picture fades evenly, and the last step can still be divided by.",
)
def cosine(answer) -> None:
    """answer(T, s, cap) -> (alpha, sigma), each (T+1,), as Nichol & Dhariwal 2021, eq. 17."""
    cases = [(20, 0.008, 0.999), (50, 0.02, 0.99), (9, 0.1, 0.9), (12, 0.008, 0.3)]
    observe = alpha_and_sigma("cosine", cosine_schedule, from_betas)
    judge(answer, cases, TABLE, "cosine", rows=ROWS, observe=observe)
