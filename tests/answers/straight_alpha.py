import numpy as np
import torch
import torch.nn.functional as F

from diffusion_lib.data.emoji import composed


def compose_first(pictures, colours, k):
    return F.avg_pool2d(composed(pictures, colours), k)


def premultiplied(pictures, colours, k):
    x = pictures / 255
    x = F.interpolate(
        torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1), scale_factor=1 / k, mode="area"
    )
    ground = (colours[:, :, None, None] + 1) / 2
    return (x[:, :3] + (1 - x[:, 3:]) * ground) * 2 - 1


def blocks(pictures, colours, k):
    """Each k x k pixels along two axes of their own."""
    x = pictures.unflatten(3, (-1, k)).unflatten(2, (-1, k)).float()  # (B, 4, h, k, w, k)
    weight = x[:, 3:] / 255
    seen = weight.sum((3, 5))
    colour = (weight * x[:, :3]).sum((3, 5)) / seen.clamp(min=1e-6) / 127.5 - 1
    return torch.lerp(colours[..., None, None].expand_as(colour), colour, seen / k**2)


def by_numpy(pictures, colours, k):
    out = []
    for picture, colour in zip(pictures.numpy(), colours.numpy()):
        rgb, alpha = picture[:3] / 127.5 - 1.0, picture[3] / 255.0
        full = alpha * rgb + (1 - alpha) * colour[:, None, None]
        small = full.reshape(3, full.shape[1] // k, k, full.shape[2] // k, k).mean((2, 4))
        out.append(torch.from_numpy(small.astype(np.float32)))
    return torch.stack(out)


def by_convolution(pictures, colours, k):
    """Each colour with its alpha in one batch of planes."""
    alpha = (pictures[:, 3:].double() / 255).expand(-1, 3, -1, -1)
    planes = colours[:, :, None, None] + alpha * (
        pictures[:, :3] / 127.5 - 1 - colours[:, :, None, None]
    )
    kernel = torch.full((1, 1, k, k), k**-2.0, dtype=torch.float64)
    return F.conv2d(planes.flatten(0, 1)[:, None], kernel, stride=k).view(
        *colours.shape, -1, planes.shape[3] // k
    )


RIGHT = [by_convolution, compose_first, premultiplied, blocks, by_numpy]


def parts(pictures, colours):
    colour, alpha = pictures[:, :3].float() / 127.5 - 1, pictures[:, 3:].float() / 255
    return colour, alpha, colours[:, :, None, None]


def as_reported(pictures, colours, k):
    small = F.avg_pool2d(pictures.float(), k)
    colour, alpha = small[:, :3] / 127.5 - 1, small[:, 3:] / 255
    return alpha * colour + (1 - alpha) * colours[:, :, None, None]


def as_if_premultiplied(pictures, colours, k):
    small = F.avg_pool2d(pictures.float(), k) / 255
    ground = (colours[:, :, None, None] + 1) / 2
    return 2 * (small[:, :3] + (1 - small[:, 3:]) * ground) - 1


def clipped(pictures, colours, k):
    return as_if_premultiplied(pictures, colours, k).clamp(-1, 1)


def in_the_models_range(pictures, colours, k):
    colour, alpha, ground = parts(pictures, colours)
    return F.avg_pool2d(colour, k) + (1 - F.avg_pool2d(alpha, k)) * ground


def alpha_twice(pictures, colours, k):
    colour, alpha, ground = parts(pictures, colours)
    figure, alpha = F.avg_pool2d(alpha * colour, k), F.avg_pool2d(alpha, k)
    return alpha * figure + (1 - alpha) * ground


def squared(pictures, colours, k):
    colour, alpha, ground = parts(pictures, colours)
    return F.avg_pool2d(alpha * alpha * colour + (1 - alpha) * ground, k)


def divided(pictures, colours, k):
    colour, alpha, ground = parts(pictures, colours)
    figure, alpha = F.avg_pool2d(alpha * colour, k), F.avg_pool2d(alpha, k)
    return figure / alpha.clamp(min=1e-9) + (1 - alpha) * ground


def one_pixel(pictures, colours, k):
    return composed(pictures[:, :, ::k, ::k], colours)


def with_alpha(change):
    def answer(pictures, colours, k):
        colour, alpha, ground = parts(pictures, colours)
        alpha = change(alpha)
        return F.avg_pool2d(alpha * colour + (1 - alpha) * ground, k)

    return answer


def no_alpha(pictures, colours, k):
    return F.avg_pool2d(parts(pictures, colours)[0], k)


def no_background(pictures, colours, k):
    return compose_first(pictures, 0 * colours, k)


def background_in_full(pictures, colours, k):
    colour, alpha, ground = parts(pictures, colours)
    return F.avg_pool2d(alpha * colour, k) + ground


def from_0_to_1(pictures, colours, k):
    colour, alpha, ground = parts(pictures, colours)
    return F.avg_pool2d(alpha * (colour + 1) / 2 + (1 - alpha) * ground, k)


def alpha_first(pictures, colours, k):
    return compose_first(pictures.roll(-1, 1), colours, k)


def not_smaller(pictures, colours, k):
    return composed(pictures, colours)


def in_place(pictures, colours, k):
    pictures[:, :3][(pictures[:, 3:] == 0).expand(-1, 3, -1, -1)] = 0
    return compose_first(pictures, colours, k)


def bytes_overflow(pictures, colours, k):
    premultiplied = torch.cat([pictures[:, :3] * pictures[:, 3:] // 255, pictures[:, 3:]], 1)
    return as_if_premultiplied(premultiplied, colours, k)


def rounded_to_bytes(pictures, colours, k):
    shades = (compose_first(pictures, colours, k) + 1) * 127.5
    return shades.round() / 127.5 - 1


def one_background(pictures, colours, k):
    return compose_first(pictures, colours[:1].expand_as(colours), k)


WRONG = {
    "colours averaged alone": [as_reported],
    "as if premultiplied": [as_if_premultiplied, clipped, in_the_models_range],
    "alpha twice": [alpha_twice, squared],
    "divided again": [divided],
    "one pixel of each": [one_pixel],
    "0 to 255": [with_alpha(lambda a: 255 * a)],
    "-1 to 1": [with_alpha(lambda a: 2 * a - 1)],
    "hard edge": [with_alpha(torch.round), with_alpha(torch.ceil), with_alpha(torch.floor)],
    "upside down": [with_alpha(lambda a: 1 - a)],
    "no alpha": [no_alpha],
    "no background": [no_background],
    "background in full": [background_in_full],
    "pictures from 0 to 1": [from_0_to_1],
    "result from 0 to 1": [lambda pictures, c, k: compose_first(pictures, c, k) / 2 + 0.5],
    "alpha first": [alpha_first],
    "not made smaller": [not_smaller],
    "in place": [in_place],
    "none": [lambda pictures, colours, k: None],
    "type": [lambda pictures, colours, k: compose_first(pictures, colours, k).numpy()],
    "colours averaged alone + no background": [
        lambda pictures, colours, k: as_reported(pictures, 0 * colours, k)
    ],
}

UNKNOWN = [
    bytes_overflow,
    rounded_to_bytes,
    one_background,
    with_alpha(lambda a: a**0.5),
    lambda pictures, colours, k: compose_first(pictures, colours, k).flip(1),
    lambda pictures, colours, k: compose_first(pictures, colours, k).movedim(1, -1),
]
