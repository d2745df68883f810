"""Pictures and labels from two NumPy files: the original course's sprites, or your own."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion_lib.data.art import to_float
from diffusion_lib.guards import integers


class ArrayImages(Dataset):
    """A pair of `.npy` files; the pictures stay on disk, and only those asked for are read.

    images_path: uint8 (N, H, W, 3) in 0..255. labels_path: numbers (N, K), one row a picture, as
    `VectorEncoder` takes them. The student course that this one grew out of has 89,400 pictures of
    16x16 and K = 5 (hero, non-hero, food, spell, side-facing; one-hot or mixed).
    Raises FileNotFoundError, or ValueError for a file that is no such array or does not match the
    other. Nothing is unpickled: opening a file runs no code from it.
    """

    def __init__(self, images_path: str | Path, labels_path: str | Path) -> None:
        self.path = Path(images_path)
        self.images = open_array(images_path, "pictures")  # (N, H, W, 3)
        labels = open_array(labels_path, "labels")  # (N, K)
        shape, dtype = self.images.shape, self.images.dtype
        if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8:
            holds = f"but holds {dtype} of shape {shape}"
            raise ValueError(f"{images_path} should hold pictures, uint8 (N, H, W, 3), {holds}")
        if labels.ndim != 2 or labels.dtype.kind not in "biuf":
            holds = f"but holds {labels.dtype} of shape {labels.shape}"
            raise ValueError(f"{labels_path} should hold a row of numbers a picture, {holds}")
        n, m = len(self.images), len(labels)
        if n != m:
            names = f"{n} pictures in {images_path}, but {m} labels in {labels_path}"
            raise ValueError(f"{names}: are they a pair?")
        self.labels = torch.from_numpy(labels.astype(np.float64)).float()  # (N, K), in memory
        if not self.labels.isfinite().all():
            raise ValueError(f"some labels in {labels_path} are NaN, infinite or beyond float32")
        self.bytes = self.path.stat().st_size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """A picture (3, H, W) in [-1, 1] and its vector (K,)."""
        images, vectors = self.batch([index])
        return images[0], vectors[0]

    def batch(self, rows: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """A ready batch in one gather: float32 (B, 3, H, W) in [-1, 1] and float32 (B, K)."""
        rows = integers("rows", rows, -len(self), len(self) - 1).flatten()
        if os.stat(self.path).st_size < self.bytes:  # reading on would end the process
            raise ValueError(f"{self.path} has become shorter since it was opened")
        images = torch.from_numpy(self.images[rows.numpy()]).permute(0, 3, 1, 2)
        return to_float(images).contiguous(), self.labels[rows]


def open_array(path: str | Path, what: str) -> np.ndarray:
    """A non-empty `.npy` file as a read-only array whose numbers stay on disk."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of {what} at {path}")
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # knows neither pickles nor archives
    except PermissionError as error:
        raise OSError(f"you may not read {path}") from error
    except Exception as error:  # a damaged header makes NumPy stumble in many ways
        what = "a pickle, an .npz archive, objects inside, cut short or empty?"
        raise ValueError(f"{path} is no plain .npy array ({what}): {error}") from error
    if array.size == 0:
        raise ValueError(f"{path} holds no {what}: its shape is {array.shape}")
    return array.view(np.ndarray)
