"""Samplers: generators that walk from noise at t = T to a picture at t = 0.

All move by one step (`move`) and differ in the guess h of the clean picture that they move by. They
see only `denoise(x, t)`, an estimate of x_0: conditions, guidance and what the network predicts are
none of their business.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.denoiser import Denoise
from diffusion_lib.guards import real
from diffusion_lib.noise import randn_like
from diffusion_lib.schedules import Schedule


class Step(NamedTuple):
    """One update: x, (B, …), has arrived at time t. x0, (B, …): the picture guessed on the way."""

    t: int
    x: Tensor
    x0: Tensor


class Level(NamedTuple):
    """A noise level: x_t = alpha x_0 + sigma eps."""

    t: int
    alpha: float
    sigma: float

    @property
    def log_ratio(self) -> float:
        """lambda = log(alpha / sigma), half the logarithm of the SNR; ±infinity where one is 0."""
        if self.alpha == 0 or self.sigma == 0:
            return -math.inf if self.alpha == 0 else math.inf
        return math.log(self.alpha / self.sigma)


def walk(schedule: Schedule, steps: int) -> Iterator[tuple[Level, Level]]:
    """(now, then) for every step from T down to 0."""
    levels = [
        Level(t, float(schedule.alpha[t]), float(schedule.sigma[t]))
        for t in schedule.timesteps(steps)
    ]
    return zip(levels, levels[1:])


def move(x: Tensor, h: Tensor, now: Level, then: Level) -> Tensor:
    """The one step: if h is the clean picture, (x - alpha h) / sigma is the noise. Mix them anew.

    x_s = alpha_s h + sigma_s (x_t - alpha_t h) / sigma_t. (Song et al. 2021a, eq. 12)
    """
    if h.shape != x.shape:
        raise ValueError(f"the guess has shape {tuple(h.shape)}, the pictures {tuple(x.shape)}")
    return then.alpha * h + then.sigma * (x - now.alpha * h) / now.sigma


def last(steps: Iterator[Step]) -> Tensor:
    """The final x; keeps nothing else."""
    end = deque(steps, maxlen=1)
    if not end:
        raise ValueError("there is no step to be the last: a sampler can be run through only once")
    return end[0].x


@torch.no_grad()
def ddim(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    steps: int = 50,
    eta: float = 0.0,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Iterator[Step]:
    """h = D(x, t). eta = 0: DDIM, Euler's method without fresh noise. eta = 1: DDPM.

    x: (B, …), noise. tau, a part of the noise of the level s, is drawn afresh, and sigma_s shrinks
    to √(sigma_s² - tau²) to make room for it. (Song et al. 2021a, eq. 16) generator: one, or one a
    picture, so that each is the same whatever stands beside it.
    """
    eta = real("eta (0: DDIM, 1: DDPM)", eta, 0, 1)
    for now, then in walk(schedule, steps):
        h = denoise(x, now.t)
        shrink = now.alpha / then.alpha if then.alpha > 0 else 0.0
        kept = shrink * then.sigma  # what is left in x_t of the noise of x_s
        tau2 = (eta * then.sigma / now.sigma) ** 2 * max(now.sigma**2 - kept**2, 0)
        x = move(x, h, now, then._replace(sigma=math.sqrt(max(then.sigma**2 - tau2, 0))))
        if tau2 > 0:
            x = x + math.sqrt(tau2) * randn_like(x, generator)
        yield Step(then.t, x, h)


@torch.no_grad()
def heun(denoise: Denoise, schedule: Schedule, x: Tensor, steps: int = 50) -> Iterator[Step]:
    """h is the mean of D at t and of D at s, where the first guess leads: second order.

    Two calls of `denoise` a step, but for the last, where D(x, 0) = x. x: (B, …), noise. (Karras et
    al. 2022, algorithm 1, but in alpha/sigma, so that it stays finite where alpha is 0)
    """
    for now, then in walk(schedule, steps):
        h = denoise(x, now.t)
        if then.t > 0:
            h = (h + denoise(move(x, h, now, then), then.t)) / 2
        x = move(x, h, now, then)
        yield Step(then.t, x, h)


@torch.no_grad()
def dpm_solver(denoise: Denoise, schedule: Schedule, x: Tensor, steps: int = 20) -> Iterator[Step]:
    """DPM-Solver++(2M): h is D, carried on by half a step along the line through D and the D before.

    One call a step, second order; first order where a step or the one before is infinitely long in
    lambda, or where there is none before. Yields D, not h. (Lu et al. 2022, DPM-Solver++, algorithm 2)
    """
    before, length_before = None, math.inf
    for now, then in walk(schedule, steps):
        h = d = denoise(x, now.t)
        length = then.log_ratio - now.log_ratio
        if math.isfinite(length) and 0 < length_before < math.inf:
            h = d + length / (2 * length_before) * (d - before)
        x = move(x, h, now, then)
        before, length_before = d, length
        yield Step(then.t, x, d)
