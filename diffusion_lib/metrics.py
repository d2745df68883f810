"""How well do pictures obey their prompts? An exact answer for sprites, with no network.

`recognise` works by analysis through synthesis: it holds every sprite it could have been against
the picture, without the random jitter of the colours, and takes the one that leaves the smallest
squared error. Errors are clipped, so that a few wild pixels cannot outvote the rest.
"""

import math
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from diffusion_lib.data.art import (
    ACCESSORY,
    FIGURES,
    ITEMS,
    KINDS,
    LAYOUTS,
    MAIN,
    PLAIN,
    SCENERY,
    SCENES,
    SHADES,
    SIDERS,
    WEARERS,
    to_float,
)
from diffusion_lib.data.sprites import NAMES, Attributes, parse
from diffusion_lib.guards import pictures, texts

CLIP = 0.5  # the most that one pixel can cost: squared distance over r, g, b in [-1, 1]
RARE = 0.05  # how much a rare detail of the scenery costs: RARE · -log(how often it is there)
TOO_FAR = 0.15  # a mean cost per pixel above this is no sprite: noise of std 0.2 costs 0.13
TOO_FAINT = 0.03  # the sprite must beat its bare scenery by this: two blended sprites do not


class Templates(NamedTuple):
    """All T sprites that a picture could show, as labels and as sums over pixels."""

    rows: Tensor  # (T, 4) kind, accessory + 1, facing (or -1), offset
    empty: Tensor  # (256, T) 1 where the scenery shows
    fixed: Tensor  # (256 · SCENERY, T) 1 where the template has that fixed label
    main: Tensor  # (256 · 3, T) 1 where it has that shade of the main colour
    item: Tensor  # (256 · 3, 5 · 3) the same for the accessory at each offset
    rarity: Tensor  # (7, 8, 256) cost of each of the scenery's colours there


@lru_cache(maxsize=1)
def templates() -> Templates:
    rows = torch.tensor(
        [
            (i, item, facing if kind in SIDERS else -1, offset)
            for i, kind in enumerate(KINDS)
            for item in range(len(ITEMS) if kind in WEARERS else 1)
            for facing in range(2 if kind in SIDERS else 1)
            for offset in range(3)
        ]
    )
    kind, item, facing, offset = rows.unbind(1)
    held = ITEMS[item, offset]
    labels = torch.where(held > 0, held, FIGURES[kind, facing, offset]).long()  # (T, 256)
    hot = one_hot(labels, SCENERY).float()  # (T, 256, SCENERY)
    item_hot = one_hot(ITEMS.flatten(0, 1).long(), SCENERY).float()  # (15, 256, SCENERY)
    main = hot[..., MAIN].flatten(1).T.contiguous()
    item = item_hot[..., ACCESSORY].flatten(1).T.contiguous()
    hot[..., :1] = hot[..., MAIN] = hot[..., ACCESSORY] = 0
    often = one_hot(LAYOUTS.long() - SCENERY, 8).float().mean(dim=1)  # (7, 256, 8)
    return Templates(
        rows,
        empty=(labels == 0).float().T.contiguous(),
        fixed=hot.flatten(1).T.contiguous(),
        main=main,
        item=item,
        rarity=(-RARE * often.log()).transpose(1, 2),
    )


def squared_distances(pixels: Tensor, colours: Tensor) -> Tensor:
    """(B, 256, 3) and (C, 3) to (B, 256, C)."""
    return torch.cdist(pixels, colours, compute_mode="donot_use_mm_for_euclid_dist").square()


