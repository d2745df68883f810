"""Checks of samplers that need few calls: DDIM and DPM-Solver++(2M)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.checks._core import Mistake, Wrong, exercise, judge
from diffusion_lib.sampling import ddim as library_ddim
from diffusion_lib.sampling import dpm_solver as library_dpm_solver
from diffusion_lib.sampling import last
from diffusion_lib.schedules import Schedule, cosine_schedule, flow_schedule, linear_schedule

Update = Callable[..., Tensor]


class GaussianDenoiser:
    """The exact D(x, t) of normal data, of mean 0.3 and deviation 0.5; counts who asks for what."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.times = schedule, []

    def __call__(self, x: Tensor, t: int) -> Tensor:
        asked = torch.as_tensor(t).flatten()
        if (asked != asked[0]).any() or asked[0] != int(asked[0]):
            raise Wrong(f"`denoise` takes one integer as time; it was given {asked.tolist()[:4]}.")
        t = int(asked[0])
        self.times.append(t)
        alpha, sigma = self.schedule.alpha[t].double(), self.schedule.sigma[t].double()
        variance = alpha**2 * 0.25 + sigma**2
        linear = 0.3 + alpha * 0.25 / variance * (x.double() - alpha * 0.3)
        return (linear + 0.1 * torch.sin(3 * linear)).to(x.dtype)  # bent, so that orders differ


def walk(update: Update, times: Callable[[Schedule, int], list[int]] | None = None):
    """A sampler that makes `update`(x, x0, t, s, schedule, memory) between its times."""

    def sample(denoise, schedule: Schedule, x: Tensor, steps: int) -> Tensor:
        chosen = times(schedule, steps) if times else schedule.timesteps(steps)
        memory: dict = {}
        for t, s in zip(chosen, chosen[1:]):
            x = update(x, denoise(x, t), t, s, schedule, memory)
        return x

    return sample


def _numbers(schedule: Schedule, t: int, s: int) -> tuple[float, float, float, float]:
    alpha, sigma = schedule.alpha.tolist(), schedule.sigma.tolist()
    return alpha[t], sigma[t], alpha[s], sigma[s]


def _cases(steps: int) -> list[tuple]:
    generator = torch.Generator().manual_seed(steps)
    schedules = cosine_schedule(100), linear_schedule(60), flow_schedule(50)
    shapes = (3, 2), (2, 3, 4, 4), (5, 1)
    return [
        (GaussianDenoiser(s), s, torch.randn(shape, generator=generator), steps + i)
        for i, (s, shape) in enumerate(zip(schedules, shapes))
    ]


def _watched(answer: Callable, name: str) -> Callable:
    """The answer, with an eye on its calls of the denoiser, its draws and its last time."""

    def sample(denoise: GaussianDenoiser, schedule: Schedule, x: Tensor, steps: int) -> Tensor:
        denoise.times.clear()
        before = torch.get_rng_state()
        result = answer(denoise, schedule, x, steps)
        sample.extra = sample.extra or len(denoise.times) - steps
        if not torch.equal(before, torch.get_rng_state()):
            raise Wrong(
                f"`{name}` draws random numbers on its way.",
                "fresh noise belongs to DDPM; here the walk is a function of the first x alone",
                "fresh noise",
            )
        return result

    sample.extra = 0  # calls too many, or too few
    return sample


def _judge(
    answer: Callable, right: Callable, mistakes: list[Mistake], name: str, steps: int
) -> None:
    cases = _cases(steps)
    watched = _watched(answer, name)
    try:
        judge(watched, cases, right, mistakes, name=name)
    except Wrong as wrong:
        unknown = "\n    It is wrong in a way that I do not recognise."
        if wrong.mistake is None and (
            "not a number" in wrong.reason or "yours -inf" in wrong.reason
        ):
            wrong.cause = (
                "look at the first and the last step: a division by 0, the logarithm of 0, or the root of "
                "a negative number"
            )
            wrong.mistake = "infinite"
        elif wrong.mistake is None and watched.extra and wrong.reason.endswith(unknown):
            wrong.cause = (
                f"it calls denoise {abs(watched.extra)} times too "
                f"{'often' if watched.extra > 0 else 'rarely'}: exactly `steps` times is wanted"
            )
            wrong.mistake = "number of calls"
        if wrong.mistake in ("infinite", "number of calls"):
            wrong.reason = wrong.reason.removesuffix(unknown)
        raise
    judge(watched, [(*cases[0][:3], 1), (*cases[2][:3], 1)], right, name=name)
    denoise, schedule, x, steps = cases[0]
    watched(denoise, schedule, x, steps)
    if len(denoise.times) != steps:
        raise Wrong(
            f"`{name}` is right, but it calls the denoiser {len(denoise.times)} times for {steps} steps.",
            "the calls are the whole cost: keep the answer, ask once a step",
            "too many calls",
        )


# --- 23 ------------------------------------------------------------------------------------------


