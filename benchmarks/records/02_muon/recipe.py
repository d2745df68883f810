"""620 steps of Muon, asked for the flow, at times from the middle; the two cores share each batch."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from diffusion_lib import TextToImage, shuffled, train
from diffusion_lib.muon import Muon
from diffusion_lib.noise import seeded
from diffusion_lib.pipeline import sprite_config

SAMPLING = {"steps": 20, "guidance": 2.0}
WORKERS = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))


class InHalves(TextToImage):
    """A core for each half of a batch, forwards and backwards, instead of two for each operation."""

    def loss(self, x0, captions, generator=None):
        seeds = torch.randint(2**62, (2,), generator=generator).tolist()

        def half(i):
            loss = super(InHalves, self).loss(x0[i::2], captions[i::2], seeded(seeds[i]))
            (loss / 2).backward()  # adds to the gradients that the other half adds to
            return loss.detach()

        return torch.stack(list(WORKERS.map(half, range(2)))).mean().requires_grad_()


def run(data, seed, steps=620):
    torch.set_num_threads(1)
    torch.manual_seed(seed)  # the fresh weights
    config = sprite_config(data.words) | {"prediction": "flow", "times": "logit-normal"}
    model = InHalves.from_config(config)
    model.drop = 0.05
    model.to(memory_format=torch.channels_last)
    return train(
        model, shuffled(data, 64, seed), steps=steps, lr=4e-3, warmup=50, decay=0.99, seed=seed,
        optimiser=partial(Muon, map=WORKERS.map),
    )  # fmt: skip
