import numpy as np
import torch


def plain(images):
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def half_added(images):
    return (images * 127.5 + 128).clamp(0, 255).byte()


def by_numpy(images):
    shades = np.rint((np.clip(images.numpy(), -1, 1) + 1) / 2 * 255).astype(np.uint8)
    return torch.from_numpy(shades)


def picture_by_picture(images):
    return torch.stack(
        [torch.round(255 * (x.clip(-1, 1) / 2 + 0.5)).to(torch.uint8) for x in images]
    )


RIGHT = [plain, half_added, by_numpy, picture_by_picture]


def stretch(x, dims):
    x = x - x.amin(dims, keepdim=True)
    return (x / x.amax(dims, keepdim=True) * 255).nan_to_num(0)


def as_in_the_repository(images):
    return (
        torch.stack([255 * (x - x.min()) / (x.max() - x.min()) for x in images])
        .nan_to_num(0)
        .byte()
    )


def own_range(images):
    return stretch(images, (1, 2, 3)).round().byte()


def channels(images):
    return stretch(images, (2, 3)).round().byte()


def batch(images):
    return stretch(images, (0, 1, 2, 3)).round().byte()


def cut(images):
    return ((images.clamp(-1, 1) + 1) * 127.5).byte()


def wraps(images):
    return torch.remainder(((images + 1) * 127.5).round(), 256).byte()


def zero_to_one(images):
    return (images.clamp(0, 1) * 255).round().byte()


def by_128(images):
    return ((images.clamp(-1, 1) + 1) * 128).round().clamp(max=255).byte()


def negative(images):
    return 255 - ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


def floats(images):
    return ((images.clamp(-1, 1) + 1) * 127.5).round()


def in_place(images):
    return images.clamp_(-1, 1).add_(1).mul_(127.5).round().byte()


def below_only(images):
    return torch.remainder(((images.clamp(min=-1) + 1) * 127.5).round(), 256).byte()


def above_only(images):
    return torch.remainder(((images.clamp(max=1) + 1) * 127.5).round(), 256).byte()


def by_127(images):
    return ((images.clamp(-1, 1) + 1) * 127).round().byte()


def by_255(images):
    return ((images.clamp(-1, 1) + 1) * 255).round().clamp(max=255).byte()


WRONG = {
    "own range": [own_range],
    "own range + cut, not rounded": [as_in_the_repository],
    "clamped from below only": [below_only],
    "clamped from above only": [above_only],
    "scaled by 127": [by_127],
    "not halved": [by_255],
    "range of each channel": [channels],
    "range of the batch": [batch],
    "cut, not rounded": [cut],
    "not clamped": [wraps],
    "0 to 1 assumed": [zero_to_one],
    "scaled by 128": [by_128],
    "negative": [negative],
    "dtype": [floats],
    "in place": [in_place],
    "none": [lambda images: None],
    "type": [lambda images: plain(images).numpy()],
}

UNKNOWN = [
    lambda images: plain(images) // 2,
    lambda images: plain(images).movedim(1, -1),
    lambda images: plain(images.tanh()),
]
