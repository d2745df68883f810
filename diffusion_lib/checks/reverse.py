"""Checks of the way back: the reverse step, the loop around it, the network's time.

The usual wrong answers are in `_reverse.py`.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.checks._core import (
    Wrong,
    as_tensor,
    call,
    close,
    difference,
    exercise,
    fine,
    judge,
)
from diffusion_lib.checks._reverse import (
    KINDS,
    LAST_MISTAKES,
    LOOPS,
    STEP_MISTAKES,
    step_of,
    time_mistake,
)
from diffusion_lib.schedules import Schedule, cosine_schedule, linear_schedule

# --- 03 ------------------------------------------------------------------------------------------


@exercise(
    3,
    "One step back, and everything explodes",
    'notebook 05, "DDPM: the posterior, with a guess"',
    "x_{t-1} = (x_t - beta_t/sigma_t · eps) / √(1 - beta_t) + √beta-tilde_t · z,   "
    "beta-tilde_t = beta_t · sigma_{t-1}² / sigma_t²",
    "The predicted noise goes out, a little fresh noise comes in.",
)
def reverse_step(answer) -> None:
    """answer(xt, t, eps, z, schedule) -> x_{t-1}. xt, eps, z: (B, …); t: one integer in 1…T."""
    generator = torch.Generator().manual_seed(3)

    def case(schedule: Schedule, t: int, *shape: int, dtype=torch.float32) -> tuple:
        xt, eps, z = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3))
        return xt, t, eps, z, schedule

    linear, cosine = linear_schedule(50, 0.005, 0.2), cosine_schedule(100)
    steep = linear_schedule(8, 0.02, 0.7)
    right = step_of()
    cases = [
        case(linear, 20, 4, 3, 8, 8),
        case(cosine, 60, 5, 2),
        case(steep, 5, 1, 1, 4, 6),
        case(steep, 4, 3, 7, dtype=torch.float64),
    ]
    judge(answer, cases, right, STEP_MISTAKES, name="reverse_step")
    ends = [case(s, t, 2, 3, 4, 4) for s in (linear, steep) for t in (1, 2, s.T)]
    judge(answer, ends, right, LAST_MISTAKES, name="reverse_step")


# --- 04 ------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """One call of the step: for which time, from which x, with which fresh noise."""

    t: int
    x: Tensor
    z: Tensor


def _recorded_loop(answer, x: Tensor, T: int, seed: int) -> tuple[list[_Asked], Tensor]:
    """What the learner's loop asks of a step that only writes down; and what it returns."""
    asked: list[_Asked] = []

    def step(x: Tensor, t: int, z: Tensor) -> Tensor:
        if isinstance(t, Tensor) and t.numel() > 1 and (t == t.flatten()[0]).all():
            t = t.flatten()[0]
        if isinstance(t, Tensor) and t.numel() == 1:
            t = t.item()
        if not isinstance(t, int | float | np.integer) or t != int(t):
            raise Wrong(f"`step` takes one whole number as time; your loop gave it t = {t}.")
        if not isinstance(x, Tensor):
            raise Wrong(f"`step` takes a tensor as x; your loop gave it {type(x).__name__}.")
        if isinstance(z, int | float) and z == 0:
            z = torch.zeros_like(x)
        if not isinstance(z, Tensor) or z.shape != x.shape:
            what = f"a tensor of shape {tuple(z.shape)}" if isinstance(z, Tensor) else repr(z)
            raise Wrong(
                f"`step` takes noise z of x's shape {tuple(x.shape)}; your loop gave it {what}, "
                f"at t = {int(t)}."
            )
        asked.append(_Asked(int(t), x.detach().clone(), z.detach().clone()))
        return 0.9 * x + 0.3 * z + 0.01 * t

    generator = torch.Generator().manual_seed(seed)
    end = as_tensor(call(answer, step, x, T, generator, name="sampling_loop"), "sampling_loop")
    return asked, end


def _row(times: list[int]) -> str:
    """'20, 19, 18, …, 2, 1'"""
    if len(times) > 7:
        return ", ".join([*map(str, times[:3]), "…", *map(str, times[-2:])])
    return ", ".join(map(str, times)) or "no time at all"


