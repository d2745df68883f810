"""The frame of every check: guarded, timed, with one line at the end."""

import functools
from collections.abc import Callable
from typing import Any

from diffusion_lib.checks._session import session, time_limit
from diffusion_lib.checks._wrong import About, Part, Wrong, stopped


def in_parts(*parts: Part) -> None:
    """Checks each part; what is Wrong in one says which are right already."""
    for i, part in enumerate(parts):
        try:
            part.check()
        except Wrong as wrong:
            wrong.part = part
            if done := " and ".join(f"`{one.name}`" for one in parts[:i]):
                wrong.reason = f"Right already: {done}.\n{wrong.reason}"
            raise


def exercise(number: int, title: str, teaches: str, equation: str = "", solved: str = ""):
    """Makes a check of a function that raises `Wrong`: guarded, timed, with one line at the end."""
    about = About(number, title, teaches, equation, solved)

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def check(*answers: Any, **named: Any) -> None:
            try:
                with session(), time_limit():
                    body(*answers, **named)
            except Wrong as wrong:
                wrong.about, wrong.again = about, check.failed
                check.failed = True
                raise
            except (Exception, SystemExit) as error:  # in the learner's code, or for its result
                wrong = Wrong(stopped(None, error))
                wrong.about = about
                raise wrong from error
            check.failed = False
            print(f"Exercise {number:02d} · {title}: solved.{' ' + solved if solved else ''}")

        check.about, check.failed = about, False
        return check

    return decorate
