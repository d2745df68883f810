"""Checks of what makes results visible: honest colours, and the film of a sample."""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from diffusion_lib.checks._core import Mistake, Wrong, as_tensor, call, exercise, judge
from diffusion_lib.sampling import Step

# --- 10 ------------------------------------------------------------------------------------------


def _stretched(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    return ((x - low) / (high - low) * 255).nan_to_num(0)


def _bytes(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255)


RANGE_MISTAKES = [
    Mistake(
        "own range",
        "each picture is stretched by its own minimum and maximum: a night becomes as bright as snow",
        lambda x: _bytes(_stretched(x, (1, 2, 3))),
    ),
    Mistake(
        "own range",
        "each picture is stretched by its own minimum and maximum (and then cut, not rounded)",
        lambda x: _stretched(x, (1, 2, 3)).floor(),
    ),
    Mistake(
        "range of each channel",
        "each colour channel is stretched by itself: red, green and blue drift apart",
        lambda x: _bytes(_stretched(x, (2, 3))),
    ),
    Mistake(
        "range of the batch",
        "the batch's minimum and maximum decide: a picture's colours depend on its neighbours",
        lambda x: _bytes(_stretched(x, (0, 1, 2, 3))),
    ),
    Mistake(
        "cut, not rounded",
        "the fraction is cut off, which makes everything half a shade darker: round",
        lambda x: ((x.clamp(-1, 1) + 1) * 127.5).floor(),
    ),
    Mistake(
        "not clamped",
        "values beyond [-1, 1] wrap around: too bright turns black. Clamp first",
        lambda x: ((x + 1) * 127.5).round().long() % 256,
    ),
    Mistake(
        "not clamped",
        "values beyond [-1, 1] wrap around: too bright turns black. Clamp first",
        lambda x: ((x + 1) * 127.5).long() % 256,
    ),
    Mistake("0 to 1 assumed", "the pictures lie in [-1, 1], not in [0, 1]", lambda x: _bytes(x * 255)),
    Mistake(
        "scaled by 128",
        "from -1 to 1 are 255 shades up, so the factor is 127.5, not 128",
        lambda x: _bytes((x.clamp(-1, 1) + 1) * 128),
    ),
    Mistake("negative", "this is the negative: -1 is black", lambda x: _bytes((1 - x) * 127.5)),
]  # fmt: skip


@exercise(
    10,
    "A dull painter looks brilliant",
    'notebook 04, "Something to learn"',
    "shade = round( (clamp(x, -1, 1) + 1) · 127.5 )",
    "What is dull looks dull.",
)
def picture_range(answer) -> None:
    """answer(images) -> uint8 of the same shape. images: (B, 3, H, W), nominally in [-1, 1]."""
    generator = torch.Generator().manual_seed(10)
    wild = torch.randn(4, 3, 5, 6, generator=generator)  # a third lies beyond [-1, 1]
    dark = -0.9 + 0.3 * torch.rand(2, 3, 4, 4, generator=generator)
    flat = torch.full((1, 3, 2, 2), 0.3)
    cases = [(wild,), (torch.cat([dark, wild[:1, :, :4, :4]]),), (flat,), (wild.double(),)]
    right = lambda x: ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)  # noqa: E731
    judge(answer, cases, right, RANGE_MISTAKES, atol=1e-6, name="picture_range")
    dtype = call(answer, flat, name="picture_range").dtype
    if dtype != torch.uint8:
        raise Wrong(
            f"The numbers are right, but they are {dtype}; picture files take torch.uint8.",
            mistake="dtype",
        )


# --- 16 ------------------------------------------------------------------------------------------


PATTERN = torch.tensor([[0.0, -40.25, 0.3], [7.5, 0.004, -2.0]])


def _walk(steps: int, memory: tuple[Tensor, Tensor] | None = None) -> Iterator[Step]:
    """A made-up sampler: at step i x is PATTERN + i, x0 is PATTERN + 100 + i. It may write into `memory`."""
    for i in range(1, steps + 1):
        x, x0 = PATTERN + i, PATTERN + 100 + i
        if memory:
            x, x0 = memory[0].copy_(x), memory[1].copy_(x0)
        yield Step(steps - i, x, x0)


def _numbers(frames: list, name: str) -> list[float]:
    found = []
    for frame in frames:
        if frame is None:
            raise Wrong("A frame in your list is None, expected the x of a step.", mistake="type")
        frame = as_tensor(frame, name, "a list of tensors (the x of steps)")
        if frame.shape != (2, 3):
            raise Wrong(f"A frame has shape {tuple(frame.shape)}, the x of the steps {(2, 3)}.")
        number = frame.flatten()[0].item()
        if frame.dtype != torch.float32 or not torch.allclose(frame, PATTERN + number, atol=1e-4):
            if not (frame == -1).all():
                raise Wrong(
                    f"A frame is no step's x: {frame.dtype}, beginning with {frame.flatten()[:3].tolist()}.",
                    mistake="not x",
                )
        found.append(number)
    return found


