"""What a check raises: an answer that is not right yet, in words for the learner."""

import linecache
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

UNKNOWN = "It is wrong in a way that I do not recognise."
NOT_THEIRS = (  # files in which a learner's code never lies
    str(Path(__file__).parent.parent),
    *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")},
    "<frozen",
)


class Wrong(AssertionError):
    """An answer that is not right yet.

    reason: what is wrong, for the learner. mistake: its name, if it is a known one. cause: what
    probably went wrong, in a sentence or two, when the check knows it.
    """

    def __init__(self, reason: str, mistake: str | None = None, cause: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.cause, self.mistake = reason, cause, mistake
        self.about: About | None = None
        self.part: Part | None = None
        self.again = False  # whether this exercise's check has failed before

    def __str__(self) -> str:
        lines = [self.reason]
        if self.cause:
            lines += ["", f"Likely cause: {self.cause}"]
        if self.about:
            about, where = self.about, self.part or self.about
            lines = [f"Exercise {about.number:02d} · {about.title}: not yet.", "", *lines, ""]
            if where.equation and self.again:
                lines += [f"Equation:     {where.equation}", ""]
            elif where.equation:
                lines += ["Equation:     shown from the second failure on", ""]
            lines += [f"Read again:   {where.teaches}"]
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback through the library."""
        return str(self).splitlines()


def unknown(reason: str) -> Wrong:
    return Wrong(f"{reason}\n    {UNKNOWN}")


class About(NamedTuple):
    number: int
    title: str
    teaches: str  # 'notebook 01, "All steps at once"'
    equation: str
    solved: str  # said on success


class Part(NamedTuple):
    """One of several answers of an exercise, with what is to be said of this one alone."""

    name: str
    check: Callable[[], None]
    teaches: str
    equation: str = ""


def stopped(name: str | None, error: BaseException) -> str:
    """An error of the learner's code: which, and where."""
    said = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    place = line_of(error)
    if name is None and not place:
        return f"The check cannot make sense of what your code returned. ({what})"
    return f"{f'`{name}`' if name else 'Your code'} stopped with {what}{place}"


def line_of(error: BaseException) -> str:
    """The last line of the learner's own on the way to an error, or ''."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(NOT_THEIRS)]
    if not theirs:
        return ""
    last = theirs[-1]
    line = (last.line or linecache.getline(last.filename, last.lineno)).strip()
    return f"\n    at line {last.lineno} of its cell:  {line}"
