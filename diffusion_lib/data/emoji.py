"""Real pictures: 1,069 things, each drawn by two to six artists. Credits: emoji/NOTICE.md.

A picture is a *cell*, a thing in a style, before a coloured background. Some cells are held out:
their thing is shown in other styles and their style with other things, never the two together.
And some things are in no training picture at all.
"""

import difflib
import re
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffusion_lib.data.art import rgb, to_float
from diffusion_lib.data.captioned import Captioned
from diffusion_lib.guards import texts, whole
from diffusion_lib.noise import seeded
from diffusion_lib.text import Tokenizer

FOLDER = Path(__file__).with_name("emoji")
SIZE = 64
STYLES = ("flat", "soft", "noto", "blob", "twemoji", "classic")
GROUND_CODES = {
    "white": "ffffff",
    "black": "1c1c22",
    "grey": "9a9aa2",
    "red": "c8383c",
    "orange": "f0903c",
    "yellow": "f8dc6c",
    "green": "58a862",
    "blue": "4878c8",
    "purple": "8458b0",
    "pink": "f4a8c4",
}
GROUNDS = tuple(GROUND_CODES)
COLOURS = to_float(rgb("".join(GROUND_CODES.values())))  # (10, 3) in [-1, 1]
STYLE = re.compile(rf"\b(?:in )?({'|'.join(STYLES)}) style\b")
GROUND = re.compile(rf"\bon (?:an? )?({'|'.join(GROUNDS)})(?: background)?\b")


def chance(*names: str) -> float:
    """A number in [0, 1) that depends on the names alone, so that more things change no choice."""
    return zlib.crc32("/".join(names).encode()) / 2**32


def read_table() -> dict[str, tuple[str, ...]]:
    """{thing: the styles it is drawn in}, from things.tsv; "t-shirt" keeps its hyphen."""
    rows = (FOLDER / "things.tsv").read_text(encoding="utf-8").splitlines()
    table = dict(row.split("\t") for row in rows)
    return {re.sub("(?<!^.)-", " ", name): tuple(styles.split()) for name, styles in table.items()}


TABLE = read_table()
THINGS = tuple(TABLE)
NEVER = frozenset(thing for thing in THINGS if chance(thing) < 0.04)  # in no training picture
HELD_OUT = frozenset(
    (thing, style)
    for thing, styles in TABLE.items()
    for style in styles
    if thing not in NEVER and len(styles) >= 4 and chance(thing, style) < 0.125
)


class Words(NamedTuple):
    """What a caption says; None for what it leaves out."""

    thing: str
    style: str | None = None
    ground: str | None = None


# What has no article: stuff, games, names, and what is several
BARE = frozenset(
    "bacon badminton bowling bread broccoli butter camping claus coral corn dna fire fog "
    "food garlic hockey ice lacrosse lightning maracas money music paella paper people popcorn "
    "rice sake salt skis soap soup spaghetti sushi tennis thread yarn".split()
)

# what follows says more of it
TAIL = " (?:with|in|of|on|over|and|holding|lifting|covering|crossing|licking) "


def with_article(thing: str) -> str:
    """ "an octopus", "a unicorn", "grapes"."""
    first, last = thing.split()[0], re.split(TAIL, thing)[0].split()[-1]
    several = last.endswith("s") and not last.endswith(("ss", "us", "is", "as", "os"))
    if several or last in BARE or first in ("men", "people", "women"):
        return thing
    vowel = thing[0] in "aeiou" and not thing.startswith(("uni", "euro", "one", "ewe"))
    return f"{'an' if vowel or thing.startswith(('x-', '8', 'hour')) else 'a'} {thing}"


def caption(words: Words, order: Sequence[int] = (0, 1, 2), short: bool = False) -> str:
    """ "an octopus, blob style, on a blue background"; order permutes the three parts.

    short: "octopus in blob style on blue".
    """
    thing, style, ground = words
    if short:
        parts = [thing, style and f"in {style} style", ground and f"on {ground}"]
        return " ".join(part for part in parts if part)
    wide = ground and f"on {'an' if ground == 'orange' else 'a'} {ground} background"
    parts = [with_article(thing), style and f"{style} style", wide]
    return ", ".join(parts[i] for i in order if parts[i])


def parse(prompt: str) -> Words:
    """What a caption names. Raises ValueError, in the prompt's own words, for what is unknown."""
    rest, found = " ".join(Tokenizer.split(texts([prompt])[0])), []
    for pattern in (STYLE, GROUND):
        hits = pattern.findall(rest)
        if len(hits) > 1:
            raise ValueError(f"'{prompt}' names two: {hits[0]} and {hits[1]}")
        found.append(hits[0] if hits else None)
        rest = " ".join(pattern.sub(" ", rest).split())
    thing = rest if rest in TABLE else re.sub(r"^an? ", "", rest)
    if thing not in TABLE:
        near = difflib.get_close_matches(thing, THINGS, n=2, cutoff=0.5)
        meant = f"did you mean {' or '.join(map(repr, near))}?" if near else "see Emoji.things"
        raise ValueError(f"there is no thing called {thing!r}: {meant}")
    return Words(thing, *found)


@cache
def sheets() -> tuple[Tensor, dict[tuple[str, str], int]]:
    """All pictures, uint8 (N, 4, 64, 64), straight colours and alpha; {(thing, style): row}."""
    tiles, rows = [], {}
    for style in STYLES:
        names = [thing for thing, styles in TABLE.items() if style in styles]
        with Image.open(FOLDER / f"{style}.webp") as file:
            sheet = torch.from_numpy(np.array(file.convert("RGBA")))
        tile = sheet.unflatten(1, (-1, SIZE)).unflatten(0, (-1, SIZE))  # (rows, 64, columns, 64, 4)
        tile = tile.permute(0, 2, 4, 1, 3).flatten(0, 1)[: len(names)]
        rows |= {(thing, style): len(rows) + i for i, thing in enumerate(names)}
        tiles.append(tile)
    return torch.cat(tiles).contiguous(), rows


