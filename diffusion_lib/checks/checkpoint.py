"""Exercise 11: checkpoints."""

import os
import sys
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diffusion_lib.checks._call import call, kind
from diffusion_lib.checks._folder import elsewhere
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._wrong import Wrong, unknown

TABLE = Table(
    None,
    """
no folder
    the folder may not exist yet: make it, and those above it
Path refused
    the path is a `Path` here, and no text; `Path(path)` makes one of either
text path
    the path is a text here, and no `Path`; `Path(path)` makes one of either
bare name
    a bare name has no folder in front of it: it means the folder where one is
relative path
    a relative path begins where one is, not where the script lies, and has all its folders
other name
    the file must have the very name that it is asked for
wrong path returned
    whoever prints the name must print the right one
pickle
    torch.save writes a pickle, and reading one can run anybody's code
not restored
    not everything in the model's state_dict() was written, or put back (buffers count too)
half precision
    the last digits of every number are lost: all went through 16 bits (float16 or bfloat16)
model changed
    whoever saves wants to train on; save a copy, if it has to be another model
step
    what comes out of a file is a text, or a tensor: make an integer of it
step + 1
    whoever goes on training adds the 1; `load` says what was saved
removed first
    nothing need be removed: one of the two ways of renaming replaces what is there
written in place
    write to another name beside it, and rename at the end: os.replace is all or nothing
temporary file elsewhere
    tempfile's own folder and the working directory are elsewhere; write beside the checkpoint
leftover
    a temporary file is left behind, or something lies in a second file
silent
    the training would begin again, unnoticed
other error
    whoever waits for FileNotFoundError does not catch another one
""",
)


EMPTY = 9  # the seed of models into which is loaded
PATHS = [  # what an error means that comes with this one first; absolute; the path; steps
    (None, True, Path("runs", "first", "painter.step7"), (7, 0, 2**24 + 1)),
    ("text path", True, "runs/first/painter.step7", (1, 2)),
    ("bare name", False, "alone.safetensors", (3, 4)),
    ("bare name", False, Path("a path.safetensors"), (5, 6)),
    ("relative path", False, "night/run.safetensors", (8, 9)),
    ("relative path", False, Path("a", "long", "night.bin"), (10, 11)),
]


