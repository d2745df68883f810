"""What every check does: it leaves the session alone, ends in time, and edits make mistakes."""

import importlib
import os
import random
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_lib import checks
from diffusion_lib.checks import _session
from diffusion_lib.checks._compare import as_tensor
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._guards import GUARDS
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._wrong import Wrong


@exercise(1, "A test", 'notebook 01, "All steps at once"', "one plus one is two")
def plain(answer) -> None:
    """Calls the answer, whatever it does."""
    answer()


def verdict(check, *answers):
    try:
        check(*answers)
    except Wrong as wrong:
        return wrong.mistake, str(wrong)
    return "right", ""


# --- the session ---------------------------------------------------------------------------------


def session():
    return {
        "inference mode": torch.is_inference_mode_enabled(),
        "grad mode": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "default dtype": torch.get_default_dtype(),
        "default device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "numpy's errors": np.geterr(),
        "warnings": warnings.filters[:],
        "stdout": (sys.stdout, sys.stderr),
        "folder": os.getcwd(),
        "hooks": len(nn.modules.module._global_forward_hooks),
        "functions": (torch.manual_seed, torch.Tensor.add, nn.functional.silu, np.mean),
        "torch's numbers": torch.get_rng_state().tolist(),
        "numpy's numbers": np.random.get_state()[1].tolist(),
        "Python's numbers": random.getstate(),
    }


kept = []  # a mode ends when nobody holds it any more
LEAVES = {
    "inference mode": lambda: (entered := torch.inference_mode(), kept.append(entered))[
        0
    ].__enter__(),
    "grad mode": lambda: torch.set_grad_enabled(False),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "patched": lambda: setattr(torch, "manual_seed", lambda seed: None),
    "patched ": lambda: setattr(nn.functional, "silu", lambda x: x),
    "patched  ": lambda: nn.modules.module.register_module_forward_hook(lambda *args: None),
    "global seed": lambda: torch.manual_seed(3),
    "right": lambda: torch.set_num_threads(2),
    "right ": lambda: np.seterr(all="raise"),
    "right  ": lambda: warnings.simplefilter("ignore"),
    "right   ": lambda: setattr(sys, "stdout", open(os.devnull, "w")),
    "right    ": lambda: os.chdir("/"),
    "right     ": lambda: (torch.rand(1), np.random.rand(), random.random()),
}


@pytest.mark.parametrize("leaves", LEAVES)
def test_what_the_code_leaves_on_is_named_or_put_back(leaves):
    before = session()
    given, text = verdict(plain, LEAVES[leaves])
    assert (given, session()) == (leaves.strip(), before), text


@pytest.mark.parametrize("earlier", ["default dtype", "default device", "grad mode", "autocast"])
def test_an_earlier_cell_makes_no_right_answer_wrong(earlier):
    from answers.forward_process import RIGHT

    try:
        LEAVES[earlier]()
        before = session()[earlier]
        assert verdict(checks.forward_process, RIGHT[0])[0] == "right"
        assert session()[earlier] == before
    finally:
        for mode in _session.MODES.values():
            mode.set(mode.usual)


def test_a_folder_that_is_gone_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    os.chdir("work")
    (tmp_path / "work").rmdir()
    given, text = verdict(plain, lambda: None)
    os.chdir(tmp_path)
    assert given is None and "folder that this session works in is gone" in text


# --- time ----------------------------------------------------------------------------------------


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(_session, "SECONDS", 0.3)
    monkeypatch.setattr(_session, "PATIENCE", 1.0)


def loops():
    while True:
        pass


def swallows():
    while True:
        try:
            while True:
                pass
        except Exception:
            pass


def one_long_call():
    sum(range(150_000_000))


def waits():
    time.sleep(2)


def waits_in_pieces():
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize(
    "answer, mistake",
    [(loops, "endless"), (swallows, "endless"), (one_long_call, "slow"), (waits, "slow")],
)
def test_an_end_to_endless_code(hurry, answer, mistake):
    given, text = verdict(plain, answer)
    assert given == mistake, text
    assert ("loop" in text.split("Likely cause: ")[1]) == (mistake == "endless")


def test_code_that_only_waits_is_ended_too(hurry):
    began = time.monotonic()
    given, text = verdict(plain, waits_in_pieces)
    assert given == "endless" and "seconds" in text and time.monotonic() - began < 10


def test_an_import_is_not_the_learners_time(hurry, tmp_path, monkeypatch):
    """Thirty modules, each of which computes for a thirtieth of a second."""
    monkeypatch.setattr(_session, "PATIENCE", 60.0)
    busy = "import time\nend = time.thread_time() + 0.03\nwhile time.thread_time() < end: pass\n"
    for i in range(30):
        (tmp_path / f"slow_module_{i}.py").write_text(busy)
    monkeypatch.syspath_prepend(tmp_path)
    importing = lambda: [importlib.import_module(f"slow_module_{i}") for i in range(30)]  # noqa: E731
    assert verdict(plain, importing)[0] == "right"


