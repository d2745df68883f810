"""A session left as it was, whatever the learner's code does to it, and an end to endless code."""

import ctypes
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as hooks

from diffusion_lib.checks._wrong import Wrong, line_of

SECONDS = 4.0  # of computing, imports aside, that a whole check may take
PATIENCE = 60.0  # seconds by the clock on the wall, for code that waits and does not compute
SEED = 20_240_229  # of torch's global numbers during a check: an answer that seeds them is noticed


class OutOfTime(BaseException):
    """Thrown into an answer that does not end. No Exception, so that `except Exception` misses it."""


class Mode(NamedTuple):
    """Something that holds for everybody in this session."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]
    usual: Any
    instead: str


_entered = []  # inference modes: one ends only when another is entered


def _set_inference(on: bool) -> None:
    if torch.is_inference_mode_enabled() != on:
        _entered.append(torch.inference_mode(on))
        _entered[-1].__enter__()


_WITH = "Use it as a decorator, or in a `with` block that ends."
MODES = {
    "default dtype": Mode(torch.get_default_dtype, torch.set_default_dtype, torch.float32, "Give the dtype to the tensors that need it."),
    "default device": Mode(lambda: str(torch.get_default_device()), lambda d: torch.set_default_device(None if d == "cpu" else d), "cpu", "Give the device to the tensors that need it."),
    "inference mode": Mode(torch.is_inference_mode_enabled, _set_inference, False, _WITH),
    "grad mode": Mode(torch.is_grad_enabled, torch.set_grad_enabled, True, _WITH),
    "autocast": Mode(lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on), False, _WITH),
}  # fmt: skip
_PATCHABLE = torch, torch.Tensor, nn.functional, nn.Module, np, random
_HOOKS = [value for name, value in vars(hooks).items() if name.startswith("_global_")]
_HOOKS = [value for value in _HOOKS if isinstance(value, dict)]


def _replaced(functions: list[tuple[Any, dict[str, Any]]]) -> Iterator[tuple[Any, str, Any]]:
    """(place, name, value as it was) of what is not the same any more, but for torch's own doing."""
    for place, names in functions:
        for name, value in names.items():
            now = vars(place).get(name, value)
            by = str(getattr(now, "__module__", "")).partition(".")[0]
            if now is not value and by != "torch":
                yield place, name, value


@contextmanager
def session() -> Iterator[None]:
    """Runs in a usual session whatever this one is like; puts it back; names who changed it."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise Wrong(
            "The folder that this session works in is gone. Restart the kernel, or os.chdir(…) to "
            "one that is there."
        ) from None
    before = {name: mode.get() for name, mode in MODES.items()}
    numbers = torch.get_rng_state(), np.random.get_state(), random.getstate()
    seed, threads, filters = torch.initial_seed(), torch.get_num_threads(), warnings.filters[:]
    errors, streams = np.geterr(), (sys.stdout, sys.stderr)
    functions = [(place, dict(vars(place))) for place in _PATCHABLE]
    hooked = [(table, dict(table)) for table in _HOOKS]
    for mode in MODES.values():
        mode.set(mode.usual)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # small tensors: threads would only wait for each other
    try:
        yield
        for name, mode in MODES.items():
            if (now := mode.get()) != mode.usual:
                raise Wrong(
                    f"Your code changes torch's {name} for everybody, to {now}. {mode.instead}",
                    name,
                )
        if torch.initial_seed() != SEED:
            raise seeded()
        if replaced := list(_replaced(functions)):
            place, name, _ = replaced[0]
            raise Wrong(f"Your code replaces {place.__name__}.{name} for everybody.", "patched")
        if any(table != kept for table, kept in hooked):
            raise Wrong("Your code leaves a hook on every module there is.", "patched")
    finally:
        for place, name, value in _replaced(functions):
            setattr(place, name, value)
        for table, kept in hooked:
            table.clear()
            table.update(kept)
        for name, mode in MODES.items():
            mode.set(before[name])
        os.chdir(here)
        torch.set_num_threads(threads)
        np.seterr(**errors)
        sys.stdout, sys.stderr = streams
        warnings.filters[:] = filters
        torch.manual_seed(seed)  # what initial_seed() says; then the very state
        torch.set_rng_state(numbers[0])
        np.random.set_state(numbers[1])
        random.setstate(numbers[2])


def seeded() -> Wrong:
    return Wrong(
        "Your code sets the global seed (torch.manual_seed), and so spoils everybody else's random "
        "numbers. Use a torch.Generator of your own, or the one that you are given.",
        "global seed",
    )


def _importing() -> bool:
    """Whether a module is being imported just now. (Looks past __getattr__: some load when asked.)"""
    modules = [m for m in [*sys.modules.values()] if isinstance(m, ModuleType)]
    spaces = (object.__getattribute__(module, "__dict__") for module in modules)
    return any(getattr(space.get("__spec__"), "_initializing", False) for space in spaces)


@contextmanager
def time_limit() -> Iterator[None]:
    """Ends code that computes for too long, on every system; says so, too, of what only waits.

    The time that counts is the thread's own: neither a busy machine nor an import is the learner's.
    """
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    thread = threading.get_ident()
    clock = getattr(time, "pthread_getcpuclockid", lambda _: None)(thread)
    computed = time.monotonic if clock is None else lambda: time.clock_gettime(clock)
    done, lock, began = threading.Event(), threading.Lock(), time.monotonic()
    spent = 0.0  # computed so far
    before, awake, importing = computed(), began, False  # at the last look
    seen: list[float] = []  # when it was last in time, before it was first found out of it

    def look() -> bool:
        nonlocal spent, before, awake, importing
        now, slept, awake = computed(), awake, time.monotonic()
        was, importing = importing, _importing()
        spent += 0.0 if was or importing else now - before  # between two imports: taken for one
        before = now
        if late := spent > SECONDS or awake - began > PATIENCE:
            seen.append(slept)
        return late

    def watch() -> None:
        while not done.wait(0.5 if seen else 0.05):  # and again, if it was swallowed
            with lock:
                if not done.is_set() and look():
                    throw(ctypes.c_ulong(thread), ctypes.py_object(OutOfTime))

    threading.Thread(target=watch, daemon=True).start()
    try:
        try:
            yield
        finally:
            while True:
                try:  # nothing may be thrown any more once this is left
                    with lock:
                        done.set()
                    for _ in range(1000 if seen else 0):  # one that is on its way arrives in here
                        pass
                    break
                except OutOfTime:
                    continue
            if seen or look():  # or one call did not let anybody look
                raise OutOfTime
    except OutOfTime as error:
        took, ended = time.monotonic() - began, line_of(error) or "."
        if time.monotonic() - seen[0] > 0.7:  # one call held the interpreter, or did not listen
            raise Wrong(
                f"Your code took {took:.0f} seconds{ended}",
                "slow",
                "one call took all this time, and could not be interrupted: a sleep, a lock, or far "
                "too much work at once",
            ) from None
        said = f"did not end within {SECONDS:.0f} seconds of computing, and was stopped"
        raise Wrong(
            f"Your code {said if took < PATIENCE else f'took {took:.0f} seconds'}{ended}",
            "endless",
            "a loop whose condition never becomes false, one that counts the wrong way, or far too much "
            "work",
        ) from None
