import torch
import torch.nn.functional as F


def plain(encode, decode, inpaint, pictures, mask):
    latents = encode(pictures)
    small = F.max_pool2d(mask, pictures.shape[-1] // latents.shape[-1])
    return torch.where(mask == 1, decode(inpaint(latents, small)), pictures)


def by_blocks(encode, decode, inpaint, pictures, mask):
    """Any pixel of a block, without pooling."""
    z = encode(pictures)
    h, w = z.shape[2:]
    k = mask.shape[2] // h
    any_new = mask.view(-1, 1, h, k, w, k).amax((3, 5))
    return pictures + mask * (decode(inpaint(z, any_new)) - pictures)


def by_counting(encode, decode, inpaint, pictures, mask):
    with torch.no_grad():
        z = encode(pictures)
        small = (F.adaptive_avg_pool2d(mask, z.shape[2:]) > 0).to(z)
        new, old = decode(inpaint(z, small)), pictures.clone()
        where = mask.bool().expand_as(old)
        old[where] = new[where]
        return old


def all_known(encode, decode, inpaint, pictures, mask):
    """Of the known pixels the smallest, turned round twice."""
    z = encode(pictures)
    k = pictures.shape[-2] // z.shape[-2]
    known = F.unfold(1 - mask, k, stride=k).prod(1).view(len(mask), 1, *z.shape[2:])
    return torch.lerp(pictures, decode(inpaint(z, 1 - known)), mask)


def picture_by_picture(encode, decode, inpaint, pictures, mask):
    done = []
    for picture, m in zip(pictures.split(1), mask.expand(len(pictures), -1, -1, -1).split(1)):
        z = encode(picture)
        small = F.adaptive_max_pool2d(m, z.shape[2:])
        done.append(decode(inpaint(z, small.expand_as(z))) * m + picture * (1 - m))
    return torch.cat(done)


RIGHT = [by_blocks, plain, by_counting, all_known, picture_by_picture]


def shrunk(small_of):
    """small_of(mask, k): the mask of the latents."""

    def answer(encode, decode, inpaint, pictures, mask):
        latents = encode(pictures)
        small = small_of(mask, pictures.shape[-1] // latents.shape[-1])
        return mask * decode(inpaint(latents, small)) + (1 - mask) * pictures

    return answer


def pasted(paste):
    """paste(pictures, painted, mask, k)"""

    def answer(encode, decode, inpaint, pictures, mask):
        latents = encode(pictures)
        k = pictures.shape[-1] // latents.shape[-1]
        return paste(pictures, decode(inpaint(latents, F.max_pool2d(mask, k))), mask, k)

    return answer


def as_reported(encode, decode, inpaint, pictures, mask):
    latents = encode(pictures)
    small = F.interpolate(mask, size=latents.shape[2:])
    painted = decode(inpaint(latents, small))
    return mask * painted + (1 - mask) * pictures


def by_grown_blocks(pictures, painted, mask, k):
    wide = F.interpolate(F.max_pool2d(mask, k), scale_factor=k)
    return torch.lerp(pictures, painted, wide)


def emptied(encode, decode, inpaint, pictures, mask):
    return plain(lambda x: encode(torch.where(mask > 0, 0.0, x)), decode, inpaint, pictures, mask)


def in_whole_pixels(encode, decode, inpaint, pictures, mask):
    return torch.lerp(pictures, decode(inpaint(encode(pictures), mask)), mask)


def exchanged(encode, decode, inpaint, pictures, mask):
    return plain(encode, decode, lambda z, small: inpaint(small, z), pictures, mask)


def not_painted(encode, decode, inpaint, pictures, mask):
    return plain(encode, decode, lambda z, small: z, pictures, mask)


def not_decoded(encode, decode, inpaint, pictures, mask):
    latents = encode(pictures)
    return inpaint(latents, F.max_pool2d(mask, pictures.shape[-1] // latents.shape[-1]))


def in_place(encode, decode, inpaint, pictures, mask):
    new = plain(encode, decode, inpaint, pictures, mask)
    pictures[:] = new
    return pictures


def nearest_and_unpasted(encode, decode, inpaint, pictures, mask):
    latents = encode(pictures)
    return decode(inpaint(latents, F.interpolate(mask, size=latents.shape[2:])))


WRONG = {
    "one pixel of each block": [
        as_reported,
        shrunk(lambda mask, k: F.interpolate(mask, scale_factor=1 / k, mode="nearest-exact")),
    ],
    "mean": [
        shrunk(F.avg_pool2d),
        shrunk(lambda m, k: F.interpolate(m, scale_factor=1 / k, mode="bilinear")),
    ],
    "majority": [shrunk(lambda m, k: F.avg_pool2d(m, k).gt(0.5).float())],
    "all of them unknown": [shrunk(lambda m, k: 1 - F.max_pool2d(1 - m, k))],
    "grown": [shrunk(lambda m, k: F.max_pool2d(F.max_pool2d(m, k), 3, stride=1, padding=1))],
    "everything anew": [shrunk(lambda m, k: F.max_pool2d(m, k) * 0 + 1)],
    "mask inverted": [
        shrunk(lambda m, k: 1 - F.max_pool2d(m, k)),
        shrunk(lambda m, k: F.max_pool2d(1 - m, k)),
    ],
    "pixels not pasted": [pasted(lambda pictures, painted, mask, k: painted)],
    "pasted by blocks": [pasted(by_grown_blocks)],
    "pasted the wrong way round": [pasted(lambda old, new, mask, k: torch.lerp(new, old, mask))],
    "pasted as zero": [pasted(lambda old, new, mask, k: new * mask)],
    "pasted on top": [pasted(lambda old, new, mask, k: old + new * mask)],
    "hole emptied first": [emptied],
    "not painted": [not_painted],
    "clamped": [pasted(lambda old, new, mask, k: torch.lerp(old, new.clamp(-1, 1), mask))],
    "mask of pixels": [in_whole_pixels],
    "exchanged": [exchanged],
    "not decoded": [not_decoded],
    "in place": [in_place],
    "none": [lambda encode, decode, inpaint, pictures, mask: None],
    "type": [lambda *given: (plain(*given), given[-1])],
    "signature": [lambda pictures, mask: pictures],
    "one pixel of each block + pixels not pasted": [nearest_and_unpasted],
}

UNKNOWN = [
    shrunk(lambda m, k: F.max_pool2d(m, k) * 0.5),
    shrunk(lambda m, k: F.max_pool2d(m, k).flip(-1)),
    shrunk(lambda m, k: (F.avg_pool2d(m, k) > 0.2).float()),
    pasted(lambda old, new, mask, k: (old + new) / 2),
    pasted(lambda old, new, mask, k: torch.lerp(old, new, mask).half()),
    pasted(lambda old, new, mask, k: torch.lerp(old, new, mask)[:1]),
    pasted(lambda old, new, mask, k: torch.lerp(old, new, 0.9 * mask)),
]
