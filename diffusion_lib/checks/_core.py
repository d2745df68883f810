"""What all checks share: the learner's code is called with care, compared, and told what is wrong.

A check is a function decorated with `exercise`. Its body calls the learner's answer by `call`,
compares by `judge` or by hand, and raises `Wrong` with one readable reason. Whatever the learner's
code does (an error, an endless loop, another default dtype), the session is left as it was.
"""

import copy
import ctypes
import functools
import inspect
import linecache
import os
import random
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_lib.schedules import Schedule

SECONDS = 4.0  # that a whole check may take: only an endless or a very slow answer needs so long
SEED = 20_240_229  # of torch's global numbers during a check: an answer that seeds them is noticed
SEEDED = (
    "Your code sets the global seed (torch.manual_seed), and so spoils everybody else's random "
    "numbers. Use a torch.Generator of your own, or the one that you are given."
)
NOT_THEIRS = (  # files in which a learner's code never lies
    str(Path(__file__).parent.parent),
    *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")},
    "<frozen",
)


class Wrong(AssertionError):
    """An answer that is not right yet. `reason` is for the learner; `mistake` for the tests.

    mistake: the identifier of the known mistake that the answer equals, or None.
    cause: what probably went wrong, in a sentence or two, when the check knows it.
    """

    def __init__(self, reason: str, cause: str | None = None, mistake: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.cause, self.mistake = reason, cause, mistake
        self.about: About | None = None
        self.part: Part | None = None

    def __str__(self) -> str:
        lines = [self.reason]
        if self.cause:
            lines += ["", f"Likely cause: {self.cause}"]
        if self.about:
            where = self.part or self.about
            lines = [f"Exercise {self.about.number:02d} · {self.about.title}: not yet.", "", *lines]
            if where.equation and "not written yet" not in self.reason:
                lines += ["", f"Equation:     {where.equation}"]
            lines += ["", f"Read again:   {where.teaches}"]
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback through the library."""
        return str(self).splitlines()


class OutOfTime(BaseException):
    """Thrown into an answer that does not end. No Exception, so that `except Exception` misses it."""


class About(NamedTuple):
    number: int
    title: str
    teaches: str  # the notebook and its section
    equation: str
    solved: str  # said on success


class Part(NamedTuple):
    """One of several answers of an exercise, with what is to be said of this one alone."""

    name: str
    check: Callable[[], None]
    teaches: str
    equation: str = ""


def in_parts(*parts: Part) -> None:
    """Checks each part; what is Wrong in one says which are right already."""
    for i, part in enumerate(parts):
        try:
            part.check()
        except Wrong as wrong:
            wrong.part = part
            done = " and ".join(f"`{one.name}`" for one in parts[:i])
            if done:
                wrong.reason = f"Right already: {done}.\n{wrong.reason}"
            raise


def exercise(
    number: int,
    title: str,
    teaches: str,
    equation: str = "",
    solved: str = "",
    slow_start: bool = False,
):
    """Makes a check of a function that raises `Wrong`: guarded, timed, and with one line at the end.

    teaches: 'notebook 01, "All steps at once"'. equation: the one to look at, in a line of text.
    slow_start: whether it needs an optimiser or the 'meta' device, which torch loads at their first
    use: in 2 seconds, or in 5 from a slow disk, that are not the learner's.
    """
    about = About(number, title, teaches, equation, solved)

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def check(*answers: Any, **named: Any) -> None:
            if slow_start:
                torch.empty(1, device="meta").sin()
            try:
                with _as_it_was(), _time_limit(SECONDS):
                    body(*answers, **named)
            except Wrong as wrong:
                wrong.about = about
                raise
            except OutOfTime:
                wrong = Wrong(
                    f"Your code did not end within {SECONDS:.0f} seconds.",
                    "a loop whose condition never becomes false, one that counts the wrong way, or far too much "
                    "work",
                    "endless",
                )
                wrong.about = about
                raise wrong from None
            except (Exception, SystemExit) as error:  # in the learner's code, or for its result
                wrong = Wrong(_stopped(None, error))
                wrong.about = about
                raise wrong from error
            print(f"Exercise {number:02d} · {title}: solved.{' ' + solved if solved else ''}")

        check.about = about
        return check

    return decorate


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Restores random numbers, default dtype, threads and gradient mode; names who changed them."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    grad, threads = torch.is_grad_enabled(), torch.get_num_threads()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    here = os.getcwd()
    seed = torch.initial_seed()
    if not grad:
        raise Wrong(
            "Gradients are switched off in this session already. If your code did it, use `with "
            "torch.no_grad():` instead of torch.set_grad_enabled(False), and restart the kernel.",
            mistake="grad mode",
        )
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # small tensors: threads would only wait for each other
    try:
        yield
        if torch.get_default_dtype() != dtype:
            raise Wrong(
                f"Your code sets torch's default dtype to {torch.get_default_dtype()} for everybody. "
                "Give the dtype to the tensors that need it.",
                mistake="default dtype",
            )
        if torch.get_default_device() != device:
            raise Wrong(
                f"Your code sets torch's default device to {torch.get_default_device()} for everybody. "
                "Give the device to the tensors that need it.",
                mistake="default device",
            )
        if torch.initial_seed() != SEED:
            raise Wrong(SEEDED, mistake="global seed")
        if torch.is_grad_enabled() != grad:
            raise Wrong(
                "Your code switches gradients off (or on) for everybody. Use `with torch.no_grad():` "
                "or the decorator @torch.no_grad().",
                mistake="grad mode",
            )
    finally:
        os.chdir(here)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        torch.set_grad_enabled(grad)
        torch.set_num_threads(threads)
        torch.manual_seed(seed)  # what initial_seed() says; then the very state
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Throws OutOfTime into this thread after so many seconds, on every system; again if swallowed."""
    throw, thread = (
        ctypes.pythonapi.PyThreadState_SetAsyncExc,
        ctypes.c_ulong(threading.get_ident()),
    )
    done, lock = threading.Event(), threading.Lock()

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            with lock:
                if not done.is_set():
                    throw(thread, ctypes.py_object(OutOfTime))
            wait = 0.2

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            done.set()
            throw(thread, None)  # one that is on its way


# --- calling -------------------------------------------------------------------------------------


def call(answer: Callable, *args: Any, name: str | None = None, **named: Any) -> Any:
    """answer(*args, **named), with errors in words, inputs unchanged, and no hidden random numbers.

    A generator that the answer returns must be used up inside: call(lambda: list(answer(…))).
    Where a torch.Generator is handed in, the answer may not draw global random numbers.
    """
    name = name or getattr(answer, "__name__", type(answer).__name__)
    _need_function(answer)
    inputs = _inputs(answer, args, named)
    before = {label: _snapshot(value) for label, value in inputs.items()}
    given = any(isinstance(v, torch.Generator) for v in inputs.values())
    drawn, seed = torch.get_rng_state(), torch.initial_seed()
    try:
        result = answer(*args, **named)
    except Wrong:
        raise
    except (Exception, SystemExit) as error:
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        if isinstance(error, NotImplementedError) and not where.startswith(NOT_THEIRS):
            raise Wrong(f"`{name}` is not written yet: put your code in its place.") from None
        raise Wrong(_stopped(name, error, inputs)) from error
    for label, value in inputs.items():
        if not _same(before[label], _snapshot(value)):
            raise Wrong(
                f"`{name}` changed its input `{label}` in place: whoever called it still needs it. "
                "Make a new one (`x = x + 1`, not `x += 1`).",
                mistake="in place",
            )
    if torch.initial_seed() != seed:
        raise Wrong(SEEDED, mistake="global seed")
    if given and not torch.equal(drawn, torch.get_rng_state()):
        raise Wrong(
            f"`{name}` draws from the global random numbers, though it was given a generator: the "
            "same seed would not give the same result. Hand the generator on to every draw (and to a "
            "DataLoader, which draws a seed for its workers).",
            mistake="global random",
        )
    return result


def _need_function(answer: Any) -> None:
    if not callable(answer):
        raise Wrong(f"I need your function itself, and got {_kind(answer)}.")


def _inputs(answer: Callable, args: tuple, named: dict) -> dict[str, Any]:
    try:
        bound = inspect.signature(answer).bind(*args, **named)
    except (TypeError, ValueError) as error:
        if "builtin" in str(error):
            return {f"argument {i}": value for i, value in enumerate(args, 1)} | named
        raise Wrong(
            f"`{getattr(answer, '__name__', 'your answer')}` cannot be called as the exercise says: "
            f"{error}. Keep the names and the order of its arguments."
        ) from None
    inputs = {}
    for label, value in bound.arguments.items():
        kind = inspect.signature(answer).parameters[label].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            inputs |= {f"argument {i}": v for i, v in enumerate(value, len(inputs) + 1)}
        elif kind is inspect.Parameter.VAR_KEYWORD:
            inputs |= value
        else:
            inputs[label] = value
    return inputs


def _snapshot(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Schedule):
        return value.alpha.clone(), value.sigma.clone()
    if isinstance(value, np.ndarray | list | dict):
        return copy.deepcopy(value)
    return None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        if a.is_meta or b.is_meta:
            return a.shape == b.shape
        return (
            a.shape == b.shape
            and a.dtype == b.dtype
            and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        )
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return isinstance(a, nn.Module) or bool(a == b)


def _stopped(name: str | None, error: BaseException, inputs: dict[str, Any] | None = None) -> str:
    """An error of the learner's code: which, where, and for what input."""
    said = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    text = f"{'`' + name + '`' if name else 'Your code'} stopped with {what}"
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith(NOT_THEIRS)
    ]
    if frames:
        line = (
            frames[-1].line or linecache.getline(frames[-1].filename, frames[-1].lineno)
        ).strip()
        text += f"\n    at line {frames[-1].lineno} of its cell:  {line}"
    if inputs:
        text += f"\n    It was called with {describe(inputs)}."
    return text


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a {str(value.dtype)[6:]} tensor of shape {tuple(value.shape)}"
    return f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"