def test_a_busy_machine_is_not_the_learners_time(hurry):
    stop = threading.Event()
    busy = threading.Thread(target=lambda: stop.wait(0) or [None for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        assert verdict(plain, lambda: time.sleep(0.5))[0] == "right"
    finally:
        stop.set()
        busy.join()


def test_the_interpreter_is_sound_afterwards(hurry):
    """Nothing is left to be thrown: tracing, as %prun and debuggers do it, works as before."""
    assert verdict(plain, loops)[0] == "endless"
    for answer in (lambda: None, loops, lambda: None):
        verdict(plain, answer)
        events = []
        sys.settrace(lambda frame, event, arg: events.append(event))
        try:
            (lambda: sum(i for i in range(10)))()
        finally:
            sys.settrace(None)
        assert "call" in events and len(events) < 50
        with pytest.raises(ZeroDivisionError):
            1 / 0  # noqa: B018


def test_nothing_is_thrown_after_a_check(monkeypatch):
    """Answers that end while it is being looked whether they are out of time."""
    monkeypatch.setattr(_session, "SECONDS", 0.06)
    monkeypatch.setattr(_session, "_importing", lambda: bool(time.sleep(0.03)))
    for i in range(12):
        end = time.thread_time() + 0.11 + 0.005 * i

        def answer():
            while time.thread_time() < end:  # noqa: B023
                pass

        assert verdict(plain, answer)[0] in ("right", "endless", "slow")
    began = time.monotonic()
    while time.monotonic() < began + 1.1:
        pass


# --- words ---------------------------------------------------------------------------------------


def test_the_equation_is_shown_from_the_second_failure_on():
    def fails():
        raise Wrong("no")

    verdict(plain, lambda: None)  # a success begins anew
    first, second = (verdict(plain, fails)[1] for _ in range(2))
    assert "one plus one" not in first and "from the second failure on" in first
    assert "Equation:     one plus one is two" in second
    assert all(
        text.splitlines()[-1].startswith("Read again:   notebook 01") for text in (first, second)
    )


# --- edits ---------------------------------------------------------------------------------------


def tables():
    for path in sorted(Path(checks.__file__).parent.glob("[!_]*.py")):
        module = importlib.import_module(f"diffusion_lib.checks.{path.stem}")
        for name, table in vars(module).items():
            if isinstance(table, Table) and table.right:
                yield pytest.param(table, id=f"{path.stem}-{name}")


@pytest.mark.parametrize("table", list(tables()))
def test_each_edit_makes_another_answer(table):
    sources = [mistake.source for mistake in table.mistakes]
    assert table.source not in sources
    assert all(callable(table.answer(mistake)) for mistake in table.mistakes)
    assert len(set(sources)) == len(sources)


def double(x):
    y = 2 * x
    return y


TWO = """
halved | 2 * x -> x / 2
    divide no more
shifted | return y -> return y + 1
    nothing is added
sentence only
    found by other means
"""


def test_a_table_names_one_mistake_or_two():
    table, cases = Table(double, TWO), [(torch.arange(3.0),)]
    answers = {
        "halved": lambda x: x / 2,
        "shifted": lambda x: x + x + 1,
        "halved + shifted": lambda x: 1 + x / 2,
        None: lambda x: 3 * x,
    }
    for name, answer in answers.items():
        with pytest.raises(Wrong) as caught:
            judge(answer, cases, table, "double")
        assert caught.value.mistake == name
    assert "First: divide no more. Second: nothing is added" in str(
        pytest.raises(Wrong, judge, answers["halved + shifted"], cases, table, "double").value
    )
    judge(double, cases, table, "double", guards=" ".join(GUARDS))
    table.demand(True, "sentence only", "fine")
    with pytest.raises(Wrong, match="not fine") as caught:
        table.demand(False, "sentence only", "not fine")
    assert caught.value.cause == "found by other means"


@pytest.mark.parametrize("text", ["a | 3 * x -> x\n    why\n", "a | 2 * x\n    why\n"])
def test_an_edit_of_what_is_not_there_is_refused(text):
    with pytest.raises(ValueError, match="'a' edits"):
        Table(double, text)


def test_an_edit_that_is_no_python_is_refused():
    with pytest.raises(SyntaxError):
        Table(double, "a | 2 * x -> 2 *\n    why\n")


# --- guards --------------------------------------------------------------------------------------


FAILS = {  # one answer for each guard, right but for what this guard looks at
    "double": lambda x: 2 * x.float() if x.dtype == torch.float32 else 3 * x,
    "row": lambda x: 2 * x if len(x) > 1 else x,
    "view": lambda x: torch.as_strided(2 * x.as_strided(x.shape, (2, 1)), x.shape, (2, 1)),
    "gradient": lambda x: 2 * x.detach(),
    "device": lambda x: torch.zeros(x.shape, dtype=x.dtype) + 2 * x,
}


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("answer", FAILS)
def test_each_guard_refuses_its_own_answer_and_no_other(guard, answer):
    table, cases = Table(double, TWO), [(torch.arange(6.0).view(3, 2),)]
    judge(FAILS[answer], cases, table, "double")
    given, _ = verdict(lambda: judge(FAILS[answer], cases, table, "double", guards=guard))
    assert (given == "right") == (guard != answer)


def test_what_is_kept_between_calls_is_named():
    def forgetful(x, calls=[]):  # noqa: B006
        calls.append(x)
        return 2 * x if len(calls) < 3 else x

    with pytest.raises(Wrong, match="called again") as caught:
        judge(forgetful, [(torch.ones(2),), (torch.ones(3),)], Table(double, TWO), "double")
    assert caught.value.mistake == "kept between calls"


def test_numbers_are_tensors_and_none_is_not():
    assert as_tensor(3).item() == 3
    with pytest.raises(Wrong, match="is a `return` missing"):
        as_tensor(None)