@exercise(
    4,
    "The loop runs, and ends in noise",
    'notebook 05, "DDPM: the posterior, with a guess"',
    "t = T, T - 1, …, 1:  x_{t-1} = step(x_t, t, z),   z ~ N(0, 1), but z = 0 at t = 1",
    "From T down to 1, and quiet in the last step.",
)
def sampling_loop(answer) -> None:
    """answer(step, x, T, generator) -> x at time 0; step(x, t, z) goes from t to t - 1."""
    generator = torch.Generator().manual_seed(4)
    wide = torch.randn((8, 3, 16, 16), generator=generator)
    points = torch.randn((4000, 2), generator=generator, dtype=torch.float64)
    walks = [
        (T, x, *_recorded_loop(answer, x, T, seed=7))
        for T, x in ((12, wide), (5, points), (30, wide[:2, :1]))
    ]
    _check_times([(T, [a.t for a in asked]) for T, _, asked, _ in walks])
    for T, x, asked, end in walks:
        _check_path(T, x, asked, end)
    _check_noise(walks)
    _check_seeds(answer, wide[:1])
    asked, end = _recorded_loop(answer, wide, 1, seed=7)
    if len(asked) != 1 or asked[0].t != 1 or asked[0].z.any():
        raise Wrong("With T = 1 there is one step, at t = 1, and its noise is 0; yours is not so.")
    _check_path(1, wide, asked, end)


def _check_times(walks: list[tuple[int, list[int]]]) -> None:
    T, times = walks[0]
    if all(times == list(range(T, 0, -1)) for T, times in walks):
        return
    reason = (
        f"With T = {T} your loop asked for steps at t = {_row(times)} ({len(times)} steps), "
        f"expected {_row(list(range(T, 0, -1)))} ({T} steps)."
    )
    if not any(times for _, times in walks):
        raise Wrong(
            "Your loop never calls `step`.",
            "the range of times is empty: range(T, 0) counts up; to count down it takes a third "
            "number, -1",
            "no step",
        )
    for name, cause, wrong in LOOPS:
        if all(times == list(wrong(T)) for T, times in walks):
            raise Wrong(reason, cause, name)
    raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")


def _check_path(T: int, x: Tensor, asked: list[_Asked], end: Tensor) -> None:
    """Every step must go on from where the last one arrived."""
    if len(asked) > 1 and all(torch.equal(a.x, x) for a in asked):
        raise Wrong(
            "Every step was given the same x, that of time T.",
            "the result of a step is not handed on to the next one",
            "not handed on",
        )
    here = x
    start = asked[0].x
    if not close(start, x):
        reason = f"The first step, at t = {T}, was not given the x that your loop was given. "
        reason += difference(start, x, name="x")
        pair = torch.stack([start.flatten().double(), x.flatten().double()])
        if start.shape == x.shape and torch.corrcoef(pair)[0, 1].abs() < 0.1:
            raise Wrong(reason, "the walk begins from a noise of its own", "own start")
        raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")
    for a in asked:
        if not close(a.x, here):
            raise Wrong(
                f"The step at t = {a.t} was not given what the step before it returned, but "
                f"something else. {difference(a.x, here, name='x')}"
            )
        here = 0.9 * here + 0.3 * a.z + 0.01 * a.t
    if close(end, asked[-1].x):
        raise Wrong(
            "Your loop returned x as it was before the last step.",
            "the last step's result is thrown away",
            "last result lost",
        )
    if not close(end, here):
        raise Wrong(
            "Your loop did not return what the last step returned. "
            + difference(end, here, name="sampling_loop")
        )


