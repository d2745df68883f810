"""Exercise 34: where image to image begins."""

import math
from collections.abc import Callable
from typing import Any

import torch

from diffusion_lib.checks._call import call, describe, inputs_of, kind
from diffusion_lib.checks._compare import as_tensor, close, copy_of, difference
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._stages import in_stages
from diffusion_lib.checks._wrong import Wrong
from diffusion_lib.schedules import Schedule, cosine_schedule, flow_schedule, linear_schedule


def right(schedule, x0, strength, steps, eps):
    whole = schedule.timesteps(steps)
    left = max(1, round(strength * steps))
    times = whole[steps - left :]
    t = times[0]
    alpha, sigma = schedule.alpha[t], schedule.sigma[t]
    return alpha * x0 + sigma * eps, times


def spread(t: int, steps: int) -> list[int]:
    """steps + 1 times from t down to 0, as `Schedule.timesteps` spreads them."""
    return [math.floor(t * (steps - i) / steps + 0.5) for i in range(steps + 1)]


TABLE = Table(
    right,
    """
upside down | round(strength * steps) -> round((1 - strength) * steps)
upside down | steps - left : -> left :
    strength is upside down: 0.2 keeps most of the picture, and has a fifth of the steps left to walk
rounded down | round(strength -> int(strength
rounded up | round(strength -> math.ceil(strength
    strength * steps is to be rounded to the nearest whole number; int() cuts off, and in floating
    point 0.29 * 100 is a little less than 29
no step left | max(1, round(strength * steps)) -> round(strength * steps)
    with little strength no step is left, and nothing changes: at least one is wanted
whole walk | whole[steps - left :] -> whole ;; t = times[0] -> t = whole[steps - left]
    these are the times of the whole walk, from T on; only the last part of them is left to walk
all steps in the rest | times = whole[steps - left :] -> times = spread(whole[steps - left], steps)
all steps in the rest | times = whole[steps - left :] -> times = spread(round(strength * schedule.T), steps)
    all steps are spread over the time that is left, so little strength costs as much as full
    strength; only its share of the steps is wanted
times spread anew | times = whole[steps - left :] -> times = spread(round(strength * schedule.T), left)
times spread anew | times = whole[steps - left :] -> times = spread(int(strength * schedule.T), left)
times spread anew | times = whole[steps - left :] -> times = spread(whole[steps - left], left)
    the number of steps is right, but their times are spread anew; take those of the whole walk
first steps | whole[steps - left :] -> whole[: left + 1]
    these are the first steps of the walk, from T on; the last ones are left to walk
0 missing | whole[steps - left :] -> whole[steps - left : -1]
    the walk does not end at 0: one time more than there are steps
one step too few | whole[steps - left :] -> whole[steps - left + 1 :]
one step too few | whole[steps - left :] -> whole[-left:]
    a step is missing at the beginning: n steps have n + 1 times
one step too many | whole[steps - left :] -> whole[steps - left - 1 :]
one step too many | whole[steps - left :] -> whole[max(steps - left - 1, 0) :]
    the walk begins a step too early: n steps have n + 1 times
upwards | times = whole[steps - left :] -> times = whole[steps - left :][::-1]
    the times run upwards; the walk goes from noise down to 0
noise of the time before | t = times[0] -> t = whole[steps - left - 1]
noise of the time before | t = times[0] -> t = whole[max(steps - left - 1, 0)]
    this is the noise of a step earlier, more than the walk expects at its first time: what is too
    much stays in the picture as dirt
noise of the next time | t = times[0] -> t = times[1]
    this is the noise of the second time, where the first step leads; noise to the first
noise of T | t = times[0] -> t = whole[0]
    this is the noise of time T, whatever the strength: nothing of the picture is left, and the walk
    does not expect so much
noise by the strength | t = times[0] -> t = round(strength * schedule.T)
noise by the strength | t = times[0] -> t = int(strength * schedule.T)
    x is noised to strength * T, and the walk begins near it, but not there; noise to its first time
one time beside | t = times[0] -> t = times[0] - 1
one time beside | t = times[0] -> t = min(times[0] + 1, schedule.T)
    this is the noise of a time beside the first one. Index 0 of a schedule is the clean picture, and
    nobody but the network counts from t - 1
steps for time | t = times[0] -> t = left
steps for time | t = times[0] -> t = steps - left
    a number of steps is taken for a time: the schedule is asked at a time, from 0 to T
no noise | + sigma * eps ->
    no noise is added
picture not scaled | alpha * x0 -> x0
    the picture is not scaled by alpha: it must fade as the noise comes
variance | sigma * eps -> sigma**2 * eps
    the noise is scaled by its variance, sigma², not by its standard deviation
exchanged | alpha * x0 + sigma * eps -> sigma * x0 + alpha * eps
    alpha and sigma have changed places
root of one minus alpha² | alpha, sigma = schedule.alpha[t], schedule.sigma[t] -> alpha = schedule.alpha[t]; sigma = (1 - alpha**2).sqrt()
    √(1 - alpha²) is sigma on some schedules only; take schedule.sigma
root taken again | alpha, sigma = schedule.alpha[t], schedule.sigma[t] -> alpha = schedule.alpha[t].sqrt(); sigma = (1 - schedule.alpha[t]).sqrt()
root taken again | alpha * x0 + sigma * eps -> alpha.sqrt() * x0 + sigma.sqrt() * eps
    a root is taken of what are roots already: schedule.alpha and schedule.sigma are factors as they
    stand
strength as noise | alpha, sigma = schedule.alpha[t], schedule.sigma[t] -> alpha, sigma = 1 - strength, strength
strength as noise | alpha * x0 + sigma * eps -> x0 + strength * eps
strength as noise | alpha * x0 + sigma * eps -> alpha * x0 + strength * sigma * eps
    strength is used as an amount of noise; it says how far up the walk begins, and the schedule says
    how much noise there is
noise of one picture | sigma * eps -> sigma * eps[:1]
    all pictures get the first one's noise
own noise
    noise is drawn; take `eps`, as it is given
called again
    something is left over from the call before: a global variable, or a default argument that was
    changed
""",
)