def match(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best explanation of each picture (B, 3, 16, 16).

    Returns its attributes (B, 6), its mean cost a pixel, and its bare scenery's, both (B,).
    A cost is a sum over pixels, so each part of it (scenery, fixed materials, main colour, the
    accessory's colour) is one matrix product, and each colour is chosen on its own.
    """
    bank, batch = templates(), len(images)
    pixels = images.flatten(2).transpose(1, 2)  # (B, 256, 3)

    scenes = squared_distances(pixels, to_float(SCENES.flatten(0, 1)))  # (B, 256, 7 · 8)
    scenes = scenes.view(batch, 256, 7, 8).permute(0, 2, 3, 1) + bank.rarity
    scenes = scenes.amin(dim=2).clamp(max=CLIP)  # (B, 7, 256)
    fixed = squared_distances(pixels, to_float(PLAIN[:SCENERY])).clamp(max=CLIP)
    shade = squared_distances(pixels, to_float(SHADES.flatten(0, 1))).clamp(max=CLIP)
    shade = shade.view(batch, 256, 8, 3).transpose(1, 2).flatten(2)  # (B, 8, 256 · 3)

    main, colour = (shade @ bank.main).min(dim=1)  # (B, T)
    item, item_colour = (shade @ bank.item).min(dim=1)  # (B, 5 · 3)
    at = bank.rows[:, 1] * 3 + bank.rows[:, 3]  # (T,)
    cost, background = (scenes @ bank.empty).min(dim=1)  # (B, T)
    cost, best = (cost + fixed.flatten(1) @ bank.fixed + main + item[:, at]).min(dim=1)  # (B,)

    every = torch.arange(batch)
    background = background[every, best]
    kind, held, facing, _ = bank.rows[best].unbind(1)
    worn = torch.where(held > 0, item_colour[every, at[best]], -1)
    found = [kind, colour[every, best], held - 1, worn, facing, background]
    return torch.stack(found, dim=1), cost / 256, scenes[every, background].mean(1)


@torch.no_grad()
def recognise(images: Tensor) -> list[Attributes | None]:
    """The attributes of each picture (B, 3, size, size) in [-1, 1]; None where it shows no sprite.

    None, too, where a sprite's colours are farther from all that it could have than noise of 0.2 is,
    as strong guidance makes them: what is read from there on would be a guess. (Renders of 1.2 to
    2.5 times the saturation are read rightly or refused; more contrast can make paper snow.)
    Sizes above 16 must be multiples of 16 and are averaged down. Raises ValueError for other shapes,
    for NaN, and for pictures that are plainly in 0…1 or 0…255.
    Measured on 3,000 renders (tests/test_metrics.py): all right, clean and with noise of
    0.1; no sprite seen in noise, bare scenery or shuffled pixels.
    """
    pictures("pictures", images, bound=2)
    size = images.shape[-1]
    if images.shape[1:] != (3, size, size) or size < 16 or size % 16:
        raise ValueError(f"pictures must be (B, 3, 16, 16), or larger: {tuple(images.shape)}")
    small = avg_pool2d(images.float().cpu(), size // 16)
    seen: list[Attributes | None] = []
    for chunk in small.split(128):
        found, cost, bare = match(chunk)
        sure = (cost < TOO_FAR) & (bare - cost > TOO_FAINT)
        for row, ok in zip(found.tolist(), sure.tolist()):
            seen.append(Attributes(*[names[i] for names, i in zip(NAMES, row)]) if ok else None)
    return seen


def correct(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Which pictures obey their prompts, (B,) bool: *every* attribute that the prompt names is right.

    What the prompt leaves open may be anything, but the picture must show a sprite.
    Raises ValueError if there are not as many prompts as pictures, or for a prompt not understood.
    """
    prompts = texts(prompts, count=len(images))
    obeyed = [
        seen is not None and all(a is None or a == s for a, s in zip(named, seen))
        for named, seen in zip(map(parse, prompts), recognise(images))
    ]
    return torch.tensor(obeyed, dtype=torch.bool)


def prompt_accuracy(images: Tensor, prompts: Sequence[str]) -> float:
    """The share of pictures, 0 to 1, that show *everything* their prompts name (see `correct`).

    It measures obedience, not beauty or variety. Against prompts of other pictures it is 0.000 to
    0.003: no more than that can be had by chance.
    """
    return correct(images, prompts).float().mean().item()


def obedience(right: Tensor, prompts: Sequence[str]) -> tuple[float, float, float]:
    """The share of `right`, (n,) bool, and the ends of its 95% interval by (kind, colour) pair."""
    low, high = clustered_interval(right, [parse(prompt)[:2] for prompt in prompts])
    return right.float().mean().item(), low, high


def clustered_interval(right: Tensor, clusters: Sequence[Hashable]) -> tuple[float, float]:
    """A 95% interval for the share of `right`, (n,) bool, whose errors come in clusters.

    Pictures of one (kind, colour) pair tend to be right or wrong together, so n of them tell less
    than n independent ones. Wilson's interval with n divided by the design effect: the variance of
    the clusters' error totals over that of independent errors. (Wilson 1927; Kish 1965) With no
    variance to go by (all right, or all wrong) each cluster counts once.
    """
    right = torch.as_tensor(right)
    if len(right) == 0 or len(right) != len(clusters) or right.dtype != torch.bool:
        raise ValueError(f"{len(right)} outcomes need as many clusters (1 or more)")
    names = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    where = torch.tensor([names[c] for c in clusters])
    n, k, p = len(right), len(names), right.double().mean().item()
    effective = float(k)
    if 0 < p < 1:
        totals = torch.zeros(k, dtype=torch.float64).index_add(0, where, right.double() - p)
        effect = totals.square().sum().item() * k / max(k - 1, 1) / (n * p * (1 - p))
        effective = n / max(effect, 1.0)
    z2 = 1.959964**2 / effective
    centre, half = p + z2 / 2, math.sqrt(z2 * p * (1 - p) + z2 * z2 / 4)
    return max(0.0, (centre - half) / (1 + z2)), min(1.0, (centre + half) / (1 + z2))
