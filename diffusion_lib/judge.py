"""Judges of emoji: what is drawn here, and by whom? They never meet the painter.

`Judge` is a network that has learned to name all real pictures, held-out ones too; `Gallery` looks
for the nearest real picture and has learned nothing. What fools one need not fool the other.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from diffusion_lib.autoencoder import Autoencoder
from diffusion_lib.cores import by_core
from diffusion_lib.data.art import to_float
from diffusion_lib.data.emoji import COLOURS, GROUNDS, STYLES, THINGS, composed, parse, sheets
from diffusion_lib.guards import pictures
from diffusion_lib.images import to_uint8
from diffusion_lib.layers import Downsample, ResidualBlock
from diffusion_lib.noise import seeded
from diffusion_lib.pipeline import restored


class Verdict(NamedTuple):
    """For each picture, (B,) bool: does the judge see what its prompt names?"""

    thing: Tensor
    style: Tensor

    @property
    def both(self) -> Tensor:
        return self.thing & self.style


def verdict(things: Tensor, styles: Tensor, prompts: list[str]) -> Verdict:
    """Of what a judge has seen, (B,) integers each; a style that a prompt leaves open is right."""
    named = [parse(prompt) for prompt in prompts]
    thing = [THINGS[i] == words.thing for i, words in zip(things.tolist(), named)]
    style = [words.style in (None, STYLES[i]) for i, words in zip(styles.tolist(), named)]
    return Verdict(torch.tensor(thing), torch.tensor(style))


@dataclass(frozen=True)
class JudgeConfig:
    channels: tuple[int, ...] = (32, 64, 128, 192)  # one entry a level, from 32 x 32 downwards
    groups: int = 8


class Judge(nn.Module):
    """Pictures (B, 3, 64, 64) -> logits of things (B, 1069) and of styles (B, 6)."""

    def __init__(self, config: JudgeConfig = JudgeConfig()) -> None:
        super().__init__()
        self.config = config
        width = config.channels[0]
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, padding=1)]
        for i, c in enumerate(config.channels):
            layers += [Downsample(width)] * bool(i) + [ResidualBlock(width, c, None, config.groups)]
            width = c
        layers += [nn.GroupNorm(config.groups, width), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.things = nn.Linear(width, len(THINGS))
        self.styles = nn.Linear(width, len(STYLES))

    def features(self, x: Tensor) -> Tensor:
        """(B, D): what it sees in a picture, before it names it."""
        return self.body(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x)
        return self.things(h), self.styles(h)

    def loss(
        self, x: Tensor, things: Tensor, styles: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Cross-entropy of both, that of the things smoothed; things and styles: (B,) integers."""
        thing, style = self(x)
        return F.cross_entropy(thing, things, label_smoothing=0.1) + F.cross_entropy(style, styles)

    @torch.no_grad()
    def verdict(self, images: Tensor, prompts: list[str]) -> Verdict:
        """images: (B, 3, 64, 64) in [-1, 1]."""
        answers = [self(some) for some in pictures("images", images).split(256)]
        things, styles = (torch.cat(a).argmax(1).cpu() for a in zip(*answers))
        return verdict(things, styles, prompts)


def load_judge(name: str | Path = "judge") -> Judge:
    """The shipped judge, or one from a checkpoint file."""

    def build(config: dict, weights: dict) -> Judge:
        with torch.device("meta"):
            return Judge(JudgeConfig(tuple(config["channels"]), config["groups"]))

    return restored(name, build)


