"""What `train` trains: for each kind of data, a fresh model, its batches, and samples to show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from diffusion_lib.autoencoder import Autoencoder, AutoencoderConfig
from diffusion_lib.data.captioned import Captioned
from diffusion_lib.data.emoji import Emoji
from diffusion_lib.data.folder import Folder
from diffusion_lib.data.latents import Latents
from diffusion_lib.data.sprites import Sprites
from diffusion_lib.images import tile
from diffusion_lib.judge import Judge, Lessons
from diffusion_lib.noise import seeded
from diffusion_lib.pipeline import (
    TextToImage,
    as_json,
    latent_config,
    load_autoencoder,
    load_pretrained,
    sprite_config,
)
from diffusion_lib.text import Tokenizer


@dataclass
class Recipe:
    """What `runs.Run` is told, but for name, length and learning rate."""

    data: Captioned | Lessons
    model: nn.Module
    config: dict  # what the checkpoint says of the model
    show: Callable[[nn.Module], Image.Image]  # samples, on one sheet


def pictures_of(data: str, seed: int, size: int) -> tuple[Captioned, list[str]]:
    """A data set by name, or a folder's; and 16 prompts for samples, unseen ones where there are."""
    if data in ("sprites", "emoji"):
        pictures = Sprites(seed=seed) if data == "sprites" else Emoji(size, seed)
        return pictures, pictures.held_out_prompts(16, seed=seed)
    pictures = Folder(data, size)
    return pictures, (pictures.captions * 16)[:16]


def sprites(seed: int = 0) -> Recipe:
    """The sprite model, which paints in pixels."""
    data, prompts = pictures_of("sprites", seed, 16)
    config = sprite_config(data.words)
    torch.manual_seed(seed % 2**63)  # the fresh weights
    return Recipe(data, TextToImage.from_config(config), config, samples(prompts, seed, scale=8))


def painter(
    data: str,
    seed: int = 0,
    size: int = 64,
    text: str = "words",
    autoencoder: str | Path = "emoji",
    start: str | Path | None = None,
    device: str = "cpu",
) -> Recipe:
    """A model that paints such pictures in the latents of a trained autoencoder.

    data: "emoji" or a folder; text: "words", learned from the captions, or "minilm"; autoencoder:
    a shipped model or a checkpoint's path. The latents are scaled by what these pictures need.
    start: a model to go on from, instead of fresh weights; then all but the data are as it has them.
    """
    pictures, prompts = pictures_of(data, seed, size)
    trained = load_autoencoder(autoencoder if start is None else start).to(device)
    if start is None:
        some = torch.randperm(len(pictures), generator=seeded(seed))[:2048]
        trained.measure_scale(pictures.batch(rows)[0].to(device) for rows in some.split(256))
    latents = Latents(pictures, trained)
    if start is None:
        words = None if text == "minilm" else pictures.words
        longest = max(len(Tokenizer.split(caption)) for caption in pictures.captions)
        side = latents.latents.shape[-1]
        config = latent_config(trained.config, side, words, max(32, longest + 1))
        torch.manual_seed(seed % 2**63)
        model = TextToImage.from_config(config)
        model.autoencoder.load_state_dict(trained.state_dict())
        model.autoencoder.requires_grad_(False)
    else:
        model = load_pretrained(start)
        model.tokenizer(pictures.captions)  # a word that it does not know is told now
        model.denoiser.requires_grad_(True)
        model.text_encoder.requires_grad_(True)
    return Recipe(latents, model, model.config, samples(prompts, seed, scale=2))


def autoencoder(data: str, seed: int = 0, size: int = 64) -> Recipe:
    """An autoencoder of such pictures; its samples: eight of them, and what it makes of them."""
    pictures, _ = pictures_of(data, seed, size)
    torch.manual_seed(seed % 2**63)
    model = Autoencoder(AutoencoderConfig((48, 96), fold=2))
    real, _ = pictures.batch(torch.linspace(0, len(pictures) - 1, 8).long())

    @torch.no_grad()
    def show(model: Autoencoder) -> Image.Image:
        again = model.decode(model.encode(real.to(model.scale.device)))
        return tile(torch.cat([real, again.cpu().clamp(-1, 1)]), columns=8, scale=2)

    return Recipe(pictures, model, {"autoencoder": as_json(model.config)}, show)


def judge(seed: int = 0, autoencoder: str | Path = "emoji", device: str = "cpu") -> Recipe:
    """The judge of emoji; its samples: the 32 lessons, of 512, of which it is the least sure."""
    data = Lessons(load_autoencoder(autoencoder).to(device), seed=seed)
    torch.manual_seed(seed % 2**63)
    model = Judge()
    images, things, _ = data.batch(torch.arange(0, len(data), len(data) // 512))

    @torch.no_grad()
    def show(model: Judge) -> Image.Image:
        said = model(images.to(next(model.parameters()).device))[0].log_softmax(1).cpu()
        sure = said[torch.arange(len(things)), things]
        return tile(images[sure.argsort()[:32]].clamp(-1, 1), columns=8, scale=2)

    return Recipe(data, model, as_json(model.config), show)


def samples(prompts: Sequence[str], seed: int, scale: int) -> Callable[[TextToImage], Image.Image]:
    def show(model: TextToImage) -> Image.Image:
        return tile(model.generate(prompts, seed=seed), scale=scale)

    return show
