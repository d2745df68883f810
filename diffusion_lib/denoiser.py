"""The contract that the course hangs on: D(x_t, t, cond) is an estimate of E[x_0 | x_t, cond]."""

import zlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from diffusion_lib.conditions import Cond
from diffusion_lib.cores import by_core
from diffusion_lib.guards import floats, real
from diffusion_lib.noise import randn_like
from diffusion_lib.parallel import drawn
from diffusion_lib.schedules import Schedule

Denoise = Callable[[Tensor, int | Tensor], Tensor]  # (x, t) -> an estimate of x_0

# Whatever a network is asked for is a mixture p x0 + q eps: here are p and q, given alpha and sigma.
# (v: Salimans & Ho 2022, appendix D; flow: Lipman et al. 2023, eq. 23) Add a row, and it works.
PREDICTIONS: dict[str, Callable] = {
    "x0": lambda alpha, sigma: (1, 0),
    "eps": lambda alpha, sigma: (0, 1),
    "v": lambda alpha, sigma: (-sigma, alpha),
    "flow": lambda alpha, sigma: (-1, 1),
}


class Denoiser(nn.Module):
    """A network, the schedule it was trained on, and what its output means: a row of PREDICTIONS.

        target = p x0 + q eps        x0 = (q x - sigma net) / (alpha q - sigma p)

    Only here is time converted: the net hears t - 1 (0…T-1), as Stable Diffusion's does.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        prediction: str = "v",
        times: Callable[[int, torch.Generator | None], Tensor] | None = None,
        weight: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """times: how `loss` draws times, (n, generator) -> n integers in 1…T; default `uniform`.
        weight: (B,) times -> the (B,) weights of their squared errors; by default all are 1.
        Raises ValueError for a prediction that is no row, or that says (next to) nothing of x0 at
        one of the times: |alpha q - sigma p| below a thousandth of |alpha q| + |sigma p|.
        """
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {(*PREDICTIONS,)}, not {prediction!r}")
        alpha, sigma = schedule.alpha[1:], schedule.sigma[1:]
        p, q = PREDICTIONS[prediction](alpha, sigma)
        tell = (alpha * q - sigma * p).abs() - 1e-3 * ((alpha * q).abs() + (sigma * p).abs())
        if not (tell > 0).all():
            raise ValueError(
                f"{prediction!r} says nothing of x0 at t = {int(tell.argmin()) + 1}, where alpha q "
                "= sigma p (with 'eps': pure noise, alpha = 0): use 'v', 'x0' or 'flow'"
            )
        self.net = net
        self.schedule = schedule
        self.prediction = prediction
        self.times = times or self.uniform
        self.weight = weight

    def extra_repr(self) -> str:
        levels = torch.stack([self.schedule.alpha, self.schedule.sigma]).numpy()
        return (
            f"{self.prediction!r}, T={self.schedule.T}, levels {zlib.crc32(levels.tobytes()):08x}"
        )

    def forward(self, x: Tensor, t: int | Tensor, cond: Cond | None = None) -> Tensor:
        """The contract. x: (B, …); t: an integer or (B,) integers in 0…T. Returns (B, …).

        At t = 0 the picture is clean: D(x, 0) = x, whatever the net would say.
        """
        alpha, sigma = self.schedule.at(t, like=floats("x", x))
        t = self.schedule.index(t).expand(len(x))  # (B,)
        if not t.any():
            return x
        clean = sigma == 0
        x0 = self.to_x0(self.ask(x, t, cond), x, alpha, sigma.masked_fill(clean, 1))
        return torch.where(clean, x, x0).to(x.dtype)

    def ask(self, x: Tensor, t: Tensor, cond: Cond | None) -> Tensor:
        """The net's output in x's precision; the net itself works in that of its weights."""
        dtype = next(self.parameters(), x).dtype
        if cond is not None and not isinstance(cond, Cond):
            raise TypeError(f"a condition is a Cond(context, mask), not {type(cond).__name__}")
        if cond is not None:
            cond = cond if len(cond.context) == len(x) else cond.expand(len(x))
            cond = cond._replace(context=cond.context.to(dtype))
        time = (t - 1).clamp(min=0).to(x.device, non_blocking=True)
        output = by_core(self.net, x.to(dtype), time, *(cond or ()))
        if output.shape != x.shape:
            raise ValueError(
                f"the network answers {tuple(output.shape)} to {tuple(x.shape)}: give it as many "
                "out_channels as in_channels, and both as many as the pictures have"
            )
        return output.to(x.dtype)

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the net should answer."""
        p, q = PREDICTIONS[self.prediction](alpha, sigma)
        return p * x0 + q * eps

    def to_x0(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """`target` solved for x0, with eps = (x - alpha x0) / sigma."""
        p, q = PREDICTIONS[self.prediction](alpha, sigma)
        return (q * x - sigma * output) / (alpha * q - sigma * p)

    def uniform(self, n: int, generator: torch.Generator | None) -> Tensor:
        """n times, each of 1…T equally likely. (Ho et al. 2020, algorithm 1)"""
        device = generator.device if generator is not None else "cpu"
        return torch.randint(1, self.schedule.T + 1, (n,), generator=generator, device=device)

    def loss(
        self, x0: Tensor, cond: Cond | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error on the net's own target, at random times. (Ho et al. 2020, eq. 14)"""
        n = len(floats("x0", x0))
        t = self.schedule.index(drawn(lambda n: self.times(n, generator), n))  # (B,)
        if t.shape != (len(x0),) or not t.all():
            raise ValueError(f"times must give one t in 1…{self.schedule.T} a picture, not {t}")
        eps = drawn(lambda n: randn_like(x0.new_empty(n, *x0.shape[1:]), generator), n)
        alpha, sigma = self.schedule.at(t, like=x0)
        output = self.ask(alpha * x0 + sigma * eps, t, cond)
        square = (output - self.target(x0, eps, alpha, sigma)).square()  # (B, …)
        if self.weight is not None:
            weight = torch.as_tensor(self.weight(t)).to(square).expand(len(x0))
            square = weight.view(alpha.shape) * square
        return square.mean()


def logit_normal(T: int) -> Callable[[int, torch.Generator | None], Tensor]:
    """For `Denoiser(times=…)`: most times in the middle, few near 1 or T. (Esser et al. 2024, 3.1)"""

    def times(n: int, generator: torch.Generator | None) -> Tensor:
        device = generator.device if generator is not None else "cpu"
        share = torch.randn(n, generator=generator, device=device).sigmoid()  # in (0, 1)
        return (T * share).ceil().long().clamp(1, T)

    return times


def guided(denoise: Denoise, without: Denoise | None = None, scale: float = 1.0) -> Denoise:
    """without + scale (denoise - without), as a function (x, t). (Ho & Salimans 2022, eq. 6)

    Two denoise functions, such as partial(D, cond=c) and partial(D, cond=null): those of one D are
    answered in one stacked call. For a negative prompt, guide away from its condition; for
    autoguidance, from a weaker network. (Karras et al. 2024) scale 1 is plain conditional sampling
    ("no guidance"), 0 unconditional: then only that function runs.
    """
    scale = real("the guidance scale", scale)
    if scale == 1:
        return denoise
    if without is None:
        raise ValueError(f"guidance {scale:g} needs a function to guide away from: the null's, say")
    if scale == 0:
        return without

    def mixed(x: Tensor, t: int | Tensor) -> Tensor:
        base, towards = _both(without, denoise, x, t)
        return base + scale * (towards - base)

    return mixed


def _both(first: Denoise, second: Denoise, x: Tensor, t: int | Tensor) -> tuple[Tensor, ...]:
    """Both answers; in one call, where they are one denoiser's under two conditions."""
    conds = []
    for f in (first, second):
        if isinstance(f, partial) and f.func is getattr(first, "func", None) and not f.args:
            conds += [c for name, c in f.keywords.items() if name == "cond" and isinstance(c, Cond)]
    if len(conds) < 2:
        return first(x, t), second(x, t)
    cond = Cond.cat([cond.expand(len(x)) for cond in conds])
    t = torch.as_tensor(t, device="cpu")
    return first.func(torch.cat([x, x]), torch.cat([t, t]) if t.ndim else t, cond=cond).chunk(2)


def clipped(denoise: Denoise) -> Denoise:
    """The same guess kept in [-1, 1], where pictures are: strong guidance leaves that range."""
    return lambda x, t: denoise(x, t).clamp(-1, 1)