def _ddim_update(x: Tensor, x0: Tensor, t: int, s: int, schedule: Schedule, memory: dict) -> Tensor:
    a_t, s_t, a_s, s_s = _numbers(schedule, t, s)
    return a_s * x0 + s_s * (x - a_t * x0) / s_t


def _ddim_with(new: Callable[..., Tensor]) -> Callable:
    """A DDIM whose update is new(x, x0, a_t, s_t, a_s, s_s)."""
    return walk(lambda x, x0, t, s, schedule, memory: new(x, x0, *_numbers(schedule, t, s)))


def _leading(schedule: Schedule, steps: int) -> list[int]:
    stride = schedule.T // steps
    return [*range((steps - 1) * stride, 0, -stride), 0]


def _first_noise(x: Tensor, x0: Tensor, t: int, s: int, schedule: Schedule, memory: dict) -> Tensor:
    _, _, a_s, s_s = _numbers(schedule, t, s)
    return a_s * x0 + s_s * memory.setdefault("noise", x)


DDIM_MISTAKES = [
    Mistake(
        "the first noise",
        "you put the noise back that the walk began with; it must be found anew from x at each step",
        walk(_first_noise),
    ),
    Mistake(
        "answer taken for noise",
        "denoise gives an estimate of the picture, x0, not of the noise",
        _ddim_with(lambda x, n, a, b, c, d: c * (x - b * n) / max(a, 1e-9) + d * n),
    ),
    Mistake(
        "exchanged",
        "alpha_s belongs to the picture and sigma_s to the noise; here they have changed places",
        _ddim_with(lambda x, x0, a, b, c, d: d * x0 + c * (x - a * x0) / b),
    ),
    Mistake(
        "noise of the wrong time",
        "the noise in x is that of the time where you are, t: take alpha_t and sigma_t to find it",
        _ddim_with(lambda x, x0, a, b, c, d: c * x0 + d * (x - c * x0) / max(d, 1e-9)),
    ),
    Mistake(
        "divided by the variance",
        "eps = (x - alpha_t x0) / sigma_t: you divide by sigma_t², the variance",
        _ddim_with(lambda x, x0, a, b, c, d: c * x0 + d * (x - a * x0) / b**2),
    ),
    Mistake(
        "not divided",
        "what is left of x without the picture is sigma_t · eps: divide it by sigma_t",
        _ddim_with(lambda x, x0, a, b, c, d: c * x0 + d * (x - a * x0)),
    ),
    Mistake(
        "variance of the new noise",
        "the new noise has standard deviation sigma_s, not sigma_s²",
        _ddim_with(lambda x, x0, a, b, c, d: c * x0 + d**2 * (x - a * x0) / b),
    ),
    Mistake(
        "picture not scaled",
        "at time s the picture is there in the share alpha_s",
        _ddim_with(lambda x, x0, a, b, c, d: x0 + d * (x - a * x0) / b),
    ),
    Mistake(
        "sign",
        "the noise is subtracted where it should be added, or the other way round",
        _ddim_with(lambda x, x0, a, b, c, d: c * x0 - d * (x - a * x0) / b),
    ),
    Mistake(
        "picture not removed",
        "to find the noise in x, take the picture out first: x - alpha_t x0",
        _ddim_with(lambda x, x0, a, b, c, d: c * x0 + d * (x - x0) / b),
    ),
    Mistake(
        "stays at the old level",
        "you put the *old* amount of noise back: the step leads to time s",
        _ddim_with(lambda x, x0, a, b, c, d: c * x0 + b * (x - a * x0) / b),
    ),
    Mistake(
        "all steps",
        "you make all T steps; schedule.timesteps(steps) has the few that were asked for",
        walk(_ddim_update, lambda schedule, steps: list(range(schedule.T, -1, -1))),
    ),
    Mistake(
        "stops early",
        "the walk ends one step before t = 0: a little noise stays in",
        walk(_ddim_update, lambda schedule, steps: schedule.timesteps(steps)[:-1]),
    ),
    Mistake(
        "starts late",
        "x is noise of time T, but your first step begins later, as if it were cleaner",
        walk(_ddim_update, _leading),
    ),
    Mistake(
        "starts at the second time",
        "the first step, which begins at T, is missing",
        walk(_ddim_update, lambda schedule, steps: schedule.timesteps(steps)[1:]),
    ),
]


@exercise(
    23,
    "A thousand calls for one picture",
    'notebook 05, "The noise is a choice"',
    "x_s = alpha_s x0 + sigma_s eps,   eps = (x_t - alpha_t x0) / sigma_t",
    "The same picture from the same noise, in as few steps as you like.",
)
def ddim(answer) -> None:
    """answer(denoise, schedule, x, steps) -> the final x, by `steps` calls of denoise(x, t)."""
    right = lambda denoise, schedule, x, steps: last(  # noqa: E731
        library_ddim(denoise, schedule, x, steps)
    )
    _judge(answer, right, DDIM_MISTAKES, "ddim", steps=7)


