"""Answers are compared with the right one, and told which usual mistake they equal.

The right answer is a function, and a mistake an edit of its text: one line, and its sentence.
"""

import inspect
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from torch import Tensor

from diffusion_lib.checks._call import careful, describe, inputs_of
from diffusion_lib.checks._compare import as_tensor, close, copy_of, difference, fine
from diffusion_lib.checks._guards import GUARDS
from diffusion_lib.checks._wrong import Wrong, unknown

PAIRS = 0.7  # seconds that may be spent on looking for two mistakes at once


class Mistake(NamedTuple):
    name: str
    cause: str
    source: str = ""  # of the answer that makes it
    edits: tuple[tuple[str, str], ...] = ()


class Table:
    """The right answer and its usual mistakes, each with the sentence that the learner reads.

    text: in paragraphs, as below. Several heads may share a cause; a head without an edit belongs to
    a mistake that the check finds by other means, and raises by `wrong` or `demand`.

        variance | sigma * eps -> sigma**2 * eps
            you scaled the noise by its variance, sigma², not by its standard deviation
        from the middle | range(T, 0 -> range(T // 2, 0 ;; return x -> return -x
            two edits of one mistake
    """

    def __init__(self, right: Callable | None, text: str) -> None:
        self.right, self.mistakes, self.causes = right, [], {}
        self.source = inspect.getsource(right) if right else ""
        heads: list[str] = []
        for block in re.findall(r"((?:^\S.*\n)+)((?:^[ \t]+\S.*\n?)+)", text, re.MULTILINE):
            heads, cause = block[0].splitlines(), " ".join(block[1].split())
            for head in heads:
                name, _, change = (part.strip() for part in head.partition(" | "))
                self.causes.setdefault(name, cause)
                if change:
                    self.mistakes.append(self._edited(name, cause, change))

    def _edited(self, name: str, cause: str, change: str) -> Mistake:
        edits, source = [], self.source
        for edit in change.split(" ;; "):
            old, arrow, new = (part.strip() for part in edit.partition("->"))
            if not arrow or old not in source:
                raise ValueError(f"the mistake {name!r} edits {old!r}, which is not in the answer")
            source = source.replace(old, new)
            edits.append((old, new))
        compile(source, f"<mistake: {name}>", "exec")
        return Mistake(name, cause, source, tuple(edits))

    def answer(self, mistake: Mistake) -> Callable:
        """The answer that makes this mistake."""
        space = dict(vars(sys.modules[self.right.__module__]))
        exec(compile(mistake.source, f"<mistake: {mistake.name}>", "exec"), space)
        return space[self.right.__name__]

    def pairs(self) -> Iterator[Mistake]:
        """Two mistakes at once, where the edits of both can be made."""
        for one, two in itertools.combinations(self.mistakes, 2):
            source, possible = one.source, one.name != two.name
            for old, new in two.edits:
                possible = possible and old in source
                source = source.replace(old, new)
            if possible:
                cause = f"there are two mistakes. First: {one.cause}. Second: {two.cause}"
                yield Mistake(f"{one.name} + {two.name}", cause, source)

    def wrong(self, name: str, reason: str) -> Wrong:
        return Wrong(reason, name, self.causes[name])

    def demand(self, holds: Any, name: str, reason: str) -> None:
        if not holds:
            raise self.wrong(name, reason)


def judge(
    answer: Callable,
    cases: Sequence[tuple],
    table: Table,
    name: str,
    atol: float = 1e-4,
    rows: Sequence[str] = (),
    observe: Callable[..., Tensor] | None = None,
    guards: str = "",
) -> None:
    """Compares answer(*case) with the right one on every case. Raises Wrong for the first that differs.

    A mistake is named only if it gives the learner's results on *every* case, so choose cases on
    which right answer and mistakes all differ. rows: what the first axis holds, for the message.
    observe: turns an answer into a function that returns one tensor, if it does not do so itself.
    guards: of GUARDS, in which the first case is tried as well. It is tried a second time anyway.
    """
    observe = observe or (lambda f: f)

    def result(f: Callable, case: tuple) -> Tensor:
        return as_tensor(observe(f)(*copy_of(case)), name)

    watched = careful(answer, name)
    got = [result(watched, case) for case in cases]
    want = [result(table.right, case) for case in cases]
    wrong = [i for i, (g, w) in enumerate(zip(got, want)) if not fine(g, w, atol)]
    if wrong:
        first = wrong[0]
        reason = difference(got[first], want[first], atol, name, rows)
        try:
            given = inputs_of(answer, cases[first])
        except Wrong:  # a case is for what is observed
            given = inputs_of(observe(answer), cases[first])
        reason += f"\n    It was called with {describe(given)}."
        tell(reason, got, cases, table, result, atol)
    if not fine(result(watched, cases[0]), want[0], atol):
        raise Wrong(
            f"`{name}` is right, but not when it is called again with the same inputs.",
            "kept between calls",
            "something is left over from the call before: a global variable, or a default argument "
            "that was changed",
        )
    for guard in guards.split():
        GUARDS[guard](answer, cases[0], table.right, result, name, atol)


def tell(
    reason: str,
    got: Sequence[Tensor],
    cases: Sequence[tuple],
    table: Table,
    result: Callable[[Callable, tuple], Tensor],
    atol: float = 1e-4,
) -> NoReturn:
    """Raises Wrong, with the mistake, or the two, whose results on all cases are `got`, if there is."""

    def gives(mistake: Mistake) -> bool:
        try:
            answer = table.answer(mistake)
            return all(close(g, result(answer, case), atol) for g, case in zip(got, cases))
        except Exception:  # a mistake that cannot even be computed for this case
            return False

    found = next(filter(gives, table.mistakes), None)
    if not found:
        end = time.thread_time() + PAIRS
        pairs = itertools.takewhile(lambda _: time.thread_time() < end, table.pairs())
        found = next(filter(gives, pairs), None)
    raise Wrong(reason, found.name, found.cause) if found else unknown(reason)