def describe(inputs: dict[str, Any]) -> str:
    """'t = 3, x0: a float32 tensor of shape (4, 2)': what an answer was called with."""

    def one(label: str, value: Any) -> str:
        if isinstance(value, Tensor):
            if value.numel() <= 6 and not value.is_meta:
                if value.is_floating_point():
                    value = value.double().round(decimals=4)
                return f"{label} = {value.tolist()}"
            return f"{label}: {_kind(value)}"
        if isinstance(value, Schedule):
            return f"{label}: a schedule of T = {value.T}"
        if isinstance(value, int | float | str | bool | Path | None):
            return f"{label} = {value!r}"
        return f"{label}: {_kind(value)}"

    return ", ".join(one(label, value) for label, value in inputs.items())


# --- comparing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """A usual wrong answer. answer: takes what the learner's takes. cause: what the learner reads."""

    name: str
    cause: str
    answer: Callable


def as_tensor(value: Any, name: str = "your answer", example: str = "a tensor") -> Tensor:
    """`value` if it is a tensor of real numbers; else Wrong. Python numbers are taken as tensors."""
    if value is None:
        raise Wrong(f"`{name}` returned None: is a `return` missing?", mistake="none")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return torch.tensor(float(value))
    if not isinstance(value, Tensor):
        raise Wrong(
            f"`{name}` should return {example}, and returned {_kind(value)}.", mistake="type"
        )
    if value.is_complex() or value.dtype == torch.bool:
        raise Wrong(
            f"`{name}` should return real numbers, and returned {_kind(value)}.", mistake="type"
        )
    return value


