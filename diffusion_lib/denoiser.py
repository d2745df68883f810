"""The contract that the course hangs on: D(x_t, t, cond) is an estimate of E[x_0 | x_t, cond]."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.schedules import Schedule, randn_like

PREDICTIONS = ("x0", "eps", "v", "flow")


class Cond(NamedTuple):
    """What a picture should show. context: (B, L, D); mask: (B, L), True = attend, or None."""

    context: Tensor
    mask: Tensor | None = None


class Denoiser(nn.Module):
    """A network, the schedule it was trained on, and what its output means.

    prediction   the net's target      x0 from the net's output
    x0           x0                    net
    eps          eps                   (x - sigma net) / alpha
    v            alpha eps - sigma x0  (alpha x - sigma net) / (alpha² + sigma²)
    flow         eps - x0              (x - sigma net) / (alpha + sigma)

    Only here is time converted: the net hears t - 1 (0…T-1), as Stable Diffusion's does.
    (v: Salimans & Ho 2022, appendix D; flow: Lipman et al. 2023, eq. 23)
    """

    def __init__(self, net: nn.Module, schedule: Schedule, prediction: str = "v") -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, not {prediction!r}")
        if prediction == "eps" and schedule.alpha[-1] == 0:
            raise ValueError(
                "this schedule ends in pure noise (alpha[T] = 0), where noise says nothing of x0: "
                "use prediction 'v', 'x0' or 'flow'"
            )
        self.net = net
        self.schedule = schedule
        self.prediction = prediction

    def forward(self, x: Tensor, t: int | Tensor, cond: Cond | None = None) -> Tensor:
        """The contract. x: (B, …); t: an integer or (B,) integers in 0…T. Returns (B, …).

        At t = 0 the picture is clean: D(x, 0) = x, and the net is not asked.
        """
        t = torch.as_tensor(t, device="cpu").expand(len(x))  # (B,)
        alpha, sigma = self.schedule.at(t, like=x)
        if not t.any():
            return x
        x0 = self.to_x0(self.ask(x, t, cond), x, alpha, sigma)
        return torch.where(sigma == 0, x, x0)

    def ask(self, x: Tensor, t: Tensor, cond: Cond | None) -> Tensor:
        """The net's raw output in x's dtype, whatever precision autocast ran it in."""
        time = (t - 1).clamp(min=0).to(x.device, non_blocking=True)
        return self.net(x, time, *(cond or ())).to(x.dtype)

    def to_x0(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x0 from the net's output: the right-hand column of the table."""
        if self.prediction == "x0":
            return output
        if self.prediction == "eps":
            return (x - sigma * output) / alpha
        if self.prediction == "v":
            return (alpha * x - sigma * output) / (alpha**2 + sigma**2)
        return (x - sigma * output) / (alpha + sigma)

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the net should answer: the middle column of the table."""
        if self.prediction == "x0":
            return x0
        if self.prediction == "eps":
            return eps
        if self.prediction == "v":
            return alpha * eps - sigma * x0
        return eps - x0

    def loss(
        self, x0: Tensor, cond: Cond | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error on the net's own target, at t uniform on 1…T. (Ho et al. 2020, eq. 14)"""
        device = generator.device if generator is not None else "cpu"
        T = self.schedule.T
        t = torch.randint(1, T + 1, (len(x0),), generator=generator, device=device).cpu()
        eps = randn_like(x0, generator)
        alpha, sigma = self.schedule.at(t, like=x0)
        output = self.ask(alpha * x0 + sigma * eps, t, cond)
        return F.mse_loss(output, self.target(x0, eps, alpha, sigma))


def guided(
    denoiser: Callable[..., Tensor], cond: Cond, null: Cond | None = None, scale: float = 1.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """denoise(x, t) for a sampler: D(null) + scale (D(cond) - D(null)). (Ho & Salimans 2022, eq. 6)

    scale 1 is plain conditional sampling ("no guidance"), 0 unconditional: then only that branch
    runs; else both run in one stacked call. null: as cond, or one row for all; a negative prompt
    is nothing else than another null.
    """
    if not math.isfinite(scale):
        raise ValueError(f"the guidance scale must be a finite number, not {scale}")
    if scale == 1:
        return lambda x, t: denoiser(x, t, cond)
    if null is None:
        raise ValueError(f"guidance {scale} needs a null condition: the empty prompt's, say")
    null = Cond(*(n if n is None else n.expand_as(c) for n, c in zip(null, cond)))
    if scale == 0:
        return lambda x, t: denoiser(x, t, null)
    both = Cond(*(n if n is None else torch.cat([n, c]) for n, c in zip(null, cond)))

    def denoise(x: Tensor, t: int | Tensor) -> Tensor:
        t = torch.as_tensor(t, device="cpu").expand(len(x))
        without, with_cond = denoiser(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return without + scale * (with_cond - without)

    return denoise