class Gallery:
    """The second judge: the nearest of all real pictures, each pixel of 16 x 16 compared."""

    def __init__(self) -> None:
        tiles, self.rows = sheets()
        self.things = torch.tensor([THINGS.index(thing) for thing, _ in self.rows])
        self.styles = torch.tensor([STYLES.index(style) for _, style in self.rows])
        none, drawn, clear = torch.zeros(1, 3), [], []
        for part in tiles.split(64):  # alpha · colour and 1 - alpha; averages of both will do
            drawn.append(small(composed(part, none)))
            clear.append(small(1 - part[:, 3:].float() / 255))
        self.drawn, self.clear = torch.cat(drawn).unflatten(1, (3, -1)), torch.cat(clear)[:, None]

    def before(self, ground: Tensor) -> Tensor:
        """All real pictures on a ground of this colour, (3,): (N, 768)."""
        return (self.drawn + self.clear * ground[:, None]).flatten(1)

    def distances(self, images: Tensor, prompts: list[str]) -> Tensor:
        """(B, N): root mean square over pixels, from each real picture before the prompt's ground."""
        grounds = [parse(prompt).ground for prompt in prompts]
        if None in grounds:
            raise ValueError(f"{prompts[grounds.index(None)]!r} names no background")
        answers = torch.empty(len(images), len(self.things))
        grounds = torch.tensor([GROUNDS.index(ground) for ground in grounds])
        for ground in grounds.unique():
            its = grounds == ground
            answers[its] = torch.cdist(small(images[its].cpu()), self.before(COLOURS[ground]))
        return answers / self.drawn[0].numel() ** 0.5

    def verdict(self, images: Tensor, prompts: list[str]) -> Verdict:
        """images: (B, 3, 64, 64) in [-1, 1]."""
        nearest = self.distances(images, prompts).argmin(1)
        return verdict(self.things[nearest], self.styles[nearest], prompts)


def small(images: Tensor) -> Tensor:
    """(B, C, 64, 64) -> (B, C · 256)."""
    return F.avg_pool2d(images, 4).flatten(1)


class Lessons:
    """For the judge: each real picture before a ground of any colour, a little turned, moved and
    resized, noisy or blurred; every other one has been through the autoencoder.

    What is random depends on the batch's row numbers alone, so that training can be resumed.
    """

    def __init__(self, autoencoder: Autoencoder, copies: int = 3, seed: int = 0) -> None:
        """copies: trips through the autoencoder that are kept of each picture."""
        self.tiles, self.names = sheets()
        self.copies = copies
        self.things = torch.tensor([THINGS.index(thing) for thing, _ in self.names])
        self.styles = torch.tensor([STYLES.index(style) for _, style in self.names])
        kept, generator = [], seeded(seed)
        some = torch.arange(copies * len(self.tiles)).split(256)
        for which in tqdm(some, desc="trips through the autoencoder", disable=None):
            drawn = self.drawn(which % len(self.tiles), generator)
            with torch.no_grad():
                kept.append(
                    to_uint8(by_core(lambda x: autoencoder.decode(autoencoder.encode(x)), drawn))
                )
        self.kept = torch.cat([torch.from_numpy(k) for k in kept]).permute(0, 3, 1, 2)

    def drawn(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Real pictures (B, 3, 64, 64), changed in place and size."""
        n = len(rows)
        u = torch.rand(n, 7, generator=generator) * 2 - 1
        angle, zoom, shift = u[:, 0] * 0.12, 1.05 + 0.1 * u[:, 1], 0.08 * u[:, 2:4]
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        moves = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(n, 2, 3)
        grid = F.affine_grid(moves, [n, 4, 64, 64], align_corners=False)
        tiles = self.tiles[rows].float()
        tiles[:, :3] *= tiles[:, 3:] / 255  # premultiplied: what is transparent has no colour
        tiles = F.grid_sample(tiles, grid, align_corners=False)
        alpha = tiles[:, 3:] / 255
        grounds = torch.where(  # every other one the data set's own
            torch.rand(n, 1, generator=generator) < 0.5,
            COLOURS[torch.randint(len(GROUNDS), (n,), generator=generator)],
            u[:, 4:],
        )
        return to_float(tiles[:, :3]) + (1 - alpha) * (grounds[:, :, None, None] + 1)

    def __len__(self) -> int:
        return len(self.tiles)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, things and styles."""
        generator = seeded(zlib.crc32(rows.numpy().tobytes()))
        n = len(rows)
        copy = torch.randint(self.copies, (n,), generator=generator) * len(self.tiles)
        tripped, noisy, blurred = torch.rand(3, n, 1, 1, 1, generator=generator) < 0.5
        x = torch.where(tripped, to_float(self.kept[rows + copy]), self.drawn(rows, generator))
        x = torch.where(blurred & ~noisy, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), x)
        x = x + noisy * 0.1 * torch.randn(x.shape, generator=generator)
        return x, self.things[rows], self.styles[rows]
