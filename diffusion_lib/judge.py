"""A judge of emoji: what is drawn here, and by whom? It never meets the painter."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.data.emoji import STYLES, THINGS, parse
from diffusion_lib.guards import pictures
from diffusion_lib.layers import Downsample, ResidualBlock


@dataclass(frozen=True)
class Verdict:
    """For each picture, whether the judge sees what its prompt names."""

    thing: Tensor  # (B,) bool
    style: Tensor

    @property
    def both(self) -> Tensor:
        return self.thing & self.style


class Judge(nn.Module):
    """Pictures (B, 3, 64, 64) -> logits of things (B, 1343) and of styles (B, 6)."""

    def __init__(self, channels: tuple[int, ...] = (32, 64, 96, 128), groups: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, channels[0], 3, padding=1)]
        width = channels[0]
        for c in channels:  # 32 x 32, then half of it each time
            layers += [ResidualBlock(width, c, None, groups), Downsample(c)]
            width = c
        layers += [nn.GroupNorm(groups, width), nn.SiLU()]
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
        """Cross-entropy of both; things and styles: (B,) integers."""
        thing, style = self(x)
        return F.cross_entropy(thing, things) + F.cross_entropy(style, styles)

    @torch.no_grad()
    def verdict(self, images: Tensor, prompts: list[str]) -> Verdict:
        """Does each picture show the thing and the style that its prompt names? (B, 3, 64, 64)"""
        named = [parse(prompt) for prompt in prompts]
        thing, style = self(pictures("images", images))
        wanted = torch.tensor([THINGS.index(words.thing) for words in named])
        right = thing.argmax(1).cpu() == wanted
        styles = [words.style for words in named]
        likely = style.argmax(1).tolist()
        fits = [s is None or STYLES[i] == s for s, i in zip(styles, likely)]
        return Verdict(right, torch.tensor(fits))
