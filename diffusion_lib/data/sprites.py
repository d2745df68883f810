"""Sprites: captioned 16x16 pixel art, drawn by code from the text file `sprites.txt`.

A picture is a map of labels (which material is at this pixel?) and a palette (which colour has
this material?). Both are tensors, so 40,000 pictures are a few gathers and take about a second.
"""

import difflib
import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

CLASSES = ("hero", "non-hero", "food", "spell", "side-facing")
FACINGS = ("left", "right")
BACKGROUNDS = dict(paper="on paper", night="at night", grass="on grass", desert="in the desert")
BACKGROUNDS |= dict(snow="in the snow", cave="in a cave", sunset="at sunset")
COLOUR_CODES = dict(red="d4282e", orange="f6861e", yellow="fcda36", green="3aa646")
COLOUR_CODES |= dict(blue="3068de", purple="7e3ab4", pink="fa8cc0", white="eceef6")
COLOURS = {name: tuple(bytes.fromhex(code)) for name, code in COLOUR_CODES.items()}

# ------------------------------------------------------------------ materials and their colours
# Labels: 0 nothing, 1 ink, 2-4 main colour (dark, middle, light), 5-7 the accessory's, then the
# fixed materials (sprites.txt says what each letter stands for), then the background's eight.
INK, MAIN, ACCESSORY = 1, slice(2, 5), slice(5, 8)
FIXED = dict(e="fafafa", s="facea6", p="f4848a", g="b0b8c8", G="687086", b="865432")
FIXED |= dict(y="f8c43c", l="5cb84a", c="f2d8a8", w="a8e8f6", r="de383e")
SCENERY = 8 + len(FIXED)  # the background's first label
LETTERS = {".": 0, "k": INK, "m": 2, "M": 3, "n": 4, "A": 6}
LETTERS |= {letter: label for label, letter in enumerate(FIXED, start=8)}
BACKDROPS = {
    "paper": "fcf2da" * 8,
    "night": "161c4a faf4c8 6874b0 242c68" * 2,
    "grass": "a4d8f8 70be54 509e46 f4faff ffe26e" + "a4d8f8" * 3,
    "desert": "fce4aa eebe70 dca256 c88c46" * 2,
    "snow": "c4d8ee ffffff ecf4fc d6e4f4" * 2,
    "cave": "3a3242 605464 4c4252 786a78" * 2,
    "sunset": "563882 7e408c ac4c8a d65c7a ee7462 fa9250 feb454 ffd478",
}


def rgb(codes: str) -> Tensor:
    """Hexadecimal colours, as on the web, to (n, 3) in 0..255."""
    return torch.tensor(list(bytes.fromhex(codes)), dtype=torch.float32).view(-1, 3)


def shades(colour: Tensor) -> Tensor:
    """Dark, middle and light of each colour, (n, 3, 3): shadows lean to violet, lights to cream."""
    dark, light = colour.lerp(rgb("281054"), 0.28), colour.lerp(rgb("fffce2"), 0.42)
    return torch.stack([dark, colour, light], dim=1)


SHADES = shades(rgb("".join(COLOUR_CODES.values())))  # (8, 3, 3)
SCENES = torch.stack([rgb(codes) for codes in BACKDROPS.values()])  # (7, 8, 3)
PLAIN = torch.zeros(SCENERY + 8, 3)  # a palette before a picture's own colours go in
PLAIN[INK] = rgb("221a2c")
PLAIN[8:SCENERY] = rgb("".join(FIXED.values()))
# Which labels are one material, whose colour varies as one from picture to picture.
MATERIAL = torch.tensor([0, 1, 2, 2, 2, 3, 3, 3, *range(4, SCENERY - 4)] + [SCENERY - 4] * 8)


# ------------------------------------------------------------------------- drawings and layouts
def read_art(path: Path) -> dict[tuple[str, str], Tensor]:
    """The drawings in a text file: {(name, class): labels (16, 16) uint8}, outlined and shaded."""
    art: dict[tuple[str, str], list[str]] = {}
    for line in path.read_text().splitlines():
        if " " in line and not line.startswith("#"):
            rows = art.setdefault(tuple(line.split()), [])
        elif line and not line.startswith("#"):
            rows.append(line)
    for name, rows in art.items():
        if [len(row) for row in rows] != [14] * 14:
            raise ValueError(f"{path.name}: '{name[0]}' is not 14 rows of 14 letters")
    return {name: finish(rows) for name, rows in art.items()}


