"""Noise schedules: how much picture and how much noise is in x_t.

One equation carries the whole course,

    x_t = alpha_t * x_0 + sigma_t * eps,    eps ~ N(0, 1),    t = 0 … T,

and a schedule is nothing but its two rows of numbers. Index 0 is clean (alpha 1, sigma 0), index T
is noise. Variance-preserving schedules (alpha² + sigma² = 1) are diffusion as in Ho et al. 2020;
flow matching (alpha = 1 - t/T, sigma = t/T) is the same class with other numbers.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def randn_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise shaped as `x`, drawn where the generator lives, then moved to x.

    A CPU generator thus gives the same noise, and so the same picture, on every device.
    """
    device = generator.device if generator is not None else x.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha, sigma: (T+1,) tensors; alpha[0] = 1, sigma[0] = 0, and sigma > 0 from index 1 on.

    Given in float64, kept in float32. Raises ValueError for anything that is no schedule.
    """

    alpha: Tensor
    sigma: Tensor

    def __post_init__(self) -> None:
        alpha, sigma = self.alpha, self.sigma
        if alpha.ndim != 1 or alpha.shape != sigma.shape or len(alpha) < 2:
            raise ValueError(
                "alpha and sigma must be two vectors of one length T+1 >= 2, "
                f"not of shapes {tuple(alpha.shape)} and {tuple(sigma.shape)}"
            )
        if alpha[0] != 1 or sigma[0] != 0:
            raise ValueError("index 0 of a schedule is the clean picture: alpha 1, sigma 0")
        if not (sigma[1:] > 0).all() or not (alpha >= 0).all():
            raise ValueError("alpha must not be negative, and sigma must be above 0 from t = 1 on")
        object.__setattr__(self, "alpha", alpha.float())
        object.__setattr__(self, "sigma", sigma.float())

    @property
    def T(self) -> int:
        """The number of noise levels; t runs from 0 (clean) to T (noise)."""
        return len(self.alpha) - 1

    def at(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t on like's device, shaped to broadcast over `like`.

        t: an integer, or an integer tensor (B,), each in 0…T. Returns two (B, 1, …) tensors.
        Raises IndexError for a time outside 0…T, TypeError for one that is no integer.
        """
        t = torch.as_tensor(t, device="cpu")
        if t.is_floating_point():
            raise TypeError(f"t counts noise levels and must be an integer in 0…{self.T}: got {t}")
        if t.numel() and not 0 <= int(t.min()) <= int(t.max()) <= self.T:
            wrong = int(t.max()) if int(t.max()) > self.T else int(t.min())
            raise IndexError(f"t = {wrong} is outside this schedule's 0…{self.T}")
        shape = (-1,) + (1,) * (like.ndim - 1)
        return (
            self.alpha[t].view(shape).to(like.device, non_blocking=True),  # (B, 1, …)
            self.sigma[t].view(shape).to(like.device, non_blocking=True),
        )

    def add_noise(self, x0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """x_t = alpha_t x_0 + sigma_t eps, a draw from q(x_t | x_0). (Ho et al. 2020, eq. 4)"""
        alpha, sigma = self.at(t, like=x0)
        return alpha * x0 + sigma * eps

    def snr(self, t: int | Tensor) -> Tensor:
        """Signal-to-noise ratio alpha_t² / sigma_t²; infinite at t = 0."""
        return (self.alpha[t] / self.sigma[t]) ** 2

    def timesteps(self, steps: int) -> list[int]:
        """steps + 1 times from T down to 0, evenly spread. ("trailing", Lin et al. 2023, table 2)"""
        if not 1 <= steps <= self.T:
            raise ValueError(f"steps must be in 1…{self.T} (this schedule's T), not {steps}")
        return [math.floor(self.T * (steps - i) / steps + 0.5) for i in range(steps + 1)]


def from_betas(beta: Tensor) -> Schedule:
    """The variance-preserving schedule of x_t = √(1 - beta_t) x_{t-1} + √beta_t eps.

    beta: (T,) in (0, 1]. Then alpha_t² = ∏ (1 - beta_s) over s = 1…t. (Ho et al. 2020, eq. 4)
    """
    alpha2 = torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta.double()).cumprod(0)])
    return Schedule(alpha2.sqrt(), (1 - alpha2).sqrt())


def linear_schedule(T: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """beta rises linearly from `first` to `last`. (Ho et al. 2020, section 4)"""
    return from_betas(torch.linspace(first, last, T, dtype=torch.float64))


def scaled_linear_schedule(T: int = 1000, first: float = 0.00085, last: float = 0.012) -> Schedule:
    """√beta rises linearly: Stable Diffusion's schedule. (Rombach et al. 2022, their code)"""
    return from_betas(torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64) ** 2)


def cosine_schedule(T: int = 1000, s: float = 0.008, cap: float = 0.999) -> Schedule:
    """alpha_t² follows a squared cosine, each beta at most `cap`. (Nichol & Dhariwal 2021, eq. 17)"""
    t = torch.arange(T + 1, dtype=torch.float64) / T
    alpha2 = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    return from_betas((1 - alpha2[1:] / alpha2[:-1]).clamp(max=cap))


def sigmoid_schedule(
    T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, cap: float = 0.999
) -> Schedule:
    """alpha_t² falls like a sigmoid from 1 to 0, each beta at most `cap`. (Jabri et al. 2022,
    algorithm 2)"""
    t = torch.arange(T + 1, dtype=torch.float64) / T
    fall = torch.sigmoid(-(start + t * (end - start)) / tau)
    alpha2 = (fall - fall[-1]) / (fall[0] - fall[-1])
    return from_betas((1 - alpha2[1:] / alpha2[:-1]).clamp(max=cap))


def flow_schedule(T: int = 1000) -> Schedule:
    """A straight line from picture to noise: alpha = 1 - t/T, sigma = t/T. (Lipman et al. 2023)"""
    sigma = torch.arange(T + 1, dtype=torch.float64) / T
    return Schedule(1 - sigma, sigma)


def zero_terminal_snr(schedule: Schedule) -> Schedule:
    """The same variance-preserving schedule, stretched so that step T is pure noise.

    alpha is shifted to end at 0 and scaled to keep its value at t = 1. (Lin et al. 2023,
    algorithm 1) Raises ValueError for a schedule that is not variance-preserving.
    """
    alpha, sigma = schedule.alpha.double(), schedule.sigma.double()
    if ((alpha**2 + sigma**2 - 1).abs() > 1e-5).any():
        raise ValueError(
            "only a variance-preserving schedule (alpha² + sigma² = 1) can be stretched"
        )
    alpha = (alpha - alpha[-1]) * alpha[1] / (alpha[1] - alpha[-1])
    alpha[0] = 1
    return Schedule(alpha, (1 - alpha**2).sqrt())