def close(got: Any, want: Tensor, atol: float = 1e-4) -> bool:
    """Whether `got` is `want`, in shape and, within atol · max(1, |want|), in value. NaN equals NaN."""
    if not isinstance(got, Tensor) or got.shape != want.shape or got.is_meta:
        return False
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    return torch.allclose(got, want, rtol=atol, atol=atol, equal_nan=True)


def judge(
    answer: Callable,
    cases: Sequence[tuple],
    right: Callable[..., Tensor],
    mistakes: Sequence[Mistake] = (),
    atol: float = 1e-4,
    name: str | None = None,
    rows: Sequence[str] = (),
) -> None:
    """Compares answer(*case) with right(*case) on every case. Raises Wrong for the first that differs.

    A mistake is named only if it gives the learner's results on *every* case, so choose cases on
    which right answer and mistakes all differ. rows: what the first axis holds, for the message.
    """
    name = name or getattr(answer, "__name__", "your answer")
    got = [as_tensor(call(answer, *copy_of(case), name=name), name) for case in cases]
    want = [right(*copy_of(case)) for case in cases]
    wrong = [i for i, (g, w) in enumerate(zip(got, want)) if not fine(g, w, atol)]
    if not wrong:
        return
    first = wrong[0]
    reason = difference(got[first], want[first], atol, name, rows)
    inputs = _inputs(answer, cases[first], {})
    reason += f"\n    It was called with {describe(inputs)}."
    for mistake in mistakes:
        if all(_gives(mistake, case, g, atol) for case, g in zip(cases, got)):
            raise Wrong(reason, mistake.cause, mistake.name)
    raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")