def finish(rows: list[str]) -> Tensor:
    """Letters to labels (16, 16): an ink outline round the shape, light from the top left."""
    canvas = torch.zeros(18, 18, dtype=torch.uint8)  # one pixel more, so that neighbours exist
    canvas[2:16, 2:16] = torch.tensor([[LETTERS[letter] for letter in row] for row in rows])
    middle = canvas[1:17, 1:17].clone()
    up, left = canvas[0:16, 1:17], canvas[1:17, 0:16]
    down, right = canvas[2:18, 1:17], canvas[1:17, 2:18]
    tinted = (middle == 3) | (middle == 6)
    lit = (up == 0) | (left == 0)
    dim = (down == 0) | (right == 0)
    solid = torch.stack([up, left, down, right])
    outline = (middle == 0) & (solid > INK).any(dim=0)
    shaded = middle + (tinted & lit & ~dim).byte() - (tinted & dim & ~lit).byte()
    return torch.where(outline, INK, shaded).byte()


def shifted(labels: Tensor) -> Tensor:
    """(..., 16, 16) to (..., 9, 256): moved by -1, 0 or 1 pixel in y and in x."""
    padded = torch.nn.functional.pad(labels, (1, 1, 1, 1))
    views = [padded[..., y : y + 16, x : x + 16] for y in range(3) for x in range(3)]
    return torch.stack(views, dim=-3).flatten(-2)


