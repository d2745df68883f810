"""How well do pictures obey their prompts? An exact answer for sprites, with no network.

`recognise` works by analysis through synthesis: it holds every sprite it could have been against
the picture, without the random jitter of the colours, and takes the one that leaves the smallest
squared error. Errors are clipped, so that a few wild pixels cannot outvote the rest.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from diffusion_lib.data.sprites import (
    ACCESSORY,
    FIGURES,
    ITEMS,
    KINDS,
    LAYOUTS,
    MAIN,
    NAMES,
    PLAIN,
    SCENERY,
    SCENES,
    SHADES,
    SIDERS,
    WEARERS,
    Attributes,
    parse,
    to_float,
)

CLIP = 0.5  # the most that one pixel can cost: squared distance over r, g, b in [-1, 1]
NOISE = 0.01  # the variance against which rare background details are weighed
TOO_FAR = 0.09  # mean cost per pixel above which a picture shows none of the sprites
TOO_FAINT = 0.2  # a sprite must explain its own pixels better than the background by this much


class Templates(NamedTuple):
    """All T sprites that a picture could show, as labels and as sums over pixels."""

    rows: Tensor  # (T, 4) kind, accessory + 1, facing (or -1), offset
    size: Tensor  # (T,) pixels in the silhouette
    fixed: Tensor  # (256 * SCENERY, T) 1 where the template has that fixed label
    main: Tensor  # (256 * 3, T) 1 where it has that shade of the main colour
    item: Tensor  # (256 * 3, 5 * 9) the same for the accessory at each offset
    rarity: Tensor  # (7, 8, 256) cost of each background colour there: rare details cost more


@lru_cache(maxsize=1)
def templates() -> Templates:
    rows = torch.tensor(
        [
            (i, item, facing if kind in SIDERS else -1, offset)
            for i, kind in enumerate(KINDS)
            for item in range(len(ITEMS) if kind in WEARERS else 1)
            for facing in range(2 if kind in SIDERS else 1)
            for offset in range(9)
        ]
    )
    kind, item, facing, offset = rows.unbind(1)
    held = ITEMS[item, offset]
    labels = torch.where(held > 0, held, FIGURES[kind, facing, offset]).long()  # (T, 256)
    hot = one_hot(labels, SCENERY).float()  # (T, 256, SCENERY)
    item_hot = one_hot(ITEMS.flatten(0, 1).long(), SCENERY).float()  # (45, 256, SCENERY)
    main = hot[..., MAIN].flatten(1).T.contiguous()
    item = item_hot[..., ACCESSORY].flatten(1).T.contiguous()
    hot[..., MAIN] = hot[..., ACCESSORY] = 0
    fixed = hot.flatten(1).T.contiguous()
    often = one_hot(LAYOUTS.long() - SCENERY, 8).float().mean(dim=1)  # (7, 256, 8)
    rarity = (-2 * NOISE * often.log()).transpose(1, 2)
    return Templates(rows, (labels > 0).sum(1), fixed, main, item, rarity)


def squared_distances(pixels: Tensor, colours: Tensor) -> Tensor:
    """(B, 256, 3) and (C, 3) to (B, 256, C)."""
    return torch.cdist(pixels, colours, compute_mode="donot_use_mm_for_euclid_dist").square()


def recognise_chunk(images: Tensor) -> list[Attributes | None]:
    bank, batch = templates(), len(images)
    pixels = images.flatten(2).transpose(1, 2)  # (B, 256, 3)

    # The background: the one whose colours explain the picture's rim best.
    scenes = squared_distances(pixels, to_float(SCENES.flatten(0, 1)))  # (B, 256, 7 * 8)
    scenes = scenes.view(batch, 256, 7, 8).permute(0, 2, 3, 1) + bank.rarity
    scenes = scenes.amin(dim=2).clamp(max=CLIP)  # (B, 7, 256)
    rim = torch.ones(16, 16, dtype=torch.bool)
    rim[2:14, 2:14] = False
    background = scenes[..., rim.flatten()].sum(-1).argmin(1)  # (B,)
    behind = scenes[torch.arange(batch), background]  # (B, 256)

    # The sprite: the fixed materials, the main colour and the accessory's add up, so each part
    # is one matrix product and each colour can be chosen on its own.
    fixed = squared_distances(pixels, to_float(PLAIN[:SCENERY])).clamp(max=CLIP)
    fixed[..., 0] = behind
    shade = squared_distances(pixels, to_float(SHADES.flatten(0, 1))).clamp(max=CLIP)
    shade = shade.view(batch, 256, 8, 3).transpose(1, 2).flatten(2)  # (B, 8, 256 * 3)
    main, colour = (shade @ bank.main).min(dim=1)  # (B, T)
    item, item_colour = (shade @ bank.item).min(dim=1)  # (B, 45)
    at = bank.rows[:, 1] * 9 + bank.rows[:, 3]  # (T,)
    cost, best = (fixed.flatten(1) @ bank.fixed + main + item[:, at]).min(dim=1)  # (B,)

    every = torch.arange(batch)
    kind, held, facing, _ = bank.rows[best].unbind(1)
    worn = torch.where(held > 0, item_colour[every, at[best]], -1)
    found = [kind, colour[every, best], held - 1, worn, facing, background]
    sure = (cost / 256 < TOO_FAR) & (behind.sum(1) - cost > TOO_FAINT * bank.size[best])
    return [
        Attributes(*[names[i] for names, i in zip(NAMES, row, strict=True)]) if ok else None
        for row, ok in zip(torch.stack(found, 1).tolist(), sure.tolist(), strict=True)
    ]


@torch.no_grad()
def recognise(images: Tensor) -> list[Attributes | None]:
    """The attributes of each picture (B, 3, size, size) in [-1, 1]; None where it shows no sprite.

    Sizes above 16 must be multiples of 16 and are averaged down. Raises ValueError otherwise.
    ERRORS
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be (B, 3, size, size), not {tuple(images.shape)}")
    size = images.shape[-1]
    if size < 16 or size % 16:
        raise ValueError(f"the pictures' size must be a multiple of 16, not {size}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floats in [-1, 1], not {images.dtype}")
    small = avg_pool2d(images.float().cpu(), size // 16)
    return [found for chunk in small.split(128) for found in recognise_chunk(chunk)]


def correct(images: Tensor, prompts: list[str]) -> Tensor:
    """Which pictures obey their prompts, (B,) bool: *every* attribute that the prompt names is right.

    What the prompt leaves open may be anything, but the picture must show a sprite.
    Raises ValueError if there are not as many prompts as pictures, or for a prompt not understood.
    """
    if isinstance(prompts, str) or len(images) != len(prompts):
        raise ValueError(f"{len(images)} pictures need as many prompts, as a list of strings")
    asked = [parse(prompt) for prompt in prompts]
    obeyed = [
        seen is not None and all(a is None or a == s for a, s in zip(named, seen, strict=True))
        for named, seen in zip(asked, recognise(images), strict=True)
    ]
    return torch.tensor(obeyed, dtype=torch.bool)


def prompt_accuracy(images: Tensor, prompts: list[str]) -> float:
    """The share of pictures, 0 to 1, that show *everything* their prompts name (see `correct`).

    It measures obedience, not beauty or variety. ERRORS
    """
    if len(images) == 0:
        raise ValueError("no pictures: the accuracy of nothing is undefined")
    return correct(images, prompts).float().mean().item()
