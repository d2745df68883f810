"""Exercise 04: the loop around the reverse step."""

import operator

import torch
from torch import Tensor

from diffusion_lib.checks._call import call, kind
from diffusion_lib.checks._compare import as_tensor, fine
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._stages import in_stages, use_of_generator
from diffusion_lib.checks._wrong import Wrong, unknown


def right(step, x, T, generator):
    times = range(T, 0, -1)
    for t in times:
        z = torch.randn(x.shape, generator=generator) * (t > 1)
        x = step(x, t, z)
    return x


TABLE = Table(
    right,
    """
no step | range(T, 0, -1) -> range(T, 0)
    the range of times is empty, perhaps: range(T, 0) is; to count down it takes a third number, -1
forwards | range(T, 0, -1) -> range(T)
forwards | range(T, 0, -1) -> range(1, T + 1)
forwards | range(T, 0, -1) -> range(1, T)
    the loop runs forwards in time. You begin with pure noise, at t = T; the picture is at 0
counts from T - 1 | range(T, 0, -1) -> range(T - 1, -1, -1)
    each time is one too small. The times of a schedule are 0…T, and noise is at T; `range` stops
    before its end
begins late | range(T, -> range(T - 1,
    the first step, from T, is missing, though x is noise of time T
stops short | 0, -1) -> 1, -1)
    the last step, from 1 to 0, is missing; `range` stops before its end
a step from 0 | 0, -1) -> -1, -1)
    a step is asked for at t = 0, where the picture is finished; `range` stops before its end
not handed on | x = step( -> y = step( ;; return x -> return y
not handed on | x = step( -> step(
    the result of a step is not handed on to the next one
last result lost | x = step( -> y, x = x, step( ;; return x -> return y
    the last step's result is thrown away
own start | times = -> x = torch.randn(x.shape, generator=generator); times =
    the walk begins from a noise of its own
no noise | (t > 1) -> 0
    no fresh noise is drawn at all
noise at the end | (t > 1) -> 1
    fresh noise is added to the finished picture
wrong end | t > 1 -> t < T
    the wrong end is taken for the last step: fresh noise is added to the finished picture
quiet early | t > 1 -> t > 2
    the condition is off by one: the step from 2 is not the last
endless
    a loop whose condition never becomes false, or one that counts the wrong way
arguments exchanged
    the order is x, the time, the noise: step(x, t, z)
the same noise
    it is drawn once, or the generator is set back each time: it must be fresh
one noise for all
    one noise is spread over all of x: draw noise of x's whole shape
uniform noise
    this is evenly spread noise, from torch.rand
own generator
    the noise must come from the generator that you are given, as it is: not from one of your own
    (a copy is one, too) nor from NumPy, and no seed is set in it
""",
)


def walk(answer, case):
    """What a loop asks of a step that only writes down; and what it returns."""
    T, start, generator = case
    times, path, noises, arrived = [], [], [], [start]

    def full(value):
        return isinstance(value, Tensor) and value.shape == start.shape

    def step(x, t, z):
        TABLE.demand(len(times) < 1000, "endless", f"T = {T}, and your loop has made 1000 steps.")
        z = torch.zeros_like(start) if isinstance(z, int | float) and z == 0 else z
        moved = full(t) and not (full(x) and full(z))
        moved = moved or fine(z, arrived[-1]) and not fine(x, arrived[-1])
        TABLE.demand(
            not moved, "arguments exchanged", "What your loop gives `step` has changed places."
        )
        try:
            times.append(operator.index(t))
        except TypeError:
            got = f"t = {t}" if isinstance(t, float) else kind(t)
            said = f"`step` takes one integer as its time t; your loop gave it {got}."
            raise Wrong(said, "type") from None
        for label, value in (("x", x), ("z", z)):
            if not full(value):
                raise Wrong(
                    f"At t = {times[-1]} your loop gave `step` as {label} {kind(value)}; it takes a "
                    f"tensor of the shape of your loop's x, {tuple(start.shape)}."
                )
        path.append(_origin(x, arrived))
        noises.append(z.detach().double())
        arrived.append((0.9 * x + 0.3 * z + 0.01 * times[-1]).detach())
        return arrived[-1].clone()

    end = call(answer, step, start, T, generator, name="sampling_loop")
    end = as_tensor(end, "sampling_loop")
    return {
        "times": torch.tensor(times),
        "path": torch.tensor([*path, _origin(end, arrived)]),
        "quiet": torch.tensor([not z.any() for z in noises]),
        "noises": torch.stack([*noises[:-1], torch.zeros(start.shape)])[:-1],
        "end": end,
    }