def draw_layouts(count: int, generator: torch.Generator) -> Tensor:
    """`count` random layouts of each background, labels (7, count, 256), in BACKDROPS' order."""
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")

    def rand(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    speck, flat = rand(16, 16), torch.zeros(count, 16, 16)
    night = flat + 3 * (y > 11)
    night = torch.where(speck < 0.025, 1, torch.where(speck < 0.06, 2, night))

    middle, height = rand(1, 1) * 16, 1 + rand(1, 1) * 4
    cloud = ((x - middle) / 4) ** 2 + ((y - height) / 1.6) ** 2 < 1
    meadow = torch.where(speck < 0.2, 2, torch.where(speck > 0.96, 4, 1))
    grass = torch.where(y > 10, meadow, 3 * cloud)

    far = 9 + 1.6 * torch.sin(x / 4 + 2 * math.pi * rand(1, 1))
    near = 12 + 1.4 * torch.sin(x / 5 + 2 * math.pi * rand(1, 1))
    sand = torch.where(speck < 0.12, 3, 2)
    desert = torch.where(y > near, sand, (y > far).long())

    drift = 12.5 + torch.sin(x / 3 + 2 * math.pi * rand(1, 1))
    snow = torch.where(y > drift, torch.where(speck < 0.1, 3, 2), (speck < 0.09).long())

    tip, length = rand(5, 1, 1) * 16, 2 + rand(5, 1, 1) * 5
    spikes = (length - 1.6 * (x - tip).abs()).amax(dim=1)  # (count, 16, 16)
    cave = torch.where(y < spikes, 1, torch.where(speck < 0.08, 2, 0))
    cave = torch.where(y > 13 - spikes.flip(-1) / 4, torch.where(speck < 0.15, 3, 1), cave)

    dither = ((x + y + (rand(1, 1) * 2).long()) % 2) * 0.9
    sunset = ((y + dither + rand(1, 1)) * 7.4 / 17).clamp(max=7)
    return torch.stack([flat, night, grass, desert, snow, cave, sunset]).byte().flatten(-2)


ART = read_art(Path(__file__).with_name("sprites.txt"))
KINDS = {name: kind_class for name, kind_class in ART if kind_class != "accessory"}
ACCESSORIES = tuple(name for name, kind_class in ART if kind_class == "accessory")
WEARERS = tuple(kind for kind, kind_class in KINDS.items() if kind_class in CLASSES[:2])
SIDERS = tuple(kind for kind, kind_class in KINDS.items() if kind_class == "side-facing")
# Two colours of each kind never appear in training: number of the kind + of the colour = 4k.
HELD_OUT = frozenset(
    (kind, colour)
    for i, kind in enumerate(KINDS)
    for j, colour in enumerate(COLOURS)
    if (i + j) % 4 == 0
)

_right = torch.stack([ART[item] for item in KINDS.items()])  # (K, 16, 16)
_left = [d.flip(-1) if kind in SIDERS else d for kind, d in zip(KINDS, _right, strict=True)]
FIGURES = shifted(torch.stack([torch.stack(_left), _right], dim=1))  # (K, 2, 9, 256), as FACINGS
_items = [torch.zeros(16, 16, dtype=torch.uint8)] + [ART[a, "accessory"] for a in ACCESSORIES]
ITEMS = shifted(torch.stack(_items))  # (1 + 4, 9, 256); 0 is "none"
LAYOUTS = draw_layouts(64, torch.Generator().manual_seed(0)) + SCENERY  # (7, 64, 256)


# ------------------------------------------------------------------------------- the language
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
WORDS = sorted({*KINDS, *COLOURS, *ACCESSORIES, *FACINGS, "a", "an", "facing", "with"}
               .union(*(phrase.split() for phrase in BACKGROUNDS.values())))
_any = {name: "|".join(names) for name, names in
        dict(colour=COLOURS, kind=KINDS, item=ACCESSORIES, place=BACKGROUNDS.values()).items()}
HEAD = re.compile(rf"(?:an? )?((?:(?:{_any['colour']}) )*)({_any['kind']})(?: |$)")
PHRASE = re.compile(
    rf"(?:with (?:an? )?((?:(?:{_any['colour']}) )*)({_any['item']})"
    rf"|facing (left|right)|({_any['place']}))(?: |$)"
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
    """What the prompt names: [a] [colour] kind, then phrases in any order.

    Raises ValueError, in the prompt's own words, for what is unknown, doubled or impossible.
    """
    words = prompt.lower().split()
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown word '{word}'; did you mean '{near}'?")
    text = " ".join(words)
    head = HEAD.match(text)
    if not head:
        raise ValueError(f"'{prompt}' must begin with a kind, or a colour and a kind: one of "
                         f"{', '.join(KINDS)}")
    found: dict[str, str] = {}

    def name(field: str, values: str | None) -> None:
        for value in (values or "").split():
            if field in found:
                what = field.replace("_", "'s ")
                raise ValueError(f"two {what}s, '{found[field]}' and '{value}': name one")
            found[field] = value

    name("colour", head[1])
    name("kind", head[2])
    rest = text[head.end() :]
    while rest:
        phrase = PHRASE.match(rest)
        if not phrase:
            raise ValueError(f"cannot read '{rest}' after the kind: write 'with a red sword', "
                             f"'facing left' or a place, such as 'at night'")
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
    drawn = (torch.rand(n, 6, generator=generator) * sizes).long()
    carries = torch.rand(n, generator=generator) < 0.5
    rows = torch.where(named >= 0, named, drawn)
    # The seen colours of kind i are those with (i + colour) % 4 in 1..3.
    kind, colour = rows[:, 0], (drawn[:, 1] // 4 * 4 + torch.randint(1, 4, (n,), generator=generator) - rows[:, 0]) % 8
    rows[:, 1] = torch.where(named[:, 1] >= 0, named[:, 1], colour)
    wearer = torch.tensor([k in WEARERS for k in KINDS])[kind]
    bare = ~wearer | ~(carries | (named[:, 2] >= 0))
    rows[:, 2:4].masked_fill_(bare[:, None], -1)
    sider = torch.tensor([k in SIDERS for k in KINDS])[kind]
    rows[:, 4].masked_fill_(~sider, -1)
    return rows


def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Attributes (n, 6) to pictures (n, 3, 16, 16) uint8: each a little different."""
    n = len(rows)
    kind, colour, item, item_colour, facing, background = rows.unbind(1)
    offset = torch.randint(9, (n,), generator=generator)
    layout = torch.randint(LAYOUTS.shape[1], (n,), generator=generator)
    body, held = FIGURES[kind, facing, offset], ITEMS[item + 1, offset]  # (n, 256)
    labels = torch.where(body > 0, body, LAYOUTS[background, layout])
    labels = torch.where(held > 0, held, labels)

    palette = PLAIN.repeat(n, 1, 1)  # (n, labels, 3)
    palette[:, MAIN], palette[:, ACCESSORY] = SHADES[colour], SHADES[item_colour]
    palette[:, SCENERY:] = SCENES[background]
    light = torch.rand(n, len(MATERIAL.unique()), 1, generator=generator) * 0.1 + 0.95
    tint = torch.rand(n, len(MATERIAL.unique()), 3, generator=generator) * 12 - 6
    palette = (palette * light[:, MATERIAL] + tint[:, MATERIAL]).clamp(0, 255).int()
    packed = palette[..., 0] | palette[..., 1] << 8 | palette[..., 2] << 16  # one gather for r, g, b
    pixels = torch.cat([p.gather(1, l.long()) for p, l in zip(packed.split(4096), labels.split(4096), strict=True)])
    return pixels.view(torch.uint8).view(n, 16, 16, 4)[..., :3].permute(0, 3, 1, 2).contiguous()


def captions(rows: Tensor, generator: torch.Generator, p_colour: float = 0.85) -> list[str]:
    """Captions of attributes (n, 6); each leaves some out, at random, but never the kind."""
    p = torch.tensor([1.0, p_colour, 0.85, 0.85, 0.8, 0.6])
    rows = rows.where(torch.rand(rows.shape, generator=generator) < p, -1)
    rows[:, 3] = rows[:, 3].where(rows[:, 2] >= 0, -1)
    orders = torch.rand(len(rows), 3, generator=generator).argsort(dim=1).tolist()
    articles = (torch.rand(len(rows), generator=generator) < 0.9).tolist()
    named = [Attributes(*[names[i] for names, i in zip(NAMES, row)]) for row in rows.tolist()]
    return [caption(*spec) for spec in zip(named, orders, articles, strict=True)]


def to_float(images: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def enlarge(images: Tensor, size: int) -> Tensor:
    """(..., 16, 16) to (..., size, size): every pixel becomes a square."""
    if size < 16 or size % 16:
        raise ValueError(f"size must be a multiple of 16, not {size}")
    return images.repeat_interleave(size // 16, -1).repeat_interleave(size // 16, -2)


def prompts(n: int, seed: int, held_out: bool) -> list[str]:
    """`n` prompts that name a kind and a colour, spread evenly over the (un)seen pairs."""
    generator = torch.Generator().manual_seed(seed)
    pairs = [(i, j) for i, kind in enumerate(KINDS) for j, colour in enumerate(COLOURS)
             if ((kind, colour) in HELD_OUT) == held_out]
    order = torch.randperm(len(pairs), generator=generator)[torch.arange(n) % len(pairs)]
    named = torch.full((n, 6), -1)
    named[:, :2] = torch.tensor(pairs)[order]
    return captions(sample(n, generator, named), generator, p_colour=1.0)


class Sprites(Dataset):
    """Captioned pixel art in memory: `images` (n, 3, size, size) uint8, `captions`, `classes` (n,).

    `attributes` (n, 6) is the truth behind each picture, whatever its caption leaves out, and
    contains no pair of HELD_OUT. The same seed gives the same pictures. About 2 s for 40,000.
    Raises ValueError if size is no multiple of 16 or n < 1.
    """

    words = WORDS

    def __init__(self, n: int = 40_000, size: int = 16, seed: int = 0) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        generator = torch.Generator().manual_seed(seed)
        self.attributes = sample(n, generator)
        self.images = enlarge(draw(self.attributes, generator), size)
        self.captions = captions(self.attributes, generator)
        kind_class = torch.tensor([CLASSES.index(c) for c in KINDS.values()])
        self.classes = kind_class[self.attributes[:, 0]]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return to_float(self.images[index]), self.captions[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, list[str]]:
        """A ready batch in one gather: images (B, 3, size, size) in [-1, 1], captions."""
        return to_float(self.images[torch.as_tensor(indices)]), [self.captions[i] for i in indices]

    @staticmethod
    def render(prompt: str, seed: int = 0, size: int = 16) -> Tensor:
        """A picture of the prompt, (3, size, size) in [-1, 1]; what it does not name is random."""
        generator = torch.Generator().manual_seed(seed)
        row = [names.index(value) for names, value in zip(NAMES, parse(prompt), strict=True)]
        named = torch.tensor([[-1 if i == len(names) - 1 else i for names, i in zip(NAMES, row, strict=True)]])
        return enlarge(to_float(draw(sample(1, generator, named), generator))[0], size)

    @staticmethod
    def held_out_prompts(n: int, seed: int = 0) -> list[str]:
        """`n` prompts that no training picture could illustrate: each names a held-out pair."""
        return prompts(n, seed, held_out=True)

    @staticmethod
    def seen_prompts(n: int, seed: int = 0) -> list[str]:
        """`n` prompts that each name a (kind, colour) seen in training."""
        return prompts(n, seed, held_out=False)
