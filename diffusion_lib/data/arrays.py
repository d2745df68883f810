"""Pictures and labels from two NumPy files: the original course's sprites, or your own."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion_lib.data.art import to_float


class ArrayImages(Dataset):
    """A pair of `.npy` files, memory-mapped: of a large file only the pictures asked for are read.

    images_path: uint8 (N, H, W, 3) in 0..255; the original course's are (N, 16, 16, 3).
    labels_path: numbers (N, K), one row a picture; the original course's K = 5 are hero, non-hero,
    food, spell, side-facing, one-hot or mixed, as `VectorEncoder` takes them.
    Raises FileNotFoundError, or ValueError for a file that is no such array or does not match the
    other. Nothing is unpickled: opening a file runs no code from it.
    """

    def __init__(self, images_path: str | Path, labels_path: str | Path) -> None:
        self.images = open_array(images_path, "pictures")  # (N, H, W, 3)
        self.labels = open_array(labels_path, "labels")  # (N, K)
        shape, dtype = self.images.shape, self.images.dtype
        if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8:
            raise ValueError(
                f"{images_path} should hold pictures, uint8 of shape (N, H, W, 3), "
                f"but holds {dtype} of shape {shape}"
            )
        if self.labels.ndim != 2 or self.labels.dtype.kind not in "biuf":
            raise ValueError(
                f"{labels_path} should hold a row of numbers a picture, of shape (N, 5), "
                f"but holds {self.labels.dtype} of shape {self.labels.shape}"
            )
        if len(self.labels) != len(self.images):
            raise ValueError(
                f"{len(self.images)} pictures in {images_path}, but {len(self.labels)} labels in "
                f"{labels_path}: are they a pair?"
            )
        if not np.isfinite(self.labels).all():
            raise ValueError(f"some labels in {labels_path} are NaN or infinite")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """A picture (3, H, W) in [-1, 1] and its vector (K,)."""
        images, vectors = self.__getitems__([index])
        return images[0], vectors[0]

    def __getitems__(self, indices: list[int] | Tensor) -> tuple[Tensor, Tensor]:
        """A ready batch in one gather: float32 (B, 3, H, W) in [-1, 1] and float32 (B, K)."""
        rows = np.asarray(indices, dtype=np.int64)
        images = torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2)
        vectors = torch.from_numpy(self.labels[rows].astype(np.float32))
        return to_float(images).contiguous(), vectors


def open_array(path: str | Path, what: str) -> np.ndarray:
    """A non-empty `.npy` file as a read-only array whose numbers stay on disk."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of {what} at {path}")
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # knows neither pickles nor archives
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{path} is no plain .npy array (a pickle, an .npz archive, objects inside, cut short "
            f"or empty?): {error}"
        ) from error
    if array.size == 0:
        raise ValueError(f"{path} holds no {what}: its shape is {array.shape}")
    return array.view(np.ndarray)
