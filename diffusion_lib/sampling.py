"""Samplers: generators that walk from noise at t = T to a picture at t = 0.

All take the same arguments and see only `denoise(x, t)`, an estimate of x_0. Conditions, guidance
and what the network predicts are none of their business.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.schedules import Schedule, randn_like

Denoise = Callable[[Tensor, int], Tensor]


class Step(NamedTuple):
    """One update: x, (B, …), has arrived at time t, by way of the estimate x0, (B, …)."""

    t: int
    x: Tensor
    x0: Tensor


def last(steps: Iterator[Step]) -> Tensor:
    """The final x; keeps nothing else."""
    for step in steps:
        pass
    return step.x


def _pairs(schedule: Schedule, steps: int) -> Iterator[tuple[int, int, float, float, float, float]]:
    """(t, s, alpha_t, sigma_t, alpha_s, sigma_s) for every update from t down to s."""
    times = schedule.timesteps(steps)
    alpha, sigma = schedule.alpha.tolist(), schedule.sigma.tolist()
    for t, s in zip(times, times[1:]):
        yield t, s, alpha[t], sigma[t], alpha[s], sigma[s]


@torch.no_grad()
def ddim(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    steps: int = 50,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """eta = 0: DDIM, no fresh noise (Euler, on a flow schedule). eta = 1: DDPM. x: (B, …), noise.

    Look through the noise, then walk to the next, smaller noise level s < t:
    x_s = alpha_s x0 + √(sigma_s² - tau²) eps + tau z. (Song et al. 2021, eq. 12 and 16)
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in 0 (DDIM) … 1 (DDPM), not {eta}")
    for t, s, a_t, s_t, a_s, s_s in _pairs(schedule, steps):
        x0 = denoise(x, t)
        eps = (x - a_t * x0) / s_t
        tau2 = (eta * s_s / s_t) ** 2 * max(s_t**2 - (a_t / a_s * s_s) ** 2, 0)
        x = a_s * x0 + math.sqrt(max(s_s**2 - tau2, 0)) * eps
        if tau2 > 0:
            x = x + math.sqrt(tau2) * randn_like(x, generator)
        yield Step(s, x, x0)


@torch.no_grad()
def heun(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    steps: int = 50,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """Second order: predict with D at t, then correct with the mean of D at t and at s.

    Two calls of `denoise` a step, but for the last, where D(x, 0) = x. No noise is drawn: eta
    must be 0. (Karras et al. 2022, algorithm 1, but in alpha/sigma, so that it stays finite where
    alpha is 0)
    """
    _deterministic(eta, "heun")
    for t, s, a_t, s_t, a_s, s_s in _pairs(schedule, steps):
        x0 = denoise(x, t)
        guess = a_s * x0 + s_s * (x - a_t * x0) / s_t
        if s > 0:
            x0 = (x0 + denoise(guess, s)) / 2
            guess = a_s * x0 + s_s * (x - a_t * x0) / s_t
        x = guess
        yield Step(s, x, x0)


@torch.no_grad()
def dpm_solver(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    steps: int = 20,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M): one call a step; the step before tells how x0 is changing.

    In lambda = log(alpha / sigma) with h = lambda_s - lambda_t:
    x_s = sigma_s/sigma_t x - alpha_s (e^-h - 1) D. First order on the first and the last step.
    No noise is drawn: eta must be 0. (Lu et al. 2022b, algorithm 2)
    """
    _deterministic(eta, "dpm_solver")
    before, h_before = None, math.inf
    for t, s, a_t, s_t, a_s, s_s in _pairs(schedule, steps):
        x0 = denoise(x, t)
        if a_t == 0 or s_s == 0:  # an end of the schedule, where lambda is infinite
            h = math.inf
        else:
            h = math.log(a_s / s_s) - math.log(a_t / s_t)
        d = x0
        if before is not None and math.isfinite(h) and math.isfinite(h_before):
            d = x0 + (x0 - before) * h / (2 * h_before)
        x = s_s / s_t * x - a_s * math.expm1(-h) * d
        before, h_before = x0, h
        yield Step(s, x, x0)


def _deterministic(eta: float, name: str) -> None:
    if eta != 0:
        raise ValueError(f"{name} draws no noise: eta must be 0, not {eta} (ddim takes others)")
