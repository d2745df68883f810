"""1,900 steps of AdamW: how the sprite model was trained at first."""

import torch

from diffusion_lib import TextToImage, shuffled, train
from diffusion_lib.pipeline import sprite_config

SAMPLING = {"steps": 20, "guidance": 2.0}


def run(data, seed):
    torch.manual_seed(seed)  # the fresh weights
    config = sprite_config(data.words) | {"prediction": "v", "times": "uniform"}
    model = TextToImage.from_config(config)
    model.to(memory_format=torch.channels_last)
    return train(model, shuffled(data, 64, seed), steps=1900, lr=2e-3, seed=seed)