def _model(seed: int) -> nn.Module:
    """No number of its state, of parameters and buffers, is that of another seed."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    for value in model.state_dict().values():
        value.copy_(torch.rand(value.shape, generator=generator) + seed)
    return model


class _Watch:
    """Looks at the file at `path`, and at new ones in `root`, whenever a function returns."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root, self.known = path, root, {*root.rglob("*")}
        self.contents: list[bytes | None] = [path.read_bytes()]  # in order; None: there was no file
        self.by = ""  # the function in which the last of them came
        self.beside, self.afar = set(), set()  # numbers of new files, in its folder and elsewhere

    def look(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "c_return" or frame.f_globals.get("__name__", "").startswith("torch."):
            return  # torch has very many, and none that is of use here
        with suppress(OSError):  # another thread may take away what was there a moment ago
            now = self.path.read_bytes() if self.path.is_file() else None
            if now != self.contents[-1]:
                self.contents.append(now)
                self.by = called.__name__
            for folder, _, names in os.walk(self.root):
                for new in {Path(folder, name) for name in names} - self.known:
                    near = self.path.parent in new.parents
                    (self.beside if near else self.afar).add(new.stat().st_ino)

    def call(self, *args: Any, **named: Any) -> Any:
        before = sys.getprofile(), threading.getprofile()
        threading.setprofile(self.look)
        sys.setprofile(self.look)
        try:
            return call(*args, **named)
        finally:
            sys.setprofile(before[0])
            threading.setprofile(before[1])

    def judge(self) -> None:
        """Whether the file was whole, the old one or the new one, all the time."""
        arrived = self.path.stat().st_ino in self.beside
        reason = (
            "The second save takes the first checkpoint away before the new one is in its place. "
        )
        reason += "If the machine stops in between, there is none."
        TABLE.demand(None not in self.contents, "removed first", reason)
        near = not self.afar and (arrived or self.by not in ("rename", "replace"))
        reason = (
            "What the second save writes meanwhile does not lie in the checkpoint's folder. It "
        )
        reason += "may be another disk, and from one disk to another a file is copied, not renamed."
        TABLE.demand(near, "temporary file elsewhere", reason)
        whole = {*self.contents} == {self.contents[0], self.path.read_bytes()}
        reason = (
            "The second save writes under the first checkpoint's own name. If the machine stops "
        )
        reason += "in the middle, both are lost."
        TABLE.demand(arrived and whole, "written in place", reason)


def _stopped(wrong: Wrong, path: Any, usual: str) -> Wrong:
    """An error on a path, with its name. usual: that of whatever stops on this path only."""
    said, error = wrong.reason, wrong.__cause__
    missing = any(words in said for words in ("No such file", "does not exist", "cannot find"))
    if missing and not Path(path).parent.is_dir():
        usual = "no folder"
    elif isinstance(error, TypeError | AttributeError) and "Path'" in said.splitlines()[0]:
        usual = "Path refused"
    return TABLE.wrong(usual, said) if usual and error else wrong


def _round(save: Callable, load: Callable, path: Any, steps: tuple, usual: str, root: Path) -> None:
    """Saves to `path`, one step over the other, and loads each time."""
    here, target = Path.cwd(), Path(path).absolute()
    for i, step in enumerate(steps):
        model, want = _model(i), _model(i)
        watch = _Watch(target, root) if i else None
        try:
            written = (watch.call if watch else call)(save, path, model, step, name="save")
            _written(written, target, usual)
            if watch:
                watch.judge()
            others = ", ".join(sorted(p.name for p in target.parent.iterdir() if p != target))
            said = f"After saving, there is more in the folder than {target.name}: {others}."
            TABLE.demand(not others, "leftover", said)
            _loaded(load, path, want, step)
        except Wrong as wrong:
            raise _stopped(wrong, path, usual) from wrong.__cause__
        kept = map(_same, model.state_dict().values(), want.state_dict().values())
        said = "After `save` the model in memory has other weights, or another mode."
        TABLE.demand(model.training and all(kept), "model changed", said)
        if Path.cwd() != here:
            raise unknown("Your code changes the working directory of the whole session.")
    target.unlink()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def _written(written: Any, path: Path, usual: str) -> None:
    """Whether there is a safetensors file at the path, which was returned."""
    there = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    reason = f"After save(path, …) there is no {path.name} in its folder, only: "
    reason += f"{', '.join(there) or 'nothing'}."
    name = usual if usual in ("bare name", "relative path") else "other name"
    TABLE.demand(path.is_file(), name, reason)
    same = isinstance(written, str | Path) and Path(written).resolve() == path.resolve()
    reason = f"`save` should return the path that it wrote, {path.name}, and returned {written!r}."
    TABLE.demand(same, "wrong path returned", reason)
    with suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
        if file.keys():
            return
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    pickled = path.read_bytes()[:1] == b"\x80" or any(name.endswith(".pkl") for name in names)
    TABLE.demand(not pickled, "pickle", "The file is no safetensors file, but a pickle.")
    raise unknown("The file is no safetensors file, or there is nothing in it.")


def _loaded(load: Callable, path: Any, want: nn.Module, step: int) -> None:
    """Whether `load` brings back the model and the step."""
    model, before = _model(EMPTY), _model(EMPTY).state_dict()
    got = call(load, path, model, name="load")
    now = model.state_dict()
    lost = {k: v for k, v in want.state_dict().items() if not _same(now[k], v)}
    if lost:
        reason = "After load(path, model) the model differs from the one saved, in "
        reason += f"{', '.join([*lost][:3])}."
        untouched = all(_same(now[k], before[k]) for k in lost)
        TABLE.demand(not untouched, "not restored", reason)
        for short in (torch.float16, torch.bfloat16):
            half = all(torch.equal(now[k].to(v), v.to(short).to(v)) for k, v in lost.items())
            TABLE.demand(not half, "half precision", reason)
        raise unknown(reason)
    reason = f"`load` should return the step, the integer {step}, and returned "
    TABLE.demand(type(got) is int, "step", f"{reason}{kind(got)}.")
    TABLE.demand(got != step + 1, "step + 1", f"{reason}{got}.")
    if got != step:
        raise unknown(f"{reason}{got}.")


def _missing(load: Callable, path: Any) -> None:
    try:
        load(path, _model(EMPTY))
    except FileNotFoundError as error:
        told = Path(path).name in f"{error} {error.filename}"
        TABLE.demand(told, "silent", "The error for a missing file does not say which file it is.")
    except Exception as error:
        reason = f"For a file that is not there `load` raised {type(error).__name__}; expected "
        reason += "FileNotFoundError, with the path in its message."
        raise TABLE.wrong("other error", reason) from None
    else:
        raise TABLE.wrong("silent", "For a file that is not there `load` raised nothing.")


@exercise(
    11,
    "The night's work is gone",
    'notebook 04, "Checkpoints: kill it, and go on"',
    solved="Whole or not at all, in one place, and nobody's code runs when it is read.",
)
def checkpoint(save, load) -> None:
    """save(path, model, step) -> the path written; load(path, model) -> step."""
    for usual, absolute, name, steps in PATHS:
        with elsewhere() as root:
            path = type(name)(root / name) if absolute else name
            _round(save, load, path, steps, usual, root)
            _missing(load, type(name)(Path(path).with_name("none.safetensors")))
