"""A data set's pictures as latents: encoded once, then trained on at a fraction of the price."""

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion_lib.autoencoder import Autoencoder
from diffusion_lib.cores import by_core
from diffusion_lib.data.captioned import Captioned


class Latents(Captioned):
    """`latents` (n, C, h, w), in half precision on the CPU, and the captions of `data`."""

    @torch.no_grad()
    def __init__(self, data: Captioned, autoencoder: Autoencoder, batch_size: int = 256) -> None:
        """autoencoder: trained, on any device."""
        device, n = autoencoder.scale.device, len(data)
        self.captions, found = data.captions, []
        with tqdm(total=n, desc="encoding pictures", unit="picture", disable=None) as bar:
            for start in range(0, n, batch_size):
                rows = torch.arange(start, min(start + batch_size, n))
                images, _ = data.batch(rows)
                found.append(by_core(autoencoder.encode, images.to(device)).half().cpu())
                bar.update(len(rows))
        self.latents = torch.cat(found)

    def pictures(self, rows: Tensor) -> Tensor:
        return self.latents[rows].float()
