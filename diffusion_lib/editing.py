"""Changing pictures: from a noised one, within a mask, from its own noise, or word by word.

All of it stands on the samplers as they are. A picture that is noised up to a time t is painted on
with the schedule cut off at t, which is a schedule too; what is known of a picture is put into the
denoiser's answer; and DDIM's step, mirrored, leads from a picture to its noise.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import SequenceMatcher
from functools import partial
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lib.denoiser import Denoise
from diffusion_lib.guards import floats, pictures, real, texts, whole
from diffusion_lib.layers import Attention, TransformerBlock
from diffusion_lib.noise import randn_like, seeded
from diffusion_lib.pipeline import Sampler, TextToImage
from diffusion_lib.sampling import Step, ddim, last, move, walk
from diffusion_lib.schedules import Schedule


def cut(schedule: Schedule, strength: float) -> Schedule:
    """The schedule's part from clean to `strength` of its time: any sampler starts there.

    strength: above 0, where nothing changes, to 1, where nothing of a picture is left.
    """
    t = round(schedule.T * real("strength", strength, 0, 1))
    if t == 0:
        raise ValueError(f"strength {strength:g} changes nothing: it must be above 0")
    return Schedule(schedule.alpha[: t + 1], schedule.sigma[: t + 1])


def known(denoise: Denoise, x0: Tensor, mask: Tensor) -> Denoise:
    """The same guess where mask is 1; where it is 0, what is known: x0.

    There each step of `ddim` then gives exactly alpha_s x0 + sigma_s eps, with the noise eps that x
    began with. mask: (B or 1, 1, H, W) in [0, 1].
    """
    return lambda x, t: torch.lerp(x0, denoise(x, t), mask)


def img2img(
    model: TextToImage,
    images: Tensor,
    prompts: Sequence[str],
    *,
    strength: float = 0.6,
    mask: Tensor | None = None,
    steps: int = 20,
    guidance: float | None = None,
    negative: str | Sequence[str] | None = None,
    seed: int | None = None,
    sampler: Sampler | None = None,
    clip: bool = True,
) -> Tensor:
    """Pictures painted on from noised ones. (Meng et al. 2022) Returns (B, 3, H, W) in [-1, 1].

    images: (B, 3, H, W) in [-1, 1], of the model's size, with a prompt each. strength: how much of
    the noise they get, 0 to 1; of `steps` that share is taken. mask: (B or 1, 1, H, W) in [0, 1]:
    only where it is above 0 something changes (see `known`). sampler: by default `ddim`, under a
    mask `fresh`. The rest: as in `generate`.
    """
    images = pictures("images", images, few=7).to(model.device)
    prompts = texts(prompts, count=len(images))
    schedule = cut(model.denoiser.schedule, strength)
    denoise = model.denoise_with(prompts, guidance, negative, clip)
    x0 = model.latents(images)
    if mask is not None:
        mask = masks(mask, images)
        factor = images.shape[-1] // x0.shape[-1]
        denoise = known(denoise, x0, F.max_pool2d(mask, factor))
        sampler = sampler or partial(fresh, generator=[*generators(len(images), seed)])
    eps = model.noise(len(images), seed) / float(model.denoiser.schedule.sigma[-1])
    x = schedule.add_noise(x0, schedule.T, eps)
    steps = min(max(1, round(strength * whole("steps", steps, 1))), schedule.T)
    painted = model.decode(last((sampler or ddim)(denoise, schedule, x, steps))).clamp(-1, 1)
    return painted if mask is None else torch.lerp(images, painted, mask)


def generators(n: int, seed: int | None = None) -> Iterator[torch.Generator]:
    """One a picture; that of picture i is the same whatever n is."""
    seeds = seeded(torch.Generator().seed() % 2**63 if seed is None else seed)
    for _ in range(n):
        yield seeded(int(torch.randint(2**62, (), generator=seeds)))


@torch.no_grad()
def fresh(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    steps: int = 20,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Iterator[Step]:
    """x_s = alpha_s D(x, t) + sigma_s z, with new noise z in each step.

    DDIM's noise remembers what was guessed before the known part of a picture could be seen; here
    only the guess is carried on, so that the parts of a picture come to agree. (Song et al. 2023,
    algorithm 1)
    """
    for now, then in walk(schedule, steps):
        h = denoise(x, now.t)
        x = then.alpha * h + then.sigma * randn_like(x, generator)
        yield Step(then.t, x, h)


def inpaint(
    model: TextToImage, images: Tensor, mask: Tensor, prompts: Sequence[str], **how
) -> Tensor:
    """What is under the mask painted from pure noise, so that it fits the rest. See `img2img`.

    A larger picture whose margin is under the mask is painted outwards (outpainting).
    """
    return img2img(model, images, prompts, **{"strength": 1.0, "mask": mask} | how)


def masks(mask: Tensor, images: Tensor) -> Tensor:
    """`mask` as (B or 1, 1, H, W) float on the images' device. Raises ValueError if it is no mask."""
    n, _, height, width = images.shape
    truth = isinstance(mask, Tensor) and mask.dtype == torch.bool
    mask = floats("mask", mask.float() if truth else mask)
    mask = mask[None, None] if mask.ndim == 2 else mask
    if mask.ndim != 4 or mask.shape[0] not in (1, n) or mask.shape[1:] != (1, height, width):
        raise ValueError(
            f"a mask for pictures {tuple(images.shape)} has shape ({n} or 1, 1, {height}, {width}), "
            f"not {tuple(mask.shape)}"
        )
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise ValueError("a mask lies in [0, 1]: 0 = keep, 1 = paint anew")
    return mask.to(images)


