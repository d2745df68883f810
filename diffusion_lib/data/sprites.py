"""Sprites: captioned pixel art, and the little language of its captions."""

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

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
from diffusion_lib.data.captioned import Captioned
from diffusion_lib.guards import texts, whole
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
    {*KINDS, *COLOURS, *ACCESSORIES, *FACINGS, "a", "an", "facing", "is", "that", "with"}.union(
        *(phrase.split() for phrase in BACKGROUNDS.values())
    )
)
SAYINGS = ("{colour} {noun}", "{noun} that is {colour}", "{noun} {colour}")


def noun(names: Iterable[str]) -> str:
    """A pattern of three groups: colours before the noun, the noun, colours after it.

    Any number of colours, so that two can be complained of.
    """
    colour = f"(?:{'|'.join(COLOURS)})"
    return rf"(?:an? )?((?:{colour} )*)({'|'.join(names)})((?: (?:that is )?{colour})*)"


PHRASE = re.compile(
    rf"(?:{noun(KINDS)}|(with {noun(ACCESSORIES)})"
    rf"|facing (left|right)|({'|'.join(BACKGROUNDS.values())}))(?: |$)"
)
FORMS = {  # captions that are said another way than "a red knight with a blue shield on grass"
    "on grass a red knight": re.compile(f"(?:facing|{'|'.join(BACKGROUNDS.values())})"),
    "a knight that is red": re.compile(".* that is "),
    "a knight red": re.compile(f".*(?:{'|'.join([*KINDS, *ACCESSORIES])}) (?:{'|'.join(COLOURS)})"),
}


def article(words: str) -> str:
    """The words after "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(
    attributes: Attributes,
    order: tuple[int, ...] = (0, 1, 2),
    with_article: bool = True,
    fronted: bool = False,
    sayings: tuple[int, int] = (0, 0),
) -> str:
    """The attributes in words: "an orange knight with a blue shield at night".

    `order` permutes the phrases: 0 accessory, 1 facing, 2 background; `fronted` puts the first of
    them before the subject ("at night an orange knight"), unless it is the accessory; `sayings`:
    which of SAYINGS joins colour and noun, for the kind and for the accessory.
    """
    kind, colour, item, item_colour, facing, background = attributes

    def thing(name: str, colour: str | None, saying: int) -> str:
        return SAYINGS[saying].format(noun=name, colour=colour) if colour else name

    subject = thing(kind, colour, sayings[0])
    phrases = (
        item and f"with {article(thing(item, item_colour, sayings[1]))}",
        facing and f"facing {facing}",
        background and BACKGROUNDS[background],
    )
    said = [article(subject) if with_article else subject]
    said += [phrases[i] for i in order if phrases[i]]
    if fronted and len(said) > 1 and said[1] != phrases[0]:
        said[:2] = said[1], said[0]
    return " ".join(said)


def parse(prompt: str) -> Attributes:
    """What the prompt names; capitals and commas pass.

    A prompt names a kind, with its colour before it ("a red dragon") or after it ("a dragon that is
    red"); "facing …" and a place stand before or after it, "with …" after it, in any order.
    Raises ValueError, in the prompt's own words, for what is unknown, doubled or impossible.
    """
    words = Tokenizer.split(texts([prompt])[0])
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown word '{word}'; did you mean '{near}'?")
    if not KINDS.keys() & words:
        raise ValueError(f"'{prompt}' names no kind: one of {', '.join(KINDS)}")
    found: dict[str, str] = {}

    def name(field: str, values: str | None) -> None:
        for value in (values or "").replace("that is ", "").split():
            if field in found:
                several = {
                    "accessory": "accessories",
                    "accessory_colour": "colours of one accessory",
                }
                what = several.get(field, f"{field}s")
                raise ValueError(f"two {what}, '{found[field]}' and '{value}': name one")
            found[field] = value

    rest = " ".join(words)
    while rest:
        phrase = PHRASE.match(rest)
        if not phrase or (phrase[4] and "kind" not in found):
            raise ValueError(
                f"cannot read '{rest}': write a kind and its colour, such as 'a red dragon', then "
                "'with a blue sword'; 'facing left' and a place, such as 'at night', before or after"
            )
        name("kind", phrase[2])
        for colours in phrase.group(1, 3):
            name("colour", colours)
        name("accessory", phrase[6])
        for colours in phrase.group(5, 7):
            name("accessory_colour", colours)
        name("facing", phrase[8])
        name("background", next((b for b, words in BACKGROUNDS.items() if words == phrase[9]), ""))
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
    fronted = (torch.rand(len(rows), generator=generator) < 0.25).tolist()
    usual = torch.tensor([0.75, 0.15, 0.1]).expand(len(rows), 3)  # how often each of SAYINGS
    sayings = usual.multinomial(2, replacement=True, generator=generator).tolist()
    named = [Attributes(*[names[i] for names, i in zip(NAMES, row)]) for row in rows.tolist()]
    return [caption(*spec) for spec in zip(named, orders, articles, fronted, sayings)]


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


class Sprites(Captioned):
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

    def pictures(self, rows: Tensor) -> Tensor:
        return to_float(self.images[rows])

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
