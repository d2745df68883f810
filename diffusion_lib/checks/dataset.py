"""Exercise 12: a data set of pictures with their labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_lib.checks._call import call, kind
from diffusion_lib.checks._compare import as_tensor
from diffusion_lib.checks._folder import elsewhere
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._wrong import Wrong, unknown


class right:
    def __init__(self, images_path, labels_path, transform=None):
        self.images, self.labels = np.load(images_path), np.load(labels_path)
        self.transform = transform or (lambda x: x)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i])
        image = image.permute(2, 0, 1)
        image = image / 127.5 - 1
        image = self.transform(image)
        label = torch.tensor(self.labels[i], dtype=torch.float32)
        return image, label


TABLE = Table(
    right,
    """
channels last | image = image.permute(2, 0, 1) -> image = image
    colours must come first: (3, H, W)
0 to 255 | / 127.5 - 1 -> * 1.0
    the numbers are as in the file, 0 to 255
0 to 1 | / 127.5 - 1 -> / 255
    the pictures lie in [0, 1]; the model wants [-1, 1]
divided by 128 | / 127.5 -> / 128
    the greatest number of a byte, 255, must become 1
overflow | / 127.5 - 1 -> * 2 / 255 - 1
    bytes end at 255: what is doubled as a byte overflows; make it floating-point first
divided by 127 | / 127.5 -> / 127
    the middle of the bytes is 127.5, not 127: 255 must become 1
own range | / 127.5 - 1 -> / image.max() * 2 - 1
own range | / 127.5 - 1 -> - image.min(); image = image / image.max() * 2 - 1
    each picture is stretched by its own range (exercise 10); 255 is white in all of them
sides exchanged | permute(2, 0, 1) -> permute(2, 1, 0)
    height and width have changed places
reshaped | permute(2, 0, 1) -> reshape(image.shape[2], *image.shape[:2])
    the numbers are only counted off anew; `permute` moves axes, `reshape` does not
transform ignored | image = self.transform(image) -> self.transform(image)
    the transform's result does not come to the item
transformed too early | image = image / 127.5 - 1 -> ;; self.transform(image) -> self.transform(image) / 127.5 - 1
transformed too early | .permute(2, 0, 1) -> .permute(2, 0, 1).float() ;; image = image / 127.5 - 1 -> ;; self.transform(image) -> self.transform(image) / 127.5 - 1
transformed too early | image = image.permute(2, 0, 1) -> ;; self.transform(image) -> self.transform(image).permute(2, 0, 1)
    the transform is to get the finished picture: float, (3, H, W), in [-1, 1]
label transformed | return image, label -> return image, self.transform(label)
    the transform is for the picture; a label stays what it is
whole numbers | dtype=torch.float32) -> dtype=torch.int64)
whole numbers | dtype=torch.float32) -> dtype=torch.float32).round()
whole numbers | torch.tensor(self.labels[i], dtype=torch.float32) -> torch.eye(5)[self.labels[i].argmax()]
    mixtures are rounded away; whole numbers cannot say 0.4 of a spell