@torch.no_grad()
def repaint(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    steps: int = 20,
    rounds: int = 5,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Iterator[Step]:
    """DDIM that goes each step `rounds` times: down, up again with fresh noise, and down.

    What is painted under a mask gets time to fit the rest. (Lugmayr et al. 2022, algorithm 1)
    """
    rounds = whole("rounds", rounds, 1)
    for now, then in walk(schedule, steps):
        for i in range(rounds if then.t > 0 else 1):
            if i > 0:
                left = now.alpha / then.alpha  # of what was there
                added = max(now.sigma**2 - (left * then.sigma) ** 2, 0) ** 0.5
                x = left * x + added * randn_like(x, generator)
            h = denoise(x, now.t)
            x = move(x, h, now, then)
        yield Step(then.t, x, h)


@torch.no_grad()
def invert(
    denoise: Denoise, schedule: Schedule, x: Tensor, steps: int = 50, rounds: int = 1
) -> Iterator[Step]:
    """DDIM run backwards, from a picture x (B, …) at t = 0 to the noise that it is painted from.

    The step up asks for the answer where it leads, which is not known before. rounds = 1 asks at
    the place it comes from instead (Song et al. 2021a, section 4.3); more rounds ask again from
    where the last one led, towards the step that DDIM undoes exactly. (Garibi et al. 2024)
    """
    rounds = whole("rounds", rounds, 1)
    for noisy, clean in reversed(list(walk(schedule, steps))):
        y = x
        for _ in range(rounds):
            h = denoise(y, noisy.t)
            eps = (y - noisy.alpha * h) / noisy.sigma
            y = x + (noisy.alpha - clean.alpha) * h + (noisy.sigma - clean.sigma) * eps
        x = y
        yield Step(noisy.t, x, h)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """From noise a (share 0) to noise b (share 1) along the sphere, row by row. (Shoemake 1985)

    On the straight way the middle is narrower than noise is, by a factor of nearly the root of 2.
    """
    share = real("share", share, 0, 1)
    if a.shape != b.shape:
        raise ValueError(f"both need one shape, not {tuple(a.shape)} and {tuple(b.shape)}")
    flat = [F.normalize(z.flatten(1), dim=1) for z in (a, b)]
    angle = (flat[0] * flat[1]).sum(1).clamp(-1 + 1e-6, 1 - 1e-6).acos()
    angle = angle.view(-1, *[1] * (a.ndim - 1))
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / angle.sin()


@contextmanager
def attending(net: torch.nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While it is open, each cross-attention of `net` works with change(its map), (B, h, N, L)."""

    def forward(self: Attention, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        h = change(self.weights(x, context, mask)) @ self._split(self.value(context))
        return self.out(h.transpose(1, 2).flatten(2))

    blocks = [m for m in net.modules() if isinstance(m, TransformerBlock) and m.has_context]
    if not blocks:
        raise ValueError("this network has no cross-attention whose maps could be carried over")
    for block in blocks:
        block.cross_attention.forward = MethodType(forward, block.cross_attention)
    try:
        yield
    finally:
        for block in blocks:
            del block.cross_attention.forward


def counterparts(a: Tensor, b: Tensor) -> Tensor:
    """For each token of b (L,) the place in a (L,) of the one it is or replaces; -1: it is new."""
    places = torch.full_like(b, -1)
    for _, i, i_end, j, j_end in SequenceMatcher(None, a.tolist(), b.tolist(), False).get_opcodes():
        if i_end - i == j_end - j:  # the same words, or as many others in their place
            places[j:j_end] = torch.arange(i, i_end)
    return places


def reword(
    model: TextToImage,
    prompts: Sequence[str],
    edits: Sequence[str],
    *,
    share: float = 0.8,
    steps: int = 20,
    guidance: float | None = None,
    seed: int | None = None,
    sampler: Sampler = ddim,
) -> tuple[Tensor, Tensor]:
    """Pictures of `prompts`, and the same pictures with other words: prompt-to-prompt.

    Both are painted from one noise. For the first `share` of the time the edit's words look where
    the prompt's words do, which they are or replace, so that the layout stays. (Hertz et al. 2022)
    Returns two (B, 3, H, W) in [-1, 1]; `model.generate(prompts, …)` gives the first of them too.
    """
    prompts = texts(prompts)
    edits, share = texts(edits, "edits", len(prompts)), real("share", share, 0, 1)
    schedule, net = model.denoiser.schedule, model.denoiser.net
    ids, _ = model.tokenizer([*prompts, *edits])
    noise, pairs = model.noise(len(prompts), seed), []
    for some in torch.arange(len(prompts)).split(7):  # few enough to go through the net as one
        n = len(some)
        places = torch.stack([counterparts(ids[i], ids[len(prompts) + i]) for i in some.tolist()])
        places = places[:, None, None].to(noise.device)  # (n, 1, 1, L)

        def carry(weights: Tensor) -> Tensor:
            theirs, own = weights[-2 * n : -n], weights[-n:]  # after the rows without words
            there = places[..., : own.shape[-1]].expand_as(own)
            moved = torch.where(there < 0, own, theirs.gather(-1, there.clamp(min=0)))
            return torch.cat([weights[:-n], moved])

        words = [prompts[i] for i in some] + [edits[i] for i in some]
        denoise = model.denoise_with(words, guidance)

        def together(x: Tensor, t: int) -> Tensor:
            with attending(net, carry) if t > (1 - share) * schedule.T else nullcontext():
                return denoise(x, t)

        x = noise[some].repeat(2, 1, 1, 1)
        pairs.append(model.decode(last(sampler(together, schedule, x, steps))).clamp(-1, 1))
    first, second = zip(*(pair.chunk(2) for pair in pairs))
    return torch.cat(first), torch.cat(second)
