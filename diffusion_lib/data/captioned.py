"""What all captioned data sets have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion_lib.guards import integers


class Captioned(Dataset):
    """Pictures and `captions`, one by one or a ready batch at once; a subclass has `pictures`."""

    captions: list[str]

    def pictures(self, rows: Tensor) -> Tensor:
        """Those of these row numbers (B,): float32 (B, C, H, W)."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return self.pictures(torch.tensor([index]))[0], self.captions[index]

    def batch(self, rows: Sequence[int] | Tensor) -> tuple[Tensor, list[str]]:
        """A ready batch in one gather: pictures (B, C, H, W), in [-1, 1], and captions."""
        rows = integers("rows", rows, -len(self), len(self) - 1).flatten()
        return self.pictures(rows), [self.captions[i] for i in rows.tolist()]
