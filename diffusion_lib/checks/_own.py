"""Answers that must be the learner's own."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from diffusion_lib.checks._wrong import Wrong


def own(answer: Callable, *library: Callable) -> Callable:
    """The answer; it may not call these functions of the library. It is watched as by a profiler."""
    codes = {inspect.unwrap(function).__code__ for function in library}

    @functools.wraps(answer)
    def watched(*args: Any) -> Any:
        called, before = [], sys.getprofile()
        sys.setprofile(lambda frame, *_: frame.f_code in codes and called.append(frame.f_code))
        try:
            return answer(*args)
        finally:
            sys.setprofile(before)
            if called:
                raise Wrong(
                    f"Your code calls the library's `{called[0].co_name}`. Here it is to be your "
                    "own: write it from the formula.",
                    "library",
                ) from None

    return watched
