"""The checks are tested on answers, right and wrong: `python tests/test_checks.py` prints a table
(of all exercises, or of those named)."""

import contextlib
import importlib
import importlib.util
import io
import random
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from diffusion_lib import checks  # noqa: E402


def answers_of(check):
    """Its module in tests/answers: RIGHT, WRONG and UNKNOWN."""
    return importlib.import_module(f"answers.{check.__name__}")


def cases_of(check):
    """(answer, verdict): verdict is "right", the name of the expected mistake, or None."""
    module = answers_of(check)
    for answer in module.RIGHT:
        yield answer, "right"
    for name, wrong in module.WRONG.items():
        for answer in wrong:
            yield answer, name
    for answer in module.UNKNOWN:
        yield answer, None


def verdict_of(check, answer):
    """What the check says: (verdict, its text, seconds)."""
    answer = answer if isinstance(answer, tuple) else (answer,)
    out, began = io.StringIO(), time.perf_counter()
    try:
        with contextlib.redirect_stdout(out):
            check(*answer)
        verdict, text = "right", out.getvalue()
    except checks.Wrong as wrong:
        verdict, text = wrong.mistake, str(wrong)
    return verdict, text, time.perf_counter() - began


def label(answer):
    answer = answer[0] if isinstance(answer, tuple) else answer
    return getattr(answer, "__name__", type(answer).__name__)


CASES = (
    []
    if __name__ == "__main__"
    else [
        pytest.param(check, answer, verdict, id=f"{check.__name__}-{verdict}-{label(answer)}")
        for check in checks.ALL
        for answer, verdict in cases_of(check)
    ]
)


def session():
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.initial_seed(),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
    )


@pytest.mark.parametrize("check, answer, verdict", CASES)
def test_verdict(check, answer, verdict):
    """Right answers pass; wrong ones fail under their mistake's name; the session stays as it was."""
    before = session()
    given, text, _ = verdict_of(check, answer)
    assert given == verdict, text
    assert session() == before
    assert f"Exercise {check.about.number:02d} · {check.about.title}: " in text
    assert ("solved" in text.splitlines()[0]) == (verdict == "right")


@pytest.mark.parametrize("check", checks.ALL, ids=lambda c: c.__name__)
def test_there_are_enough_answers(check):
    module = answers_of(check)
    wrong = sum(map(len, module.WRONG.values())) + len(module.UNKNOWN)
    assert len(module.RIGHT) >= 3 and wrong >= 5 and module.UNKNOWN


def test_numbers_and_names():
    assert [check.about.number for check in checks.ALL] == list(range(1, len(checks.ALL) + 1))
    files = sorted(p.stem for p in (ROOT / "solutions").glob("*.ipynb"))
    assert files == [f"{c.about.number:02d}_{c.__name__}" for c in checks.ALL]


# --- bad manners ---------------------------------------------------------------------------------


def leaves(*args):
    sys.exit(3)


def recurses(*args):
    return recurses(*args)


def divides(x0, t, eps, schedule):
    return x0 / {}["sigma"]


@pytest.mark.parametrize(
    "answer, said",
    [
        (leaves, "stopped with SystemExit"),
        (recurses, "stopped with RecursionError"),
        (divides, "line 2 of its cell|return x0 /"),
        (None, "got None"),
        (3, "got an int"),
        (lambda x0: x0, "cannot be called as the exercise says"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:20],
)
def test_bad_manners_end_in_words(answer, said):
    given, text, _ = verdict_of(checks.forward_process, answer)
    assert given != "right" and any(part in text for part in said.split("|")), text


def test_an_error_shows_no_traceback_of_the_library():
    with pytest.raises(checks.Wrong) as caught:
        checks.forward_process(divides)
    shown = "\n".join(caught.value._render_traceback_())
    assert shown == str(caught.value) and "site-packages" not in shown and "checks/_" not in shown


# --- the table -----------------------------------------------------------------------------------


def test_a_part_says_what_is_right_already_and_where_to_read():
    answers = (lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0,)
    answers += (lambda v, xt, alpha, sigma: v, lambda alpha: (alpha, alpha))
    for _ in range(2):  # the equation is shown from the second failure on
        with pytest.raises(checks.Wrong) as caught:
            checks.v_prediction(*answers)
    lines = str(caught.value).splitlines()
    assert lines[2] == "Right already: `target`."
    assert lines[-3:] == [
        "Equation:     x_t = alpha x0 + sigma eps,   v = alpha eps - sigma x0",
        "",
        'Read again:   notebook 02, "One quantity in four dresses"',
    ]


def main(names: list[str]) -> int:
    print(
        f"{'exercise':<26}{'right':>8}{'wrong':>8}{'named':>8}{'unnamed':>9}{'median s':>10}{'most s':>8}"
    )
    failed, began = 0, time.perf_counter()
    for check in (c for c in checks.ALL if not names or c.__name__ in names):
        counts = {"right": [0, 0], "named": [0, 0], "unnamed": [0, 0], "wrong": [0, 0]}
        seconds = []
        for answer, expected in cases_of(check):
            given, _, took = verdict_of(check, answer)
            seconds.append(took)
            if given != expected:
                print(f"   {check.__name__}: {label(answer)} got {given!r}, expected {expected!r}")
            kinds = ["right"] if expected == "right" else ["wrong"]
            if expected != "right":
                kinds.append("named" if expected else "unnamed")
            for kind in kinds:
                good = given != "right" if kind == "wrong" else given == expected
                counts[kind][0] += good
                counts[kind][1] += 1
                failed += not good
        cells = [
            f"{good}/{all_}"
            for good, all_ in (counts[k] for k in ("right", "wrong", "named", "unnamed"))
        ]
        print(
            f"{check.about.number:02d} {check.__name__:<23}{cells[0]:>8}{cells[1]:>8}{cells[2]:>8}"
            f"{cells[3]:>9}{statistics.median(seconds):>10.2f}{max(seconds):>8.2f}"
        )
    print(f"{failed} verdicts were wrong; {time.perf_counter() - began:.0f} s in all")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
