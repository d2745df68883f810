"""A data set's pictures as latents: encoded once, then trained on at a fraction of the price."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from diffusion_lib.autoencoder import Autoencoder
from diffusion_lib.cores import by_core
from diffusion_lib.guards import integers


class Latents(Dataset):
    """`latents` (n, C, h, w), in half precision on the CPU, and the captions of `data`."""

    @torch.no_grad()
    def __init__(self, data: Dataset, autoencoder: Autoencoder, batch_size: int = 256) -> None:
        """data: with `captions` and `batch(rows)`; autoencoder: trained, on any device."""
        device, n = autoencoder.scale.device, len(data)
        self.captions, found = data.captions, []
        with tqdm(total=n, desc="encoding pictures", unit="picture", disable=None) as bar:
            for start in range(0, n, batch_size):
                rows = torch.arange(start, min(start + batch_size, n))
                images, _ = data.batch(rows)
                found.append(by_core(autoencoder.encode, images.to(device)).half().cpu())
                bar.update(len(rows))
        self.latents = torch.cat(found)

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return self.latents[index].float(), self.captions[index]

    def batch(self, rows: Sequence[int] | Tensor) -> tuple[Tensor, list[str]]:
        """A ready batch: latents (B, C, h, w), captions."""
        rows = integers("rows", rows, -len(self), len(self) - 1).flatten()
        return self.latents[rows].float(), [self.captions[i] for i in rows.tolist()]
