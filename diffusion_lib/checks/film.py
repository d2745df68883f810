"""Exercise 16: the film of one sample."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from diffusion_lib.checks._call import call, kind
from diffusion_lib.checks._compare import as_tensor, close
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, tell
from diffusion_lib.checks._wrong import Wrong
from diffusion_lib.sampling import Step


def right(steps, every):
    frames = []
    for i, step in enumerate(steps):
        x = step.x.detach().cpu().clone()
        if i % every == 0:
            frames.append(x)
    if i % every:
        frames.append(x)
    return frames


TABLE = Table(
    right,
    """
empty | frames.append(x) -> pass
    the list is made and never filled (or the steps are gone through twice: they run once)
last missing | if i % every: -> if False:
    the finished picture is not in the film
last by its time | if i % every: -> if i % every and step.t == 0:
    the last step is not always that to time 0: the last is the one after which no other comes
first missing | == 0 -> == every - 1 ;; if i % every: -> if i % every != every - 1:
    the first step is not in the film: steps 1, 1 + every, 1 + 2 every, …
both ends missing | == 0 -> == every - 1 ;; if i % every: -> if False:
    first and last step are missing: steps 1, 1 + every, …, and the last one
everything | i % every == 0 -> True ;; if i % every: -> if False:
    `every` is ignored: all steps are kept
guesses | step.x -> step.x0
    these are the guesses, step.x0; the film shows step.x
only the last | i % every == 0 -> False ;; if i % every: -> if True:
    only the last picture is kept
last twice | if i % every: -> if True:
    the last picture is in the film twice where `every` hits it anyway
last always twice | return frames -> return [*frames, x]
    the last picture is in the film twice
last not copied | if i % every: -> if i % every and frames.append(step.x):
    the last frame is no copy: the sampler's memory has been used again since
all the same | .clone() ->
all the same | enumerate(steps) -> enumerate(list(steps))
    all frames are the same memory, which the sampler overwrites: copy each one while the loop runs;
    afterwards it is too late
not looped over
    a sampler has no length and no numbers: one can only loop over it
not x
    a frame is the x of a step, as it is: float32, unchanged
gradients
    a frame still hangs on the computation that made it: let go of the gradients
device
    frames that stay on the GPU fill its memory: bring each one to the CPU
""",
)
PATTERN = torch.tensor([[0.0, -40.25, 0.3], [7.5, 0.004, -2.0]])


class OnGPU(Tensor):
    """Stands for a tensor on a GPU: what is made of it lies there, too, until it is brought here."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs)
        if func is Tensor.device.__get__:
            return torch.device("cuda:0")
        here = func is Tensor.cpu or "cpu" in map(str, (*args[1:], *(kwargs or {}).values()))
        return out.as_subclass(Tensor) if here and isinstance(out, Tensor) else out


def walk(steps: int, end: int, memory: tuple[Tensor, Tensor]) -> Iterator[Step]:
    """A made-up sampler, which writes into `memory`: at step i x is PATTERN + i, x0 that + 100."""
    for i in range(1, steps + 1):
        yield Step(
            end + steps - i, memory[0].copy_(PATTERN + i), memory[1].copy_(PATTERN + 100 + i)
        )


def numbers(answer: Callable, steps: int, every: int, end: int) -> Tensor:
    """The numbers of the steps that were kept; 100 more for a guess, -1 for what is overwritten."""
    memory, found = (torch.zeros(2, 3), torch.zeros(2, 3)), []
    try:
        frames = call(lambda: answer(walk(steps, end, memory), every), name="film")
    except Wrong as wrong:
        if isinstance(wrong.__cause__, TypeError) and "generator" in wrong.reason:
            raise TABLE.wrong("not looped over", wrong.reason) from None
        raise
    if not isinstance(frames, list | tuple):
        missing = "none" if frames is None else "type"
        raise Wrong(
            f"`film` should return a list of tensors, and returned {kind(frames)}.", missing
        )
    for part in memory:
        part.fill_(-1)  # what a sampler does to its memory afterwards
    for frame in frames:
        if frame is None:
            raise Wrong("A frame in your list is None, expected the x of a step.", "type")
        frame = as_tensor(frame, "film", "a list of tensors (the x of steps)")
        if frame.shape != PATTERN.shape:
            raise Wrong(f"A frame has shape {tuple(frame.shape)}, the x of the steps {(2, 3)}.")
        number = frame.flatten()[0].item()
        as_it_was = frame.dtype == torch.float32 and close(frame, PATTERN + number)
        reason = f"A frame is {kind(frame)}, beginning with {frame.flatten()[:3].tolist()}."
        TABLE.demand(as_it_was or (frame == -1).all(), "not x", reason)
        found.append(number)
    return torch.tensor(found)


def said(kept: Tensor) -> str:
    def one(n: float) -> str:
        return (
            "one overwritten" if n < 0 else f"{n:.0f}" if n < 100 else f"the guess of {n - 100:.0f}"
        )

    return ", ".join(map(one, kept.tolist())) or "none"


@exercise(
    16,
    "Every frame is the same",
    'notebook 05, "The film of one sample"',
    solved="From noise to the picture, frame by frame.",
)
def film(answer) -> None:
    """answer(steps, every) -> a list of x: of steps 1, 1 + every, 1 + 2 every, …, and of the last."""
    cases = [(10, 3, 0), (9, 4, 5), (7, 1, 0), (3, 5, 2), (8, 7, 0), (10, 4, 1), (6, 4, 0)]
    result = lambda f, case: numbers(f, *case)  # noqa: E731
    got, wanted = ([result(f, case) for case in cases] for f in (answer, right))
    for mine, want, (steps, every, _) in zip(got, wanted, cases):
        if close(mine, want):
            continue
        reason = (
            f"Of a walk of {steps} steps with every = {every} you kept the steps {said(mine)}; "
            f"expected {said(want)}."
        )
        tell(reason, got, cases, TABLE, result)

    def far() -> Iterator[Step]:
        for i in range(6):
            x = (PATTERN + i).as_subclass(OnGPU)
            yield Step(6 - i, x.requires_grad_(), x)

    frames = call(lambda: answer(far(), 2), name="film")
    reason = "The frames hold on to their gradients, and so to all the memory of the network."
    TABLE.demand(not any(frame.requires_grad for frame in frames), "gradients", reason)
    away = any(isinstance(frame, OnGPU) for frame in frames)
    TABLE.demand(not away, "device", "With a model on a GPU the frames lie on the GPU.")