def composed(pictures: Tensor, colours: Tensor) -> Tensor:
    """Straight colours and alpha over a background, (B, 3, H, W) in [-1, 1].

    pictures: uint8 (B, 4, H, W); colours: (B, 3) in [-1, 1]. alpha · colour + (1 - alpha) · background. (Porter & Duff 1984, "over")
    """
    alpha = pictures[:, 3:].float() / 255
    return alpha * to_float(pictures[:, :3]) + (1 - alpha) * colours[:, :, None, None]


def cell(words: Words) -> tuple[int, int, int]:
    """The numbers of a thing, a style and a ground that are all named."""
    return THINGS.index(words.thing), STYLES.index(words.style), GROUNDS.index(words.ground)


def draw(cells: Tensor) -> Tensor:
    """The artists' own pictures of cells (B, 3), thing, style and ground: (B, 3, 64, 64)."""
    tiles, rows = sheets()
    which = [rows[THINGS[thing], STYLES[style]] for thing, style, _ in cells.tolist()]
    return composed(tiles[which], COLOURS[cells[:, 2]])


class Emoji(Captioned):
    """Captioned pictures: every cell that is not held out, before each of ten backgrounds.

    `cells` (n, 3): thing, style and ground of picture i; its caption leaves some of it out, never
    the thing. size: 64, or 32 or 16, averaged. The same seed gives the same captions.
    """

    things, styles, grounds = THINGS, STYLES, GROUNDS
    words = sorted(
        {word for thing in THINGS for word in Tokenizer.split(with_article(thing))}
        | {*STYLES, *GROUNDS, *"a an in on style background".split()}
    )

    def __init__(self, size: int = SIZE, seed: int = 0) -> None:
        if size not in (16, 32, 64):
            raise ValueError(f"size is 64, 32 or 16, not {size!r}")
        self.size, self.tiles, self.row = size, *sheets()
        seen = [
            (THINGS.index(thing), STYLES.index(style))
            for thing, style in self.row
            if thing not in NEVER and (thing, style) not in HELD_OUT
        ]
        cells = torch.tensor(seen).repeat_interleave(len(GROUNDS), dim=0)
        grounds = torch.arange(len(GROUNDS)).repeat(len(seen))
        self.cells = torch.cat([cells, grounds[:, None]], dim=1)
        self.captions = captions(self.cells, seeded(seed))

    def pictures(self, rows: Tensor) -> Tensor:
        return self.draw(self.cells[rows])

    def draw(self, cells: Tensor) -> Tensor:
        """Cells (B, 3) as pictures (B, 3, size, size) in [-1, 1], held-out ones too."""
        return F.avg_pool2d(draw(cells), SIZE // self.size)

    def render(self, prompt: str, seed: int = 0) -> Tensor:
        """The artist's own picture of a prompt, (3, size, size); what it does not name is random."""
        thing, style, ground = parse(prompt)
        generator = seeded(seed)
        drawn = TABLE[thing]
        if style and style not in drawn:
            raise ValueError(f"nobody drew {thing!r} in {style} style: {', '.join(drawn)}")
        style = style or drawn[torch.randint(len(drawn), (), generator=generator)]
        ground = ground or GROUNDS[torch.randint(len(GROUNDS), (), generator=generator)]
        return self.draw(torch.tensor([cell(Words(thing, style, ground))]))[0]

    @staticmethod
    def held_out_prompts(n: int, seed: int = 0) -> list[str]:
        """`n` full captions of cells that no training picture shows."""
        return prompts(sorted(HELD_OUT), n, seed)

    @staticmethod
    def seen_prompts(n: int, seed: int = 0) -> list[str]:
        """`n` full captions of cells that training pictures show."""
        cells = [(thing, style) for thing, styles in TABLE.items() for style in styles]
        return prompts([c for c in cells if c[0] not in NEVER and c not in HELD_OUT], n, seed)

    @staticmethod
    def never_prompts(n: int, seed: int = 0) -> list[str]:
        """`n` full captions of things that are in no training picture, in any style."""
        return prompts([(thing, s) for thing in sorted(NEVER) for s in TABLE[thing]], n, seed)


def captions(cells: Tensor, generator: torch.Generator) -> list[str]:
    """Captions of cells (n, 3), in several wordings; one in ten has no style, one in ten no ground."""
    n = len(cells)
    kept = (torch.rand(n, 2, generator=generator) < 0.9).tolist()
    orders = torch.rand(n, 3, generator=generator).argsort(dim=1)
    usual = torch.rand(n, 1, generator=generator) < 0.6
    orders = torch.where(usual, torch.arange(3), orders).tolist()
    shorts = (torch.rand(n, generator=generator) < 0.2).tolist()
    told = []
    for (thing, style, ground), keep, order, short in zip(cells.tolist(), kept, orders, shorts):
        style, ground = keep[0] and STYLES[style] or None, keep[1] and GROUNDS[ground] or None
        told.append(caption(Words(THINGS[thing], style, ground), order, short))
    return told


def prompts(cells: Sequence[tuple[str, str]], n: int, seed: int) -> list[str]:
    """`n` full captions, evenly spread over the cells."""
    n, generator = whole("n", n, 1), seeded(seed)
    order = torch.randperm(len(cells), generator=generator)[torch.arange(n) % len(cells)]
    grounds = torch.randint(len(GROUNDS), (n,), generator=generator).tolist()
    return [caption(Words(*cells[i], GROUNDS[g])) for i, g in zip(order.tolist(), grounds)]
