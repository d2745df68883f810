"""Sprites: captioned pixel art, and the little language of its captions."""

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion_lib.data.art import (
    ACCESSORIES,
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    FACINGS,
    KINDS,
    SIDERS,
    WEARERS,
    draw,
    enlarge,
    to_float,
)
from diffusion_lib.guards import integers, texts, whole
from diffusion_lib.noise import seeded
from diffusion_lib.text import Tokenizer

# Two colours of each kind never appear in training: number of the kind + of the colour = 4k.
HELD_OUT = frozenset(
    (kind, colour)
    for i, kind in enumerate(KINDS)
    for j, colour in enumerate(COLOURS)
    if (i + j) % 4 == 0
)


class Attributes(NamedTuple):
    """What a prompt names, or what a picture shows; None is "not named" or "has none"."""

    kind: str
    colour: str | None = None
    accessory: str | None = None
    accessory_colour: str | None = None
    facing: str | None = None
    background: str | None = None


# A picture's attributes are a row of six numbers: positions in these tuples, or -1 for None.
NAMES = [(*n, None) for n in (KINDS, COLOURS, ACCESSORIES, COLOURS, FACINGS, BACKGROUNDS)]
SEEN = torch.tensor(  # (K, 6): each kind's colours in training
    [[j for j, c in enumerate(COLOURS) if (kind, c) not in HELD_OUT] for kind in KINDS]
)
WORDS = sorted(
    {*KINDS, *COLOURS, *ACCESSORIES, *FACINGS, "a", "an", "facing", "with"}.union(
        *(phrase.split() for phrase in BACKGROUNDS.values())
    )
)
_colours = f"((?:(?:{'|'.join(COLOURS)}) )*)"  # any number, so that two can be complained of
HEAD = re.compile(rf"(?:an? )?{_colours}({'|'.join(KINDS)})(?: |$)")
PHRASE = re.compile(
    rf"(?:with (?:an? )?{_colours}({'|'.join(ACCESSORIES)})"
    rf"|facing (left|right)|({'|'.join(BACKGROUNDS.values())}))(?: |$)"
)