label normalised | torch.tensor(self.labels[i], -> torch.tensor(self.labels[i] / self.labels[i].sum(),
    the labels need not add up to 1, and are wanted as they are in the file
half precision | torch.tensor(self.labels[i], dtype=torch.float32) -> torch.tensor(self.labels[i]).half().float()
    16 bits do not hold 0.6; float32 comes nearer
exchanged | return image, label -> return label, image
    an item is (image, label), in this order
class number | torch.tensor(self.labels[i], dtype=torch.float32) -> torch.tensor(self.labels[i].argmax())
    the label is only the number of its greatest entry; all five are wanted
picture's dtype
label's dtype
    the network computes in float32, and numpy's own numbers are float64
undefined without a transform
    without a transform a name is used that was never given a value
transformed once
    the transform is asked only once: a random one (a flip, say) is to differ at every access
size fixed
    not every picture has this size: take height and width from the array, each its own
no end
    `for image, label in data` ends at the first IndexError, and here at none
shared memory
    hand out a new one each time: what is changed by whoever gets it is changed in the data set, too
no pair
    compare the two lengths when the data set is made, not in the middle of an epoch
pickle
    allow_pickle=True lets a file run code when it is opened
""",
)
ran = []  # grows whenever the code in a pickle runs


def run() -> float:
    ran.append(True)
    return 0.5


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return run, ()


def _files(folder: Path, n: int, height: int, width: int, dtype: type) -> tuple[Path, Path]:
    """Pictures and labels, a third of which are mixtures; one does not add up to 1."""
    generator = np.random.default_rng(n)
    labels = np.eye(5, dtype=dtype)[generator.integers(0, 5, n)]
    labels[::3] = labels[::3] * 0.6 + np.roll(labels[::3], 2, axis=1) * 0.4
    labels[2] += 0.3
    files = folder / f"{n} pictures.npy", folder / f"{n} labels.npy"
    np.save(files[0], generator.integers(0, 256, (n, height, width, 3), dtype=np.uint8))
    np.save(files[1], labels)
    return files


def _made(answer: Callable, *case: Any) -> Any:
    data = call(answer, *case, name="dataset")
    if isinstance(data, type) or not all(hasattr(data, m) for m in ("__len__", "__getitem__")):
        want = "`dataset` should make a data set, with `__len__` and `__getitem__`, and made "
        raise Wrong(f"{want}{kind(data)}.", "none" if data is None else "type")
    return data


def _item(data: Any, i: int) -> tuple[Tensor, Tensor]:
    pair = call(lambda dataset, i: dataset[i], data, i, name=f"dataset[{i}]")
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise Wrong(
            f"An item should be a pair, (image, label); dataset[{i}] is {kind(pair)}.", "type"
        )
    image, label = (as_tensor(x, f"dataset[{i}]", "a pair of tensors") for x in pair)
    return image, label


def _all(part: int) -> Callable:
    """Observes one part of all items: 0, the pictures, or 1, the labels."""

    def observe(answer: Callable) -> Callable[..., Tensor]:
        def observed(images_path: Path, *others: Any) -> Tensor:
            data = _made(answer, images_path, *others)
            n, length = len(np.load(images_path)), call(len, data)
            if length != n:
                raise unknown(f"len() of the data set is {length}; the files hold {n} pictures.")
            parts = [_item(data, i)[part] for i in range(n)]
            if len(shapes := {tuple(x.shape) for x in parts}) > 1:
                raise unknown(f"The items have different shapes: {sorted(shapes)}.")
            return torch.stack(parts)

        return observed

    return observe


def _refused(answer: Callable, files: tuple[Path, Path], what: str, mistake: str) -> None:
    ran.clear()
    try:
        answer(*files)
    except ValueError:
        pass
    except Exception as error:
        reason = f"For {what} you raise {type(error).__name__}; expected ValueError."
        raise Wrong(reason, mistake) from None
    else:
        raise TABLE.wrong(mistake, f"You accept {what}; expected ValueError.")
    TABLE.demand(not ran, "pickle", f"You refuse {what}, but its code has run already.")


def _odd(x: Tensor) -> Tensor:
    """A transform that tells whether it got the finished picture."""
    return x.flip(-1) ** 3 * 2


@exercise(
    12,
    "Forty per cent of a spell",
    'notebook 04, "Your own pictures: two `.npy` files"',
    solved="Two files, no pickle, and mixtures stay mixtures.",
)
def dataset(answer) -> None:
    """answer(images_path, labels_path, transform=None): a data set of (image, label) pairs."""
    if not callable(answer):
        want = "I need the class itself, or a function that makes a data set, and got "
        raise Wrong(f"{want}{kind(answer)}.", "type")
    with elsewhere() as folder:
        double, single = _files(folder, 6, 16, 12, np.float64), _files(folder, 9, 8, 10, np.float32)
        plain, changed = [double, single], [(*double, _odd), (*single, _odd)]
        for part, what in enumerate(("picture", "label")):
            try:
                judge(answer, plain, TABLE, "dataset", 1e-6, observe=_all(part))
                judge(answer, changed, TABLE, "dataset", 1e-6, observe=_all(part))
            except Wrong as wrong:
                if isinstance(wrong.__cause__, UnboundLocalError):
                    raise TABLE.wrong("undefined without a transform", wrong.reason) from None
                if "invalid for input of size" in str(wrong.__cause__):
                    raise TABLE.wrong("size fixed", wrong.reason) from None
                raise
            for case in plain + changed:
                dtype = _item(_made(answer, *case), 1)[part].dtype
                reason = f"The {what} has the right numbers, in {dtype}; expected torch.float32."
                TABLE.demand(dtype == torch.float32, f"{what}'s dtype", reason)
            _unshared(answer, double, part, what)
            _unshared(answer, single, part, what)
        _afresh(answer, double)
        _ends(_made(answer, *double), 6)
        _refused(answer, (double[0], single[1]), "6 pictures with 9 labels", "no pair")
        _refused(answer, (single[0], double[1]), "9 pictures with 6 labels", "no pair")
        for i, what in enumerate(("pictures", "labels")):
            array = np.load(double[i]).astype(object)
            array.flat[0] = Trap()
            np.save(folder / "pickled.npy", array, allow_pickle=True)
            pair = [*double[:i], folder / "pickled.npy", *double[i + 1 :]]
            _refused(answer, pair, f"a file of {what} with a pickle in it", "pickle")


def _unshared(answer: Callable, files: tuple[Path, Path], part: int, what: str) -> None:
    """Whoever gets an item, a transform included, may change it."""
    for transform in ((), (lambda x: x.mul_(0.5),)):
        data = _made(answer, *files, *transform)
        before = _item(data, 1)[part].clone()
        _item(data, 1)[part].add_(1)
        reason = f"Changing a {what} that the data set gave out changes the data set itself."
        if transform:
            reason = "A transform that changes the picture in place changes the data set itself."
        TABLE.demand(torch.equal(_item(data, 1)[part], before), "shared memory", reason)


def _afresh(answer: Callable, files: tuple[Path, Path]) -> None:
    """The transform is called at every access."""
    asked = []
    data = _made(answer, *files, lambda x: asked.append(True) or x + len(asked))
    once, again = (_item(data, 1)[0].mean() for _ in range(2))
    TABLE.demand(once < again, "transformed once", "An item asked for again is not made anew.")


def _ends(data: Any, n: int) -> None:
    said = "exists"
    try:
        data[n]
    except IndexError:
        return
    except Exception as error:
        said = f"raises {type(error).__name__}"
    raise TABLE.wrong("no end", f"dataset[{n}] {said}, with {n} items; expected IndexError.")
