"""Answers are called with care, compared with the right one, and told which mistake they equal."""

import copy
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_lib.checks._session import seeded
from diffusion_lib.checks._wrong import NOT_THEIRS, Wrong, stopped
from diffusion_lib.schedules import Schedule

# --- calling -------------------------------------------------------------------------------------


def call(answer: Callable, *args: Any, name: str | None = None, **named: Any) -> Any:
    """answer(*args, **named), with errors in words, inputs unchanged, and no hidden random numbers.

    A generator that the answer returns must be used up inside: call(lambda: list(answer(…))).
    Where a torch.Generator is handed in, the answer may not draw global random numbers.
    """
    name = name or getattr(answer, "__name__", type(answer).__name__)
    inputs = inputs_of(answer, args, named)
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
        said = f"{stopped(name, error)}\n    It was called with {describe(inputs)}."
        raise Wrong(said) from error
    for label, value in inputs.items():
        if not _same(before[label], _snapshot(value)):
            raise Wrong(
                f"`{name}` changed its input `{label}` in place: whoever called it still needs it. "
                "Make a new one (`x = x + 1`, not `x += 1`).",
                "in place",
            )
    if torch.initial_seed() != seed:
        raise seeded()
    if given and not torch.equal(drawn, torch.get_rng_state()):
        raise Wrong(
            f"`{name}` draws from the global random numbers, though it was given a generator: the "
            "same seed would not give the same result. Hand the generator on to every draw (and to a "
            "DataLoader, which draws a seed for its workers).",
            "global random",
        )
    return result


def careful(answer: Callable, name: str) -> Callable:
    """The answer, called by `call`."""
    return lambda *args, **named: call(answer, *args, name=name, **named)


def inputs_of(answer: Any, args: tuple, named: dict | None = None) -> dict[str, Any]:
    """What the answer is called with, by the names of its arguments."""
    named = named or {}
    if not callable(answer):
        raise Wrong(f"I need your function itself, and got {kind(answer)}.", "type")
    try:
        signature = inspect.signature(answer)
        bound = signature.bind(*args, **named)
    except (TypeError, ValueError) as error:
        if "builtin" in str(error):
            return {f"argument {i}": value for i, value in enumerate(args, 1)} | named
        raise Wrong(
            f"`{getattr(answer, '__name__', 'your answer')}` cannot be called as the exercise says: "
            f"{error}. Keep the names and the order of its arguments.",
            "signature",
        ) from None
    inputs = {}
    for label, value in bound.arguments.items():
        of = signature.parameters[label].kind
        if of is inspect.Parameter.VAR_POSITIONAL:
            inputs |= {f"argument {i}": v for i, v in enumerate(value, len(inputs) + 1)}
        elif of is inspect.Parameter.VAR_KEYWORD:
            inputs |= value
        else:
            inputs[label] = value
    return inputs


def _snapshot(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Schedule):
        return value.alpha.clone(), value.sigma.clone()
    return copy.deepcopy(value) if isinstance(value, np.ndarray | list | dict) else None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or a.is_meta or b.is_meta:
            return a.shape == b.shape and a.dtype == b.dtype
        return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return isinstance(a, nn.Module) or bool(a == b)


def kind(value: Any) -> str:
    """'a float32 tensor of shape (4, 2)', 'an int': what a thing is, in words."""
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a {str(value.dtype)[6:]} tensor of shape {tuple(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"


def describe(inputs: dict[str, Any]) -> str:
    """'t = 3, x0: a float32 tensor of shape (4, 2)': what an answer was called with."""

    def one(label: str, value: Any) -> str:
        if isinstance(value, Tensor) and value.numel() <= 6 and not value.is_meta:
            if value.is_floating_point():
                value = value.detach().double().round(decimals=4)
            return f"{label} = {value.tolist()}"
        if isinstance(value, Schedule):
            return f"{label}: a schedule of T = {value.T}"
        if isinstance(value, int | float | str | bool | Path | None):
            return f"{label} = {value!r}"
        return f"{label}: {kind(value)}"

    return ", ".join(one(label, value) for label, value in inputs.items())