def _wanted(steps: int, every: int) -> list[float]:
    kept = list(range(1, steps + 1, every))
    return [float(i) for i in (kept if kept[-1] == steps else [*kept, steps])]


def _kept(name: str, steps: int, every: int) -> list[float]:
    """What a known mistake would keep."""
    multiples = [float(i) for i in range(every, steps + 1, every)]
    return {
        "empty": [],
        "last missing": [float(i) for i in range(1, steps + 1, every)],
        "first missing": multiples if steps % every == 0 else [*multiples, float(steps)],
        "both ends missing": multiples,
        "everything": [float(i) for i in range(1, steps + 1)],
        "guesses": [100.0 + i for i in _wanted(steps, every)],
        "only the last": [float(steps)],
        "last twice": [float(i) for i in (*range(1, steps + 1, every), steps)],
        "last not copied": [
            *_wanted(steps, every)[:-1],
            -1.0 if (steps - 1) % every else float(steps),
        ],
        "last always twice": [*_wanted(steps, every), float(steps)],
    }.get(name, [])


FILM_CAUSES = {
    "empty": "the list is made and never filled (or the steps are gone through twice: they run once)",
    "last missing": "the finished picture is not in the film",
    "first missing": "the first step is not in the film: steps 1, 1 + every, 1 + 2 every, …",
    "both ends missing": "first and last step are missing: steps 1, 1 + every, …, and the last one",
    "everything": "`every` is ignored: all steps are kept",
    "guesses": "these are the guesses, step.x0; the film shows step.x",
    "only the last": "only the last picture is kept",
    "last twice": "the last picture is in the film twice where `every` hits it anyway",
    "last not copied": "the last frame is no copy: the sampler's memory has been used again since",
    "last always twice": "the last picture is in the film twice",
    "all the same": "all frames are the same memory, which the sampler overwrites: copy each one while "
    "the loop runs; afterwards it is too late",
}


@exercise(
    16,
    "The film is empty",
    'notebook 05, "The film of one sample"',
    solved="From noise to the picture, frame by frame.",
)
def film(answer) -> None:
    """answer(steps, every) -> a list of x: of steps 1, 1 + every, 1 + 2 every, …, and of the last."""
    cases = [(10, 3), (9, 4), (7, 1), (3, 5), (8, 7), (10, 4)]
    for reuse in (True, False):
        got = []
        for steps, every in cases:
            memory = (torch.zeros(2, 3), torch.zeros(2, 3)) if reuse else None
            walk = _walk(steps, memory)
            try:
                frames = call(lambda: answer(walk, every), name="film")  # noqa: B023
            except Wrong as wrong:
                if isinstance(wrong.__cause__, TypeError) and "generator" in wrong.reason:
                    wrong.cause = (
                        "a sampler has no length and no numbers: one can only loop over it"
                    )
                    wrong.mistake = "not looped over"
                raise
            if isinstance(frames, Iterator):
                raise Wrong(
                    "`film` should return a list, and returned a generator.", mistake="type"
                )
            if not isinstance(frames, list | tuple):
                as_tensor(frames, "film", "a list of tensors")
                frames = list(frames)
            for part in memory or ():
                part.fill_(-1)  # what a sampler does to its memory afterwards
            got.append(_numbers(frames, "film"))
        wanted = [_wanted(*case) for case in cases]
        if got == wanted:
            continue
        i = next(i for i in range(len(cases)) if got[i] != wanted[i])
        steps, every = cases[i]
        reason = (
            f"Of a walk of {steps} steps with every = {every} you kept the "
            f"steps {_said(got[i])}; expected {_said(wanted[i])}."
        )
        if all(len(set(g)) == 1 for g in got) and any(len(g) > 1 for g in got):
            raise Wrong(reason, FILM_CAUSES["all the same"], "all the same")
        for name, cause in FILM_CAUSES.items():
            if got == [_kept(name, *case) for case in cases]:
                raise Wrong(reason, cause, name)
        raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")
    taken = []

    def counted() -> Iterator[Step]:
        for step in _walk(6):
            taken.append(step.t)
            yield Step(step.t, step.x.requires_grad_(), step.x0)

    frames = call(lambda: answer(counted(), 2), name="film")
    if any(frame.requires_grad for frame in frames):
        raise Wrong(
            "The frames hold on to their gradients, and so to all the memory of the network.",
            "a frame still hangs on the computation that made it: let go of the gradients",
            "gradients",
        )
    if list(islice(frames, 1))[0].device.type != "cpu":
        raise Wrong("The frames should lie on the CPU.")


def _said(numbers: list[float]) -> str:
    def one(n: float) -> str:
        return (
            "one overwritten" if n < 0 else f"{n:.0f}" if n < 100 else f"{n - 100:.0f} (its guess)"
        )

    return ", ".join(map(one, numbers)) or "none"
