"""Checks of what lies on the disk: checkpoints, and pictures with their labels."""

import copy
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diffusion_lib.checks._core import Wrong, as_tensor, call, close, difference, exercise


@contextmanager
def _elsewhere() -> Iterator[Path]:
    """A temporary folder, while the working directory is another empty one; both are removed."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        try:
            yield Path(folder).resolve()
            stray = [p.name for p in Path(work).iterdir()]
            if stray:
                raise Wrong(
                    f"Something was written into the working directory: {', '.join(stray)}.",
                    "the path that you are given is where the file belongs",
                    "other place",
                )
        finally:
            os.chdir(before)


# --- 11 ------------------------------------------------------------------------------------------


def _model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model[1].running_mean += torch.rand(4)  # a buffer: no parameter, but part of the model
    model[1].running_var += torch.rand(4)
    model[1].num_batches_tracked += seed
    return model


def _same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values())
    return all(torch.equal(x, y) for x, y in pairs)


@contextmanager
def _watching(target: Path) -> Iterator[list[str]]:
    """Notes what happens to `target`: renamings to it (whole, cut, from afar), its going, its writing.

    A second name for the old file tells of writing that the watched functions do not see.
    """
    seen: list[str] = []
    places = [(os, name) for name in ("replace", "rename", "remove", "unlink")]
    places += [(safetensors.torch, "serialize_file")]
    accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10's Path has its own functions
    places += [(accessor, name) for name in ("replace", "rename", "unlink")] if accessor else []
    places = [
        (module, name, getattr(module, name)) for module, name in places if hasattr(module, name)
    ]

    def is_target(value: Any) -> bool:
        return isinstance(value, str | os.PathLike) and Path(value).absolute() == target

    def note(name: str, args: tuple, named: dict) -> None:
        first = args[0] if args else named.get("src", named.get("path"))
        second = args[1] if len(args) > 1 else named.get("dst", named.get("filename"))
        if name == "serialize_file":
            seen.extend(["written"] * is_target(second))
        elif is_target(first):
            seen.append("gone")
        elif is_target(second):
            source = Path(first).absolute()
            there = _is_safetensors(source) and _is_safetensors(target)
            seen.append("whole" if there else "cut")
            if target.parent.resolve() not in source.resolve().parents:
                seen.append("afar")

    def watched(name: str, function: Callable) -> Callable:
        def watching(*args: Any, **named: Any) -> Any:
            note(name, args, named)
            return function(*args, **named)

        return watching

    witness, old = target.parent.parent / "witness", target.read_bytes()
    try:
        os.link(target, witness)
        linked = True
    except OSError:  # a file system without second names
        witness.write_bytes(old)
        linked = False
    for module, name, function in places:
        setattr(module, name, staticmethod(watched(name, function)))
    try:
        yield seen
        if witness.read_bytes() != old or not (linked or "whole" in seen):
            seen.append("written")
    finally:
        for module, name, function in places:
            setattr(module, name, function)
        witness.unlink()


def _is_safetensors(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return len(list(file.keys())) > 0
    except (SafetensorError, OSError):
        return False


@exercise(
    11,
    "The night's work is gone",
    'notebook 04, "Checkpoints: kill it, and go on"',
    solved="Whole or not at all, in one place, and nobody's code runs when it is read.",
    slow_start=True,
)
def checkpoint(save, load) -> None:
    """save(path, model, step) -> the path written; load(path, model) -> step."""
    torch_seed = torch.initial_seed()
    with _elsewhere() as folder:
        path = folder / "runs" / "first" / "painter.step7"
        first, second, empty = (_model(seed) for seed in (1, 2, 3))
        want = [copy.deepcopy(model) for model in (first, second)]
        torch.manual_seed(torch_seed)
        try:
            written = call(save, path, first, 7, name="save")
        except Wrong as wrong:
            missing = any(said in wrong.reason for said in ("No such file", "does not exist"))
            if missing and not path.parent.is_dir():
                wrong.cause, wrong.mistake = "the folder may not exist yet: make it", "no folder"
            raise
        _written(written, path)
        if not _is_safetensors(path):
            raise Wrong(
                "The file is no safetensors file.",
                "torch.save writes a pickle, and reading one can run anybody's code",
                "pickle",
            )
        _loaded(load, path, empty, want[0], 7)
        with _watching(path) as seen:
            call(save, path, second, 8, name="save")
        _atomic(seen)
        left = sorted(p.name for p in path.parent.iterdir())
        if left != [path.name]:
            raise Wrong(
                f"After saving, the folder holds {', '.join(left)}; expected {path.name} alone.",
                "the temporary file is left behind, or the name is another one",
                "leftover",
            )
        _loaded(load, path, empty, want[1], 8)
        _relative(save, load, first, empty)
        _missing(load, folder / "runs" / "none.safetensors", empty)


def _atomic(seen: list[str]) -> None:
    if "gone" in seen:
        raise Wrong(
            "The second save takes the first checkpoint away before the new one is in its place. If the "
            "machine stops in between, there is none.",
            "nothing need be removed: one of the two ways of renaming replaces what is there",
            "removed first",
        )
    if "written" in seen or "cut" in seen:
        raise Wrong(
            "The second save writes under the first checkpoint's own name. If the machine stops in the "
            "middle, both are lost. (Only the newest safetensors write beside it by themselves.)",
            "write to another name beside it, and rename at the end: os.replace is all or nothing",
            "written in place",
        )
    if "afar" in seen:
        raise Wrong(
            "The temporary file does not lie in the checkpoint's folder. It may be another disk, and from "
            "one disk to another a file is copied, not renamed.",
            "tempfile's own folder is elsewhere; write beside the checkpoint",
            "temporary file elsewhere",
        )


def _relative(save: Callable, load: Callable, model: nn.Module, into: nn.Module) -> None:
    """A bare name means the folder where one is."""
    here, name = Path.cwd(), "alone.safetensors"
    try:
        call(save, name, model, 3, name="save")
    except Wrong as wrong:
        wrong.cause = "a bare name has no folder in front of it, and needs none to be made"
        wrong.mistake = "bare name"
        raise
    if Path.cwd() != here or not (here / name).is_file():
        raise Wrong(
            f"save({name!r}, …) should write into the working directory.",
            "a relative path begins where one is, not where the script lies",
            "bare name",
        )
    _loaded(load, name, into, model, 3)
    (here / name).unlink()


def _written(written: Any, path: Path) -> None:
    found = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    if not path.is_file():
        raise Wrong(
            f"After save(path, …) there is no {path.name} in its folder, only: {', '.join(found) or 'nothing'}.",
            "the file must have the very name that it is asked for",
            "other name",
        )
    if not isinstance(written, str | Path) or Path(written).absolute() != path:
        raise Wrong(
            f"`save` should return the path that it wrote, {path.name}, and returned {written!r}.",
            "whoever prints the name must print the right one",
            "wrong path returned",
        )


def _loaded(load: Callable, path: Path, into: nn.Module, expected: nn.Module, step: int) -> None:
    got = call(load, path, into, name="load")
    if not _same(into, expected):
        lost = [
            name
            for (name, a), b in zip(into.state_dict().items(), expected.state_dict().values())
            if not torch.equal(a, b)
        ]
        raise Wrong(
            f"After load(path, model) the model differs from the one saved, in {', '.join(lost[:3])}.",
            "not everything in the model's state_dict() has been put back (buffers count too)",
            "not restored",
        )
    if type(got) is not int or got != step:
        raise Wrong(
            f"`load` should return the step, the integer {step}, and returned {got!r}.",
            "the step is not in the file, comes back as a text or a tensor, or is not returned",
            "step",
        )


def _missing(load: Callable, path: Path, model: nn.Module) -> None:
    try:
        load(path, model)
    except FileNotFoundError as error:
        if path.name not in str(error) and str(path) not in str(error.filename or ""):
            raise Wrong(
                "The error for a missing file does not say which file is missing.", mistake="silent"
            ) from None
    except Exception as error:
        raise Wrong(
            f"For a file that is not there `load` raised {type(error).__name__}; expected "
            "FileNotFoundError, with the path in its message.",
            mistake="other error",
        ) from None
    else:
        raise Wrong(
            "For a file that is not there `load` raised nothing: the training would begin again, "
            "unnoticed.",
            mistake="silent",
        )


# --- 12 ------------------------------------------------------------------------------------------


def _right_item(pictures: np.ndarray, labels: np.ndarray, i: int) -> tuple[Tensor, Tensor]:
    image = torch.from_numpy(pictures[i].astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
    return image, torch.from_numpy(labels[i].astype(np.float32))


IMAGE_MISTAKES = {
    "channels last": ("colours must come first: (3, H, W)", lambda x: x.permute(1, 2, 0)),
    "0 to 255": ("the numbers are as in the file, 0 to 255", lambda x: (x + 1) * 127.5),
    "0 to 1": ("the pictures lie in [0, 1]; the model wants [-1, 1]", lambda x: (x + 1) / 2),
    "own range": (
        "each picture is stretched by its own minimum and maximum (exercise 10)",
        lambda x: (x - x.min()) / (x.max() - x.min()) * 2 - 1,
    ),
    "sides exchanged": ("height and width have changed places", lambda x: x.transpose(1, 2)),
    "reshaped": (
        "the numbers are only counted off anew; `permute` moves axes, `reshape` does not",
        lambda x: x.permute(1, 2, 0).reshape(x.shape),
    ),
}


@exercise(
    12,
    "Forty per cent of a spell",
    'notebook 04, "Your own pictures: two `.npy` files"',
    solved="Two files, no pickle, and mixtures stay mixtures.",
)
def dataset(answer) -> None:
    """answer(images_path, labels_path, transform=None): a data set of (image, label) pairs."""
    generator = np.random.default_rng(12)
    pictures = generator.integers(20, 220, (6, 16, 12, 3), dtype=np.uint8)
    labels = np.eye(5)[[0, 1, 2, 3, 4, 0]]
    labels[5] = [0.6, 0, 0, 0.4, 0]  # a mixture
    with _elsewhere() as folder:
        files = folder / "sprites.npy", folder / "labels.npy"
        np.save(files[0], pictures)
        np.save(files[1], labels)
        data = call(answer, *files, name="dataset")
        if call(len, data) != 6:
            raise Wrong(f"len() of the data set is {len(data)}, and the files hold 6 pictures.")
        for i in (0, 5):
            _item(_get(data, i), pictures, labels, i)
        _transformed(answer, files, pictures, labels)
        item = _get(data, 1)[0]
        item.add_(1)
        if not close(_get(data, 1)[0], item - 1):
            raise Wrong(
                "Changing a picture that the data set gave out changes the data set itself.",
                "a picture shares its memory with what you keep: hand out a new one each time",
                "shared memory",
            )
        np.save(folder / "single.npy", labels.astype(np.float32))
        data = call(answer, files[0], folder / "single.npy", name="dataset")
        label = _get(data, 1)[1]
        label.add_(1)
        if not close(_get(data, 1)[1], label - 1):
            raise Wrong(
                "Changing a label that the data set gave out changes the data set itself.",
                "a label shares its memory with what you keep: hand out a new one each time",
                "shared memory",
            )
        _out_of_range(data)
        np.save(folder / "short.npy", labels[:4])
        _refused(
            answer, (files[0], folder / "short.npy"), "6 pictures with 4 labels", "no pair",
            "compare the two lengths when the data set is made, not in the middle of an epoch",
        )  # fmt: skip
        np.save(folder / "long.npy", np.eye(5)[[0] * 8])
        _refused(
            answer, (files[0], folder / "long.npy"), "6 pictures with 8 labels", "no pair",
            "compare the two lengths when the data set is made, not in the middle of an epoch",
        )  # fmt: skip
        for i, (what, array) in enumerate((("pictures", pictures), ("labels", labels))):
            np.save(folder / "pickled.npy", array.astype(object), allow_pickle=True)
            pair = [*files[:i], folder / "pickled.npy", *files[i + 1 :]]
            _refused(
                answer, pair, f"a file of {what} with a pickle in it", "pickle",
                "allow_pickle=True lets a file run code when it is opened",
            )  # fmt: skip


def _get(data: Any, i: int) -> tuple:
    try:
        pair = call(lambda: data[i], name=f"dataset[{i}]")
    except Wrong as wrong:
        if "UnboundLocalError" in wrong.reason:
            wrong.cause = "without a transform a name is used that was never given a value"
            wrong.mistake = "undefined without a transform"
        raise
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise Wrong("An item should be a pair, (image, label).", mistake="type")
    return pair


def _item(pair: tuple, pictures: np.ndarray, labels: np.ndarray, i: int) -> None:
    image, label = (as_tensor(x, f"dataset[{i}]", "a pair of tensors") for x in pair)
    want, want_label = _right_item(pictures, labels, i)
    if close(image, want) and image.dtype != torch.float32:
        raise Wrong(f"The picture of item {i} is {image.dtype}; expected torch.float32.")
    if not close(image, want):
        for name, (cause, change) in IMAGE_MISTAKES.items():
            if close(image, change(want)):
                raise Wrong(f"The picture of item {i} is not as wanted.", cause, name)
        raise Wrong(f"The picture of item {i}: {difference(image, want, name=f'dataset[{i}]')}")
    if not label.is_floating_point():
        raise Wrong(
            f"The label of item {i} is {label.tolist()}, {label.dtype}; expected "
            f"{want_label.tolist()}, torch.float32.",
            "whole numbers cannot say 0.4 of a spell: keep them floating-point",
            "whole numbers",
        )
    if close(label, want_label) and label.dtype != torch.float32:
        raise Wrong(
            f"The label of item {i} has the right numbers, in {label.dtype}; expected torch.float32, in "
            "which the network computes.",
            mistake="label's dtype",
        )
    if not close(label, want_label):
        rounded = close(label, want_label.round()) or close(label, want_label.floor())
        raise Wrong(
            f"The label of item {i} is {label.tolist()}, {label.dtype}; expected {want_label.tolist()}, "
            "torch.float32.",
            "mixtures are rounded away" if rounded else None,
            "whole numbers" if rounded else None,
        )


def _transformed(answer: Callable, files: tuple, pictures: np.ndarray, labels: np.ndarray) -> None:
    got = []

    def mirror(x: Tensor) -> Tensor:
        got.append(x.dtype)
        return x.flip(-1) * 3

    data = call(answer, *files, mirror, name="dataset")
    image = _get(data, 2)[0]
    want = _right_item(pictures, labels, 2)[0]
    if not got:
        raise Wrong("The transform is never called.", mistake="transform ignored")
    if not close(image, mirror(want)):
        if isinstance(image, Tensor) and close(image, want):
            raise Wrong("The transform's result is thrown away.", mistake="transform ignored")
        raise Wrong(
            "With a transform, an item is not the transform of the picture. It should get the "
            "finished picture, a float tensor (3, H, W) in [-1, 1]."
        )
    if got[0] != torch.float32:
        raise Wrong(f"The transform got a picture in {got[0]}; expected torch.float32.")
    data = call(answer, *files, lambda x: x.mul_(0.5), name="dataset")
    if any(not close(_get(data, 3)[0], _right_item(pictures, labels, 3)[0] / 2) for _ in range(2)):
        raise Wrong(
            "A transform that changes the picture in place changes the data set itself.",
            "a picture shares its memory with what you keep: hand out a new one each time",
            "shared memory",
        )


def _out_of_range(data: Any) -> None:
    try:
        data[6]
    except IndexError:
        return
    except Exception as error:
        raise Wrong(f"Item 6 of 6 raised {type(error).__name__}; expected IndexError.") from None
    raise Wrong("There is no item 6 of 6, but you return one: expected IndexError.")


def _refused(answer: Callable, files: tuple, what: str, mistake: str, cause: str) -> None:
    try:
        answer(*files)
    except ValueError:
        return
    except Exception as error:
        raise Wrong(
            f"For {what} you raise {type(error).__name__}; expected ValueError.", mistake=mistake
        ) from None
    raise Wrong(f"You accept {what}; expected ValueError.", cause, mistake)