def _check_noise(walks: list[tuple[int, Tensor, list[_Asked], Tensor]]) -> None:
    """Zero at t = 1, and fresh, standard normal noise elsewhere."""
    quiet = [[a.t for a in asked if not a.z.any()] for _, _, asked, _ in walks]
    T, _, asked, _ = walks[0]
    where = f"is 0 at t = {_row(quiet[0])}" if quiet[0] else "is never 0"
    reason = f"With T = {T} the noise {where}; expected 0 at t = 1, and only there."
    if all(q == list(range(T, 0, -1)) for q, (T, *_) in zip(quiet, walks)):
        raise Wrong(reason, "no fresh noise is drawn at all", "no noise")
    if any(q != [1] for q in quiet):
        if all(not q for q in quiet):
            raise Wrong(reason, "fresh noise is added to the finished picture", "noise at the end")
        if all(q and q[0] == T and 1 not in q for q, (T, *_) in zip(quiet, walks)):
            raise Wrong(
                reason,
                "the wrong end is taken for the last step: fresh noise is added to the finished "
                "picture",
                "wrong end",
            )
        if all(q == [2, 1] for q in quiet):
            raise Wrong(
                reason,
                "the condition is off by one: the step from 2 is not the last",
                "quiet early",
            )
        raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")
    for T, x, asked, _ in walks:
        noises = torch.stack([a.z.double() for a in asked[:-1]])
        sizes = noises.flatten(1).abs().sort().values  # alike for a noise turned, moved or negated
        if len(sizes.unique(dim=0)) < len(sizes):
            raise Wrong(
                f"With T = {T} the same noise came in more than one step (moved or turned, perhaps).",
                "it is drawn once, or the generator is set back each time: it must be fresh",
                "the same noise",
            )
        for axis, things in ((1, "pictures of the batch"), (2, "channels")):
            if x.ndim == 4 and noises.shape[axis] > 1 and not noises.diff(dim=axis).any():
                raise Wrong(
                    f"All {things} get the same noise.",
                    "one noise is spread over all of x: draw noise of x's whole shape",
                    "one noise for all",
                )
    noises = torch.cat([a.z.double().flatten() for _, _, asked, _ in walks for a in asked[:-1]])
    mean, std = noises.mean().item(), noises.std().item()
    fourth = noises.pow(4).mean().item()  # 3 for a normal distribution
    if abs(mean) < 0.02 and abs(std - 1) < 0.02 and abs(fourth - 3) < 0.4:
        return
    if abs(mean) < 0.02 and abs(std - 1) < 0.02:
        raise Wrong(
            "The noise has mean 0 and standard deviation 1, but it is not normal: the mean of its "
            f"fourth power is {fourth:.1f}, expected 3.",
            mistake="not normal",
        )
    mean_and_std = f"mean {round(mean, 1) + 0:.1f} and standard deviation {std:.1f}"
    reason = f"The noise has {mean_and_std}, expected 0 and 1."
    if abs(mean - 0.5) < 0.02 and noises.min() >= 0 and noises.max() <= 1:
        raise Wrong(reason, "this is evenly spread noise, from torch.rand", "uniform noise")
    raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")


def _check_seeds(answer, x: Tensor) -> None:
    """The generator decides: the same seed the same end, another seed another end."""
    ends = [_recorded_loop(answer, x, 6, seed)[1] for seed in (1, 1, 2)]
    if not torch.equal(ends[0], ends[1]):
        raise Wrong("Two runs with the same seed of the generator ended differently.")
    if torch.equal(ends[0], ends[2]):
        raise Wrong(
            "Two runs with different seeds of the generator ended in the same x.",
            "you draw from a generator of your own, or set a seed in the one that you are given",
            "own generator",
        )


# --- 05 ------------------------------------------------------------------------------------------


