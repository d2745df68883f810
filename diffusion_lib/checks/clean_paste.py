"""Exercise 35: a mask for pixels, and one for latents."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import max_pool2d, pixel_shuffle, pixel_unshuffle

from diffusion_lib.checks._call import call
from diffusion_lib.checks._compare import as_tensor
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._wrong import Wrong


def right(encode, decode, inpaint, pictures, mask):
    latents = encode(pictures)
    k = pictures.shape[-1] // latents.shape[-1]
    small = max_pool2d(mask, k)
    painted = decode(inpaint(latents, small))
    return mask * painted + (1 - mask) * pictures


def blocks(small: Tensor, k: int) -> Tensor:
    """A mask of latents in the size of pixels."""
    return small.repeat_interleave(k, 2).repeat_interleave(k, 3)


POOL, PASTE = "max_pool2d(mask, k)", "mask * painted + (1 - mask) * pictures"
TABLE = Table(
    right,
    f"""
one pixel of each block | {POOL} -> mask[..., ::k, ::k]
one pixel of each block | {POOL} -> mask[..., k // 2 :: k, k // 2 :: k]
one pixel of each block | {POOL} -> mask[..., k - 1 :: k, k - 1 :: k]
    one pixel of each block decides for its latent, and the others are not asked: what is unknown
    there is pasted as if it were known
mean | {POOL} -> F.avg_pool2d(mask, k)
mean | {POOL} -> F.interpolate(mask, scale_factor=1 / k, mode="bilinear")
mean | {POOL} -> F.interpolate(mask, scale_factor=1 / k, mode="bilinear", antialias=True)
    the mask is averaged, so that part of an unknown pixel is pasted; a latent is known, or it is not
majority | {POOL} -> (F.avg_pool2d(mask, k) > 0.5).float()
majority | {POOL} -> (F.avg_pool2d(mask, k) >= 0.5).float()
    the majority of a block's pixels decides; one unknown pixel is enough to spoil a latent
all of them unknown | {POOL} -> -max_pool2d(-mask, k)
    a latent is painted anew only if all its pixels are unknown: it is the other way round, known only
    if all are known
grown | {POOL} -> max_pool2d(max_pool2d(mask, k), 3, 1, 1)
grown | {POOL} -> max_pool2d(max_pool2d(mask, 3, 1, 1), k)
    the mask has grown further than it must: latents are painted anew whose pixels are all known
everything anew | {POOL} -> torch.ones_like(max_pool2d(mask, k))
    all latents are painted anew, so that the new parts know nothing of the old ones
mask inverted | {POOL} -> 1 - max_pool2d(mask, k)
mask inverted | {POOL} -> max_pool2d(1 - mask, k)
    `inpaint` gets the mask the wrong way round: 1 is where something new is painted
pixels not pasted | {PASTE} -> painted
    the known pixels come out of the decoder, a little changed: paste them back as they were
pasted by blocks | {PASTE} -> blocks(small, k) * painted + (1 - blocks(small, k)) * pictures
    in pixels the mask of the latents is used, so that known pixels are lost: there the mask stays as
    it was
pasted the wrong way round | {PASTE} -> (1 - mask) * painted + mask * pictures
    at the end the mask is the wrong way round: the old picture is under the mask, the new one elsewhere
pasted as zero | {PASTE} -> mask * painted
    outside of the mask nothing is left of the pictures
pasted on top | {PASTE} -> mask * painted + pictures
    the painted part is added to what was under the mask, which must go first
hole emptied first | encode(pictures) -> encode(pictures * (1 - mask))
    the pictures are changed before they are encoded; encode them as they are
known part only | encode(pictures) -> encode(pictures * mask)
    what is unknown is encoded, and what is known left out
not painted | decode(inpaint(latents, small)) -> decode(latents)
    `inpaint` is not used, or its result is not: the latents come back as they were
clamped | {PASTE} -> ({PASTE}).clamp(-1, 1)
clamped | decode(inpaint(latents, small)) -> decode(inpaint(latents, small)).clamp(-1, 1)
    the result is clamped to -1…1, which was not asked for
mask of pixels
    `inpaint` wants the mask in the latents' size, and got another
exchanged
    `inpaint` wants the latents first, and the mask after them
""",
)


def autoencoder(k: int) -> tuple[Callable, Callable]:
    """Stand-ins: k x k pixels to a latent of 4 numbers, and back, with what a latent cannot hold lost."""
    generator = torch.Generator().manual_seed(k)
    down = torch.randn(4, 3 * k * k, 1, 1, generator=generator) / k
    up = torch.randn(3 * k * k, 4, 1, 1, generator=generator) / 2

    def encode(x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 4, H / k, W / k)
        return F.conv2d(pixel_unshuffle(x, k), down)

    def decode(z: Tensor) -> Tensor:
        z = z + 0.3 * z.sin() + 0.5 * z.roll(1, 3) - 0.4 * z.roll(-1, 2)  # blocks overlap
        return pixel_shuffle(F.conv2d(z, up), k)

    return encode, decode


def inpaint(latents: Tensor, small: Tensor) -> Tensor:
    """A stand-in, whose new latents look at their neighbours."""
    latents, small = as_tensor(latents, "inpaint's latents"), as_tensor(small, "inpaint's mask")
    if latents.ndim != 4 or latents.shape[1] == 1 and small.ndim == 4 and small.shape[1] == 4:
        reason = f"`inpaint` got latents of shape {tuple(latents.shape)}."
        raise TABLE.wrong("exchanged", reason)
    if small.ndim != 4 or small.shape[2:] != latents.shape[2:]:
        reason = f"`inpaint` got a mask of shape {tuple(small.shape)} for latents {tuple(latents.shape)}."
        raise TABLE.wrong("mask of pixels", reason)
    around = latents.roll(1, 3) - 0.5 * latents.roll(1, 2) + 0.2
    return small * around.tanh() + (1 - small) * latents


def watched(answer: Callable) -> Callable[..., Tensor]:
    """The answer, with a word on what it returns where that is of the latents' size."""

    def observed(encode, decode, inpaint, pictures, mask):
        out = call(answer, encode, decode, inpaint, pictures, mask, name="clean_paste")
        out = as_tensor(out, "clean_paste")
        if out.shape[1:] == encode(pictures).shape[1:]:
            raise Wrong("`clean_paste` returned latents: decode them.", "not decoded")
        return out

    return observed


@exercise(
    35,
    "The pen shows through",
    'notebook 13, "Editing"',
    "latents: 1 if any of the k x k pixels is 1;   pixels: mask · painted + (1 - mask) · pictures",
    "Only what is known entirely is pasted, and of that nothing is lost.",
)
def clean_paste(answer) -> None:
    """answer(encode, decode, inpaint, pictures, mask) -> (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(35)

    def case(k: int, b: int, masks: int, h: int, w: int, density: float) -> tuple:
        pictures = torch.rand(b, 3, h * k, w * k, generator=generator) * 2 - 1
        mask = (torch.rand(masks, 1, h * k, w * k, generator=generator) < density).float()
        whole = (torch.rand(masks, 1, h, w, generator=generator) < 0.5).float()
        mask = mask * blocks(whole, k)  # some latents are known entirely
        mask[:, :, :k, :k] = 1  # and some not at all
        return *autoencoder(k), inpaint, pictures, mask

    cases = [case(4, 2, 1, 5, 5, 0.4), case(2, 3, 3, 4, 7, 0.5), case(3, 1, 1, 6, 4, 0.3)]
    judge(answer, cases, TABLE, "clean_paste", observe=watched)