def judge_schedule(
    answer: Callable,
    cases: Sequence[tuple],
    right: Callable[..., Tensor],
    mistakes: Sequence[Mistake],
    name: str,
    atol: float = 1e-4,
) -> None:
    """`judge` of an answer that returns alpha and sigma; right and mistakes give both as (2, T+1)."""
    _need_function(answer)

    @functools.wraps(answer)
    def stacked(*case: Any) -> Tensor:
        pair = answer(*case)
        if pair is None:
            return as_tensor(pair, name)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise Wrong(f"`{name}` should return two tensors: return alpha, sigma", mistake="type")
        alpha, sigma = (as_tensor(one, name, "two tensors, alpha and sigma") for one in pair)
        if alpha.shape != sigma.shape:
            raise Wrong(
                f"`{name}` returned alpha of shape {tuple(alpha.shape)} and sigma of shape "
                f"{tuple(sigma.shape)}: both have one number for each time, 0 included."
            )
        return torch.stack([alpha, sigma])

    judge(stacked, cases, right, mistakes, atol, name, rows=("alpha", "sigma"))


def _gives(mistake: Mistake, case: tuple, got: Tensor, atol: float) -> bool:
    try:
        return close(got, torch.as_tensor(mistake.answer(*copy_of(case))), atol)
    except Exception:  # a mistake that cannot even be computed for this case
        return False


def copy_of(case: tuple) -> tuple:
    """The case again, random generators at their start included."""
    return tuple(_copy(value) for value in case)


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        generator = torch.Generator(value.device)
        generator.set_state(value.get_state())
        return generator
    return value.clone() if isinstance(value, Tensor) else value


def fine(got: Tensor, want: Tensor, atol: float = 1e-4) -> bool:
    """`close`, and floating-point where floating-point is wanted, with no less than 32 bits."""
    if want.is_floating_point() and got.dtype not in (torch.float32, torch.float64):
        return False
    return close(got, want, atol)


def difference(
    got: Tensor,
    want: Tensor,
    atol: float = 1e-4,
    name: str = "your answer",
    rows: Sequence[str] = (),
) -> str:
    """What is wrong with `got`, in words: shape, dtype, NaN, or the first entry that differs."""
    if rows and got.shape != want.shape and len(got) == len(want):
        both, shape = " and ".join(rows), tuple(got.shape[1:])
        return f"`{name}` returned {both} of shape {shape}, expected {tuple(want.shape[1:])}."
    if got.shape != want.shape:
        return f"`{name}` returned shape {tuple(got.shape)}, expected {tuple(want.shape)}."
    if want.is_floating_point() and got.dtype not in (torch.float32, torch.float64):
        return f"`{name}` returned {got.dtype}, expected torch.float32."
    if got.is_meta:
        return f"`{name}` returned a tensor without data."
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    off = ~torch.isclose(got, want, rtol=atol, atol=atol, equal_nan=True)
    count = int(off.sum())
    index = tuple(off.nonzero()[0].tolist()) if off.ndim else ()
    where = f"entry {list(index)}" if index else "the number"
    if rows:
        where = f"{rows[index[0]]}{list(index[1:])}"
    yours, expected = got[index].item(), want[index].item()
    text = f"{count} of {off.numel()} entries differ. " if off.numel() > 1 else ""
    if got.isnan().any() and not want.isnan().any():
        text = f"{int(got.isnan().sum())} of {off.numel()} entries are not a number (NaN). " + text
    return f"{text}The first, {where}: yours {yours:.5g}, expected {expected:.5g}."


def on_another_device(answer: Callable, *args: Any, name: str | None = None, **named: Any) -> None:
    """Calls the answer with tensors of the 'meta' device, which stands for a GPU.

    Raises Wrong if the answer makes tensors of its own on the CPU and mixes them in.
    """

    def move(value: Any) -> Any:
        return value.to("meta") if isinstance(value, Tensor) else value

    name = name or getattr(answer, "__name__", "your answer")
    try:
        result = answer(*map(move, args), **{k: move(v) for k, v in named.items()})
        device = result.device.type if isinstance(result, Tensor) else "meta"
    except Exception as error:
        if isinstance(error, NotImplementedError) or "cannot be called on meta" in str(error):
            return  # it must see numbers, which tensors on 'meta' do not have; those on a GPU have
        raise Wrong(
            f"`{name}` works on the CPU only: with its inputs on another device ('meta', which stands "
            "for a GPU) it stopped with "
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            "a tensor that you make yourself lies on the CPU: make it where the input lies, by `device=`",
            "device",
        ) from error
    if device != "meta":
        raise Wrong(
            f"`{name}` was given tensors on another device and returned one on the {device}.",
            "a tensor that you make yourself lies on the CPU: make it where the input lies, by `device=`",
            "device",
        )