def _origin(x, arrived):
    """n: this is what step number n returned (0: x of the start). -2: unlike the start, -1: other."""
    if known := [n for n, one in enumerate(arrived) if fine(x, one)]:
        return known[-1]
    if x.shape != arrived[0].shape:
        return -1
    pair = torch.stack([x.flatten().double(), arrived[0].flatten().double()])
    return -2 if torch.corrcoef(pair)[0, 1].abs() < 0.1 else -1


def _row(times):
    """'20, 19, 18, …, 2, 1'"""
    shown = [*times[:3], "…", *times[-2:]] if len(times) > 7 else times
    return ", ".join(map(str, shown)) or "no time at all"


def _of_times(case, got, want):
    times, right = got["times"].tolist(), want["times"].tolist()
    return (
        f"With T = {case[0]} your loop asked for steps at t = {_row(times)} ({len(times)} steps), "
        f"expected {_row(right)} ({len(right)} steps)."
    )


def _of_path(case, got, want):
    step = int((got["path"] != want["path"]).nonzero()[0])
    if step == case[0]:
        return f"With T = {step} your loop did not return what the last step returned."
    what = "what the step before it returned" if step else "the x that your loop was given"
    return f"With T = {case[0]} the step at t = {case[0] - step} was not given {what}."


def _of_quiet(case, got, want):
    quiet = _row(got["times"][got["quiet"]].tolist())
    return f"With T = {case[0]} the noise is 0 at t = {quiet}; expected 0 at t = 1, and only there."


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
    cases = [(T, x, generator) for T, x in ((12, wide), (5, points), (30, wide[:2, :1]), (1, wide))]
    says = {"times": _of_times, "path": _of_path, "quiet": _of_quiet}
    walks = in_stages(answer, cases, TABLE, walk, says)
    _check_noise([seen["noises"] for seen in walks[:-1]])
    use = use_of_generator(lambda generator: walk(answer, (6, wide[:1], generator))["end"])
    if use == "mixed":
        raise unknown("Two runs with the same seed of the generator ended differently.")
    said = "The generator that your loop is given does not decide alone where it ends."
    TABLE.demand(use == "drawn from", "own generator", said)


def _check_noise(noises):
    """Fresh in each step and for each number, and of the standard normal distribution."""
    for z in noises:  # (steps, *x.shape)
        sizes = z.flatten(1).abs().sort().values  # alike for a noise turned, moved or negated
        said = "The same noise came in more than one step (moved or turned, perhaps)."
        TABLE.demand(len(sizes.unique(dim=0)) == len(z), "the same noise", said)
        for axis, things in enumerate(("pictures of the batch", "channels", "rows", "columns"), 1):
            same = axis < z.ndim and z.shape[axis] > 1 and not z.diff(dim=axis).any()
            TABLE.demand(not same, "one noise for all", f"All {things} get the same noise.")
    z = torch.cat([z.flatten() for z in noises])
    mean, std, fourth = (m.item() for m in (z.mean(), z.std(), z.pow(4).mean()))
    if abs(mean) < 0.02 and abs(std - 1) < 0.02 and abs(fourth - 3) < 0.4:
        return
    said = f"The noise has mean {mean:.1f} and standard deviation {std:.1f}, expected 0 and 1."
    if abs(mean) < 0.02 and abs(std - 1) < 0.02:
        said = f"The noise is not normal: the mean of its fourth power is {fourth:.1f}, expected 3."
        raise Wrong(said, "not normal")
    uniform = abs(mean - 0.5) < 0.02 and z.min() >= 0 and z.max() <= 1
    raise TABLE.wrong("uniform noise", said) if uniform else unknown(said)