# --- 24 ------------------------------------------------------------------------------------------


def _solver_with(correct: Callable[..., Tensor], move: Callable | None = None) -> Callable:
    """A 2M solver: correct(x0, before, h, h_before) gives d; move(x, d, h, …) the new x."""

    def update(x: Tensor, x0: Tensor, t: int, s: int, schedule: Schedule, memory: dict) -> Tensor:
        a_t, s_t, a_s, s_s = _numbers(schedule, t, s)
        ends = a_t == 0 or s_s == 0
        h = math.inf if ends else math.log(a_s / s_s) - math.log(a_t / s_t)
        before, h_before = memory.get("last", (None, math.inf))
        d = x0
        if before is not None and math.isfinite(h) and math.isfinite(h_before):
            d = correct(x0, before, h, h_before)
        memory["last"] = x0, h
        if move is not None:
            return move(x, d, h, a_t, s_t, a_s, s_s)
        return s_s / s_t * x - a_s * math.expm1(-h) * d

    return walk(update)


def _usual(x0: Tensor, before: Tensor, h: float, h_before: float) -> Tensor:
    return x0 + h / (2 * h_before) * (x0 - before)


def _first_memory() -> Callable:
    """Remembers the first answer for ever."""

    def update(x: Tensor, x0: Tensor, t: int, s: int, schedule: Schedule, memory: dict) -> Tensor:
        a_t, s_t, a_s, s_s = _numbers(schedule, t, s)
        ends = a_t == 0 or s_s == 0
        h = math.inf if ends else math.log(a_s / s_s) - math.log(a_t / s_t)
        before, h_before = memory.setdefault("first", (x0, h))
        d = _usual(x0, before, h, h_before) if math.isfinite(h) and before is not x0 else x0
        return s_s / s_t * x - a_s * math.expm1(-h) * d

    return walk(update)


SOLVER_MISTAKES = [
    Mistake(
        "first order",
        "this is DDIM, of first order: nothing of the step before is used",
        _solver_with(lambda x0, before, h, h_before: x0),
    ),
    Mistake(
        "ratio upside down",
        "the two step lengths in the factor have changed places",
        _solver_with(lambda x0, b, h, hb: x0 + hb / (2 * h) * (x0 - b)),
    ),
    Mistake(
        "no half",
        "the factor of the correction lacks its 1/2: half a step ahead, not a whole one",
        _solver_with(lambda x0, b, h, hb: x0 + h / hb * (x0 - b)),
    ),
    Mistake(
        "equal steps taken for granted",
        "the factor is 1/2 only where both steps are equally long; here they are not",
        _solver_with(lambda x0, b, h, hb: x0 + 0.5 * (x0 - b)),
    ),
    Mistake(
        "looks backwards",
        "the correction has the wrong sign: it leads back, towards the answer before",
        _solver_with(lambda x0, b, h, hb: x0 - h / (2 * hb) * (x0 - b)),
    ),
    Mistake(
        "mean of the two",
        "you take the mean of the two answers: that lies behind, not ahead",
        _solver_with(lambda x0, b, h, hb: (x0 + b) / 2),
    ),
    Mistake(
        "old memory",
        "the answer that you remember is never renewed: it is that of the first step",
        _first_memory(),
    ),
    Mistake(
        "ratio of the alphas",
        "x is to be scaled by sigma_s / sigma_t, not by alpha_s / alpha_t",
        _solver_with(
            _usual,
            lambda x, d, h, a_t, s_t, a_s, s_s: (
                (a_s / a_t if a_t else 0.0) * x - a_s * math.expm1(-h) * d
            ),
        ),
    ),
    Mistake(
        "sign of the picture",
        "the picture is subtracted: e^-h - 1 is negative, so mind the sign before it",
        _solver_with(
            _usual,
            lambda x, d, h, a_t, s_t, a_s, s_s: s_s / s_t * x + a_s * math.expm1(-h) * d,
        ),
    ),
    Mistake(
        "sigma for alpha",
        "the picture's share at time s is alpha_s, not sigma_s",
        _solver_with(
            _usual,
            lambda x, d, h, a_t, s_t, a_s, s_s: s_s / s_t * x - s_s * math.expm1(-h) * d,
        ),
    ),
]


@exercise(
    24,
    "The same picture in eight calls",
    'notebook 08, "DPM-Solver++(2M): remember, do not ask twice"',
    "d = D_t + h/(2 h_before) (D_t - D_before),   x_s = sigma_s/sigma_t x_t + alpha_s (1 - e^-h) d",
    "Second order, at the price of the first.",
)
def dpm_solver(answer) -> None:
    """answer(denoise, schedule, x, steps) -> the final x, by `steps` calls of denoise(x, t)."""
    right = lambda denoise, schedule, x, steps: last(  # noqa: E731
        library_dpm_solver(denoise, schedule, x, steps)
    )
    _judge(answer, right, SOLVER_MISTAKES, "dpm_solver", steps=6)