def watch(answer: Callable, case: tuple) -> dict[str, Any]:
    """x and times of an answer."""
    drawn = torch.get_rng_state()
    pair = call(answer, *case, name="start")
    if not torch.equal(drawn, torch.get_rng_state()):
        raise TABLE.wrong("own noise", "`start` draws random numbers of its own.")
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        said = f"`start` should return a pair (x, times), and returned {kind(pair)}."
        raise Wrong(said, "none" if pair is None else "type")
    x, times = pair
    try:
        times = torch.tensor([float(t) for t in times])
    except (TypeError, ValueError):
        said = (
            f"`start` should return whole numbers, in a list, as times, and returned {kind(times)}."
        )
        raise Wrong(said, "type") from None
    return {"times": times, "x": as_tensor(x, "start")}


def called(case: tuple) -> str:
    return f"\n    It was called with {describe(inputs_of(right, case))}."


def of_times(case: tuple, seen: dict, want: dict) -> str:
    def told(times: torch.Tensor) -> str:
        numbers = [f"{t:g}" for t in times.tolist()]
        return ", ".join(numbers if len(numbers) < 12 else [*numbers[:4], "…", *numbers[-4:]])

    steps = {name: len(both["times"]) - 1 for name, both in (("yours", seen), ("expected", want))}
    return (
        f"The times are not those that are left: yours {told(seen['times'])} ({steps['yours']} steps), "
        f"expected {told(want['times'])} ({steps['expected']} steps).{called(case)}"
    )


def of_x(case: tuple, seen: dict, want: dict) -> str:
    return f"The times are right. {difference(seen['x'], want['x'], name='start')}{called(case)}"


@exercise(
    34,
    "As if through a dirty window",
    'notebook 13, "Editing"',
    "x = alpha_t x_0 + sigma_t eps,   t: the first of the times that are left",
    "As much noise as the walk expects where it begins.",
)
def strength(answer) -> None:
    """answer(schedule, x0, strength, steps, eps) -> (x, times)."""
    generator = torch.Generator().manual_seed(34)

    def case(schedule: Schedule, strength: float, steps: int, *shape: int) -> tuple:
        x0 = torch.rand(shape, generator=generator) * 2 - 1
        return schedule, x0, strength, steps, torch.randn(shape, generator=generator)

    cases = [
        case(cosine_schedule(100), 0.37, 9, 2, 3, 4, 4),
        case(flow_schedule(37), 0.52, 7, 3, 2),
        case(linear_schedule(60, 0.002, 0.1), 0.55, 6, 2, 1, 3, 5),
        case(cosine_schedule(200), 0.29, 100, 2, 3, 2, 2),
        case(flow_schedule(50), 0.03, 8, 2, 3, 2, 2),
        case(linear_schedule(20), 1.0, 4, 1, 4, 2, 2),
    ]
    inputs_of(answer, cases[0])
    in_stages(answer, cases, TABLE, watch, {"times": of_times, "x": of_x})
    again, want = watch(answer, copy_of(cases[0])), watch(right, copy_of(cases[0]))
    same = close(again["x"], want["x"]) and close(again["times"], want["times"])
    TABLE.demand(same, "called again", "`start` is right, but not when it is called again.")
