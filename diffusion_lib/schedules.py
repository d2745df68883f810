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

from diffusion_lib.guards import integers, whole


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha, sigma: (T+1,) tensors; alpha[0] = 1, sigma[0] = 0, and sigma > 0 from index 1 on.

    Given in float64, kept in float32. Raises ValueError for anything that is no schedule.
    """

    alpha: Tensor
    sigma: Tensor

    def __post_init__(self) -> None:
        alpha, sigma = (torch.as_tensor(r, device="cpu").float() for r in (self.alpha, self.sigma))
        if alpha.ndim != 1 or alpha.shape != sigma.shape or len(alpha) < 2:
            raise ValueError(
                "alpha and sigma must be two vectors of one length T+1 >= 2, "
                f"not of shapes {tuple(alpha.shape)} and {tuple(sigma.shape)}"
            )
        if alpha[0] != 1 or sigma[0] != 0:
            raise ValueError("index 0 of a schedule is the clean picture: alpha 1, sigma 0")
        inside = (alpha >= 0) & (sigma >= 0) & alpha.isfinite() & sigma.isfinite()
        if not inside.all() or not (sigma[1:] > 0).all():
            raise ValueError(
                "alpha and sigma must be finite, alpha must not be negative, "
                "and sigma must be above 0 from t = 1 on, also in float32"
            )
        if (alpha[1:] * sigma[:-1] > alpha[:-1] * sigma[1:] * (1 + 1e-5)).any():
            raise ValueError(
                "the noise must grow: alpha / sigma may not rise from one t to the next"
            )
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "sigma", sigma)

    @property
    def T(self) -> int:
        """The number of noise levels; t runs from 0 (clean) to T (noise)."""
        return len(self.alpha) - 1

    def index(self, t: int | Tensor) -> Tensor:
        """Times as int64 on the CPU. Raises IndexError outside 0…T, TypeError for no integers."""
        return integers("t", t, 0, self.T)

    def at(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t on like's device, shaped to broadcast over `like`.

        t: an integer, or integers (B,), each in 0…T. Returns two (B, 1, …) tensors.
        """
        t = self.index(t)
        if t.ndim > 1 or (t.numel() != 1 and t.shape != like.shape[:1]):
            raise ValueError(f"t has shape {tuple(t.shape)}, the batch {tuple(like.shape)}")
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
        t = self.index(t)
        return (self.alpha[t] / self.sigma[t]) ** 2

    def timesteps(self, steps: int) -> list[int]:
        """steps + 1 times from T down to 0, evenly spread. ("trailing", Lin et al. 2023, table 2)"""
        steps = whole("steps", steps, 1, self.T)
        return [math.floor(self.T * (steps - i) / steps + 0.5) for i in range(steps + 1)]


def from_betas(beta: Tensor) -> Schedule:
    """The variance-preserving schedule of x_t = √(1 - beta_t) x_{t-1} + √beta_t eps.

    beta: (T,) in (0, 1]. Then alpha_t² = ∏ (1 - beta_s) over s = 1…t. (Ho et al. 2020, eq. 4)
    """
    beta = torch.as_tensor(beta, dtype=torch.float64)
    if not ((beta > 0) & (beta <= 1)).all():
        raise ValueError("each beta must be above 0 and at most 1")
    alpha2 = torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])
    return Schedule(alpha2.sqrt(), (1 - alpha2).sqrt())


def _clock(T: int) -> Tensor:
    """t/T for t = 0…T."""
    return torch.arange(whole("T", T, 1) + 1, dtype=torch.float64) / T


def linear_schedule(T: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """beta rises linearly from `first` to `last`. (Ho et al. 2020, section 4)"""
    return from_betas(torch.linspace(first, last, whole("T", T, 1), dtype=torch.float64))


def scaled_linear_schedule(T: int = 1000, first: float = 0.00085, last: float = 0.012) -> Schedule:
    """√beta rises linearly: Stable Diffusion's schedule. (Rombach et al. 2022, their code)"""
    root = torch.linspace(first**0.5, last**0.5, whole("T", T, 1), dtype=torch.float64)
    return from_betas(root**2)


def cosine_schedule(T: int = 1000, s: float = 0.008, cap: float = 0.999) -> Schedule:
    """alpha_t² follows a squared cosine, each beta at most `cap`. (Nichol & Dhariwal 2021, eq. 17)"""
    t = _clock(T)
    alpha2 = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    return from_betas((1 - alpha2[1:] / alpha2[:-1]).clamp(max=cap))


def sigmoid_schedule(
    T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, cap: float = 0.999
) -> Schedule:
    """alpha_t² falls like a sigmoid from 1 to 0, each beta at most `cap`. (Jabri et al. 2022,
    algorithm 2)"""
    t = _clock(T)
    fall = torch.sigmoid(-(start + t * (end - start)) / tau)
    alpha2 = (fall - fall[-1]) / (fall[0] - fall[-1])
    return from_betas((1 - alpha2[1:] / alpha2[:-1]).clamp(max=cap))


def flow_schedule(T: int = 1000) -> Schedule:
    """A straight line from picture to noise: alpha = 1 - t/T, sigma = t/T. (Lipman et al. 2023)"""
    return Schedule(1 - _clock(T), _clock(T))


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
