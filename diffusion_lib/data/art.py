"""How sprites are drawn: 16x16 pixel art from the text file `sprites.txt`.

A picture is a map of labels (which material is at this pixel?) and a palette (which colour has
this material?). Both are tensors, so 40,000 pictures are a few gathers and take half a second.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lib.guards import whole

CLASSES = ("hero", "non-hero", "food", "spell", "side-facing")
FACINGS = ("left", "right")
BACKGROUNDS = {
    "paper": "on paper",
    "night": "at night",
    "grass": "on grass",
    "desert": "in the desert",
    "snow": "in the snow",
    "cave": "in a cave",
    "sunset": "at sunset",
}
COLOUR_CODES = {
    "red": "d4282e",
    "orange": "f6861e",
    "yellow": "fcda36",
    "green": "3aa646",
    "blue": "3068de",
    "purple": "7e3ab4",
    "pink": "fa8cc0",
    "white": "eceef6",
}
COLOURS = {name: tuple(bytes.fromhex(code)) for name, code in COLOUR_CODES.items()}

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


def read_art(path: Path) -> dict[tuple[str, str], Tensor]:
    """The drawings in a text file: {(name, class): labels (16, 16) uint8}, outlined and shaded."""
    art: dict[tuple[str, str], list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
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
    """(..., 16, 16) to (..., 3, 256): moved by -1, 0 or 1 pixel in x."""
    padded = torch.nn.functional.pad(labels, (1, 1))
    return torch.stack([padded[..., x : x + 16] for x in range(3)], dim=-3).flatten(-2)


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
_right = torch.stack([ART[item] for item in KINDS.items()])  # (K, 16, 16)
_left = [d.flip(-1) if kind in SIDERS else d for kind, d in zip(KINDS, _right)]
FIGURES = shifted(torch.stack([torch.stack(_left), _right], dim=1))  # (K, 2, 3, 256), as FACINGS
_items = [torch.zeros(16, 16, dtype=torch.uint8)] + [ART[a, "accessory"] for a in ACCESSORIES]
ITEMS = shifted(torch.stack(_items))  # (1 + 4, 3, 256); 0 is "none"
LAYOUTS = draw_layouts(64, torch.Generator().manual_seed(0)) + SCENERY  # (7, 64, 256)


def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Attributes (n, 6) to pictures (n, 3, 16, 16) uint8: each a little different."""
    n = len(rows)
    kind, colour, item, item_colour, facing, background = rows.unbind(1)
    offset = torch.randint(3, (n,), generator=generator)
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
    red, green, blue = palette.unbind(-1)
    packed = red | green << 8 | blue << 16  # one gather for all three
    chunks = zip(packed.split(4096), labels.split(4096))  # 64-bit labels of all would be large
    pixels = torch.cat([colours.gather(1, where.long()) for colours, where in chunks])
    return pixels.view(torch.uint8).view(n, 16, 16, 4)[..., :3].permute(0, 3, 1, 2).contiguous()


def to_float(images: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def enlarge(images: Tensor, size: int) -> Tensor:
    """(..., 16, 16) to (..., size, size): every pixel becomes a square."""
    if whole("size", size, 16) % 16:
        raise ValueError(f"size must be a multiple of 16, not {size}")
    return images.repeat_interleave(size // 16, -1).repeat_interleave(size // 16, -2)