def article(words: str) -> str:
    """The words after "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(
    attributes: Attributes, order: tuple[int, ...] = (0, 1, 2), with_article: bool = True
) -> str:
    """The attributes in words: "an orange knight with a blue shield at night".

    `order` permutes the trailing phrases: 0 accessory, 1 facing, 2 background.
    """
    kind, colour, item, item_colour, facing, background = attributes
    subject = f"{colour} {kind}" if colour else kind
    item = f"{item_colour} {item}" if item_colour else item
    phrases = (
        item and f"with {article(item)}",
        facing and f"facing {facing}",
        background and BACKGROUNDS[background],
    )
    said = [article(subject) if with_article else subject]
    return " ".join(said + [phrases[i] for i in order if phrases[i]])


def parse(prompt: str) -> Attributes:
    """What the prompt names: [a] [colour] kind, then phrases in any order; capitals and commas pass.

    Raises ValueError, in the prompt's own words, for what is unknown, doubled or impossible.
    """
    words = Tokenizer.split(texts([prompt])[0])
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown word '{word}'; did you mean '{near}'?")
    text = " ".join(words)
    head = HEAD.match(text)
    if not head:
        raise ValueError(
            f"'{prompt}' must begin with a kind, or a colour and a kind: one of {', '.join(KINDS)}"
        )
    found: dict[str, str] = {}

    def name(field: str, values: str | None) -> None:
        for value in (values or "").split():
            if field in found:
                several = {"accessory": "accessories", "accessory_colour": "accessory's colours"}
                what = several.get(field, f"{field}s")
                raise ValueError(f"two {what}, '{found[field]}' and '{value}': name one")
            found[field] = value

    name("colour", head[1])
    name("kind", head[2])
    rest = text[head.end() :]
    while rest:
        phrase = PHRASE.match(rest)
        if not phrase:
            raise ValueError(
                f"cannot read '{rest}' after the kind: write 'with a red sword', "
                f"'facing left' or a place, such as 'at night'"
            )
        name("accessory", phrase[2])
        name("accessory_colour", phrase[1])
        name("facing", phrase[3])
        name("background", next((b for b, words in BACKGROUNDS.items() if words == phrase[4]), ""))
        rest = rest[phrase.end() :]
    kind = found["kind"]
    if "facing" in found and kind not in SIDERS:
        raise ValueError(f"{article(kind)} has no facing; {', '.join(SIDERS)} have")
    if "accessory" in found and kind not in WEARERS:
        raise ValueError(f"{article(kind)} carries nothing; {', '.join(WEARERS)} do")
    return Attributes(**found)


# ------------------------------------------------------------------------------- the pictures
def sample(n: int, generator: torch.Generator, named: Tensor | None = None) -> Tensor:
    """Attributes at random, (n, 6) int64, never of a held-out pair unless `named` says so.

    `named`, (n, 6) with -1 for "free", fixes some of them.
    """
    named = torch.full((n, 6), -1) if named is None else named
    sizes = torch.tensor([len(names) - 1 for names in NAMES])
    sizes[1] = SEEN.shape[1]
    drawn = (torch.rand(n, 6, generator=generator) * sizes).long()
    carries = torch.rand(n, generator=generator) < 0.5
    rows = torch.where(named >= 0, named, drawn)
    kind, free = rows[:, 0], named[:, 1] < 0
    rows[:, 1] = torch.where(free, SEEN[kind, drawn[:, 1]], rows[:, 1])
    wearer = torch.tensor([k in WEARERS for k in KINDS])[kind]
    bare = ~wearer | ~(carries | (named[:, 2] >= 0))
    rows[:, 2:4].masked_fill_(bare[:, None], -1)
    sider = torch.tensor([k in SIDERS for k in KINDS])[kind]
    rows[:, 4].masked_fill_(~sider, -1)
    return rows


def captions(rows: Tensor, generator: torch.Generator, p_colour: float = 0.85) -> list[str]:
    """Captions of attributes (n, 6); each leaves some out, at random, but never the kind."""
    p = torch.tensor([1.0, p_colour, 0.85, 0.85, 0.8, 0.6])
    rows = rows.where(torch.rand(rows.shape, generator=generator) < p, -1)
    rows[:, 3] = rows[:, 3].where(rows[:, 2] >= 0, -1)
    orders = torch.rand(len(rows), 3, generator=generator).argsort(dim=1).tolist()
    articles = (torch.rand(len(rows), generator=generator) < 0.9).tolist()
    named = [Attributes(*[names[i] for names, i in zip(NAMES, row)]) for row in rows.tolist()]
    return [caption(*spec) for spec in zip(named, orders, articles)]


def prompts(n: int, seed: int, held_out: bool) -> list[str]:
    """`n` prompts that name a kind and a colour, spread evenly over the (un)seen pairs."""
    n, generator = whole("n", n, 1), seeded(seed)
    pairs = [
        (i, j)
        for i, kind in enumerate(KINDS)
        for j, colour in enumerate(COLOURS)
        if ((kind, colour) in HELD_OUT) == held_out
    ]
    order = torch.randperm(len(pairs), generator=generator)[torch.arange(n) % len(pairs)]
    named = torch.full((n, 6), -1)
    named[:, :2] = torch.tensor(pairs)[order]
    return captions(sample(n, generator, named), generator, p_colour=1.0)


class Sprites(Dataset):
    """Captioned pixel art in memory: `images` (n, 3, size, size) uint8, `captions`, `classes` (n,).

    `attributes` (n, 6) is the truth behind each picture, whatever its caption leaves out, and
    contains no pair of HELD_OUT. The same seed gives the same pictures. size: a multiple of 16.
    """

    words = WORDS

    def __init__(self, n: int = 40_000, size: int = 16, seed: int = 0) -> None:
        generator = seeded(seed)
        self.attributes = sample(whole("n", n, 1), generator)
        self.images = enlarge(draw(self.attributes, generator), size)
        self.captions = captions(self.attributes, generator)
        kind_class = torch.tensor([CLASSES.index(c) for c in KINDS.values()])
        self.classes = kind_class[self.attributes[:, 0]]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return to_float(self.images[index]), self.captions[index]

    def batch(self, rows: Sequence[int] | Tensor) -> tuple[Tensor, list[str]]:
        """A ready batch in one gather: images (B, 3, size, size) in [-1, 1], captions."""
        rows = integers("rows", rows, -len(self), len(self) - 1).flatten()
        return to_float(self.images[rows]), [self.captions[i] for i in rows.tolist()]

    @staticmethod
    def render(prompt: str, seed: int = 0, size: int = 16) -> Tensor:
        """A picture of the prompt, (3, size, size) in [-1, 1]; what it does not name is random."""
        generator = seeded(seed)
        row = [names.index(value) for names, value in zip(NAMES, parse(prompt))]
        named = torch.tensor([[-1 if i == len(names) - 1 else i for names, i in zip(NAMES, row)]])
        return enlarge(to_float(draw(sample(1, generator, named), generator))[0], size)

    @staticmethod
    def held_out_prompts(n: int, seed: int = 0) -> list[str]:
        """`n` prompts that no training picture could illustrate: each names a held-out pair."""
        return prompts(n, seed, held_out=True)

    @staticmethod
    def seen_prompts(n: int, seed: int = 0) -> list[str]:
        """`n` prompts that each name a (kind, colour) seen in training."""
        return prompts(n, seed, held_out=False)