class _Ear(nn.Module):
    """A network that writes down the times that it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.heard: list = []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        if isinstance(time, Tensor) and time.is_meta and not x.is_meta:
            raise Wrong(
                "Your class gives the network a time that does not lie on x's device.",
                "a tensor that you make yourself lies on the default device; give it `device=x.device`",
                "device",
            )
        self.heard.append(time.detach().clone() if isinstance(time, Tensor) else time)
        return self.answer(x, time)

    def answer(self, x: Tensor, time) -> Tensor:
        time = torch.as_tensor(time, dtype=torch.float32)
        return self.scale * x + 0.3 * torch.sin(time / 7).view((-1,) + (1,) * (x.ndim - 1))


def _heard(net: _Ear, n: int, where: str) -> Tensor:
    """What came in the one call of `where`: (n,) numbers."""
    if len(net.heard) != 1:
        raise Wrong(f"`{where}` called the network {len(net.heard)} times; expected once.")
    time = net.heard.pop()
    shape = tuple(time.shape) if isinstance(time, Tensor) else ()
    if shape != (n,):
        raise Wrong(
            f"`{where}` gave the network {'one number' if not shape else f'times of shape {shape}'}"
            f" for a batch of {n}.",
            f"the network takes one time for each picture, so shape ({n},) here",
            "not one a picture",
        )
    return time.double()


class _TimeCase(NamedTuple):
    """A batch at times t, and the same batch asked for at one time."""

    schedule: Schedule
    x0: Tensor
    eps: Tensor
    t: Tensor
    one: int


def _v_loss(net: _Ear, case: _TimeCase, shift: int = 0) -> Tensor:
    alpha, sigma = case.schedule.at(case.t + shift, like=case.x0)
    output = net.answer(alpha * case.x0 + sigma * case.eps, case.t - 1)
    return F.mse_loss(output, alpha * case.eps - sigma * case.x0)


def _v_denoise(net: _Ear, case: _TimeCase, shift: int = 0) -> Tensor:
    alpha, sigma = case.schedule.at(case.one + shift, like=case.x0)
    return alpha * case.x0 - sigma * net.answer(case.x0, torch.tensor([case.one - 1]))


@exercise(
    5,
    "Good loss, ghosts of pictures",
    'notebook 03, "Time becomes a pattern"',
    "net(x_t, t - 1), in training and in sampling",
    "The network hears 0…T-1, whoever asks.",
    slow_start=True,
)
def network_time(answer) -> None:
    """answer(net, schedule) has loss(x0, t, eps) -> scalar and denoise(x, t) -> x0; net tells v."""
    generator = torch.Generator().manual_seed(5)
    net, told, results = _Ear(), [], []
    for schedule, shape in ((cosine_schedule(20), (6, 3, 4, 4)), (linear_schedule(50), (9, 2))):
        x0, eps = (torch.randn(shape, generator=generator) for _ in range(2))
        t = torch.randint(1, schedule.T + 1, shape[:1], generator=generator)
        t[0], t[1], t[2] = 1, schedule.T, 7
        model = call(answer, net, schedule, name="SmallDenoiser")
        for part in ("loss", "denoise"):
            if not callable(getattr(model, part, None)):
                raise Wrong(f"Your class has no method `{part}`.")
        for one in (1, 8, schedule.T):
            case = _TimeCase(schedule, x0, eps, t, one)
            loss = as_tensor(call(model.loss, x0, t, eps, name="loss"), "loss")
            training = _heard(net, len(t), "loss")
            x = as_tensor(call(model.denoise, x0, one, name="denoise"), "denoise")
            sampling = _heard(net, len(t), "denoise")
            told.append((schedule.T, t.double(), training, one, sampling))
            results.append((case, loss, x))
    _check_told(told)
    _check_results(net, results)
    _check_device(model, case)


def _check_device(model, case: _TimeCase) -> None:
    """With another default device, tensors that are made without x's device lie elsewhere."""
    for part, *given in ((model.denoise, case.x0, 5), (model.loss, case.x0, case.t, case.eps)):
        try:
            with torch.device("meta"):
                part(*given)
        except Wrong:
            raise
        except Exception:  # whatever else cannot be done there says nothing of a GPU
            pass


def _check_told(told: list[tuple[int, Tensor, Tensor, int, Tensor]]) -> None:
    def as_in(kind: str, training: bool) -> bool:
        return all(
            close(
                heard if training else said,
                KINDS[kind](t if training else torch.full_like(said, one), T),
                1e-6,
            )
            for T, t, heard, one, said in told
        )

    kinds = [next((k for k in KINDS if as_in(k, training)), None) for training in (True, False)]
    if kinds == ["t - 1", "t - 1"]:
        return
    T, t, heard, *_ = told[0]
    one, said = next((o, s) for _, _, _, o, s in told if o == 8)
    reason = (
        f"With T = {T}, in training at t = {t[1]:g}, {t[2]:g} your network heard {heard[1]:.4g}, "
        f"{heard[2]:.4g}; in sampling at t = {one} it heard {said[0]:.4g}. Expected "
        f"{t[1] - 1:g}, {t[2] - 1:g} and {one - 1}."
    )
    if None in kinds:
        raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")
    name, cause = time_mistake(*kinds)
    raise Wrong(reason, cause, name)


def _check_results(net: _Ear, results: list[tuple[_TimeCase, Tensor, Tensor]]) -> None:
    """The times are right; loss and x0 must be so, too."""
    for what, right, of in (("loss", _v_loss, 1), ("denoise", _v_denoise, 2)):
        if all(fine(r[of], right(net, r[0])) for r in results):
            continue
        first = next(r for r in results if not fine(r[of], right(net, r[0])))
        reason = difference(first[of], right(net, first[0]), name=what)
        if all(close(r[of], right(net, r[0], -1)) for r in results):
            raise Wrong(
                f"The network hears the right times, but `{what}` is wrong. {reason}",
                "the schedule was asked at t - 1, too; only the network counts from 0",
                "schedule shifted",
            )
        raise Wrong(
            f"The network hears the right times, but `{what}` is wrong. {reason}\n"
            "    It is wrong in a way that I do not recognise."
        )
