"""Samplers are watched on a denoiser that is known exactly."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_lib import sampling
from diffusion_lib.checks._call import call
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._own import own
from diffusion_lib.checks._wrong import UNKNOWN, Wrong
from diffusion_lib.schedules import Schedule

CAUSES = """
root of one minus alpha² | sigma = schedule.sigma -> sigma = (1 - schedule.alpha**2).sqrt()
    √(1 - alpha²) is sigma on some schedules only; take schedule.sigma
asked at s | denoise(x, t) -> denoise(x, s)
    the network is asked at time s, where x is still as noisy as at t: ask at t, then step to s
guess clamped | denoise(x, t) -> denoise(x, t).clamp(-1, 1)
    the guess is clamped to -1…1, which was not asked for: take it as it is
all steps | alpha = -> times = range(times[0], times[-1] - 1, -1); alpha =
    you make all steps of the schedule; `times` has the few that were asked for
own times | alpha = -> times = schedule.timesteps(len(times) - 1); alpha =
    you walk by times of your own, as many as were asked for, but evenly spaced
starts late | alpha = -> r = schedule.T // (len(times) - 1); times = [*range((len(times) - 2) * r, 0, -r), 0]; alpha =
    the first step begins later than asked for, as if x were cleaner than it is
stops early | alpha = -> times = times[:-1]; alpha =
    the walk ends one step too early
starts at the second time | alpha = -> times = times[1:]; alpha =
    the first step, which begins at the first of the times, is missing
infinite
    on the way something is divided by 0, or the logarithm of 0 or infinity times 0 is taken: look at
    the ends, where alpha or sigma is 0
number of calls
    exactly one call a step is wanted
too many calls
    the calls are the whole cost: keep the answer, ask once a step
fresh noise
    fresh noise belongs to DDPM; here the walk is a function of the first x alone
"""


class Denoiser:
    """The D(x, t) of normal data, of mean 0.3 and deviation 0.5, bent; counts who asks for what."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.times = schedule, []

    def __call__(self, x: Tensor, t: int) -> Tensor:
        asked = torch.as_tensor(t).flatten()
        if (asked != asked[0]).any() or asked[0] != int(asked[0]):
            raise Wrong(f"`denoise` takes one integer as time; it was given {asked.tolist()[:4]}.")
        self.times.append(t := int(asked[0]))
        alpha, sigma = self.schedule.alpha[t].double(), self.schedule.sigma[t].double()
        linear = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x.double() - alpha * 0.3) + 0.3
        return (linear + 0.2 * torch.sin(3 * linear)).to(x.dtype)  # bent, so that orders differ


def walk_of(schedule: Schedule, *times: int, shape: tuple = (3, 2)) -> tuple:
    """A case: denoise, schedule, x, times."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(times)))
    return Denoiser(schedule), schedule, x, list(times)


def judge_walks(answer: Callable, cases: list[tuple], table: Table, name: str) -> None:
    """Compares answer(denoise, schedule, x, times), and counts its calls of denoise."""
    library = sampling.ddim, sampling.heun, sampling.dpm_solver
    extra = []  # calls too many, or too few

    def watched(denoise: Denoiser, schedule: Schedule, x: Tensor, times: list[int]) -> Any:
        denoise.times.clear()
        drawn = torch.get_rng_state()
        result = call(own(answer, *library), denoise, schedule, x, times, name=name)
        reason = f"`{name}` draws random numbers on its way."
        table.demand(torch.equal(drawn, torch.get_rng_state()), "fresh noise", reason)
        extra.append(len(denoise.times) - (len(times) - 1))
        return result

    try:
        judge(watched, cases, table, name)
    except Wrong as wrong:
        if not wrong.mistake and UNKNOWN in wrong.reason:
            reason = wrong.reason.replace(f"\n    {UNKNOWN}", "")
            finite = not any(sign in reason for sign in ("(NaN)", "yours -inf", "yours inf"))
            table.demand(finite, "infinite", reason)
            often = "often" if max(extra) > 0 else "rarely"
            reason += f"\n    It calls denoise {max(extra, key=abs):+d} times too {often}."
            table.demand(
                not any(extra), "number of calls", reason.replace("+", "").replace("-", "")
            )
        raise
    reason = f"`{name}` is right, but it calls the denoiser more often than it steps."
    table.demand(not any(extra), "too many calls", reason)
