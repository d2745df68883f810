"""From tensors to picture files, with Pillow alone.

Images are float (..., 3, H, W) in [-1, 1]; Pillow's are 8 bits a channel.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion_lib.files import write
from diffusion_lib.guards import floats, whole

HOLD = 1.5  # seconds that a film rests on its last frame


def to_uint8(images: Tensor) -> np.ndarray:
    """(..., 3, H, W) float in [-1, 1], clamped -> (..., H, W, 3) uint8, as Pillow wants it.

    Raises ValueError for another shape, for integers, and for values that are not finite.
    """
    floats("images", images)
    if images.ndim < 3 or images.shape[-3] != 3:
        raise ValueError(
            f"images have shape (..., 3, H, W), not {tuple(images.shape)}: "
            "permute channels to the front, or expand a grey channel to three"
        )
    images = images.detach().float().cpu()
    if not images.isfinite().all():
        bad = int((~images.isfinite()).sum())
        raise ValueError(f"{bad} of {images.numel()} values are NaN or infinite: did it diverge?")
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1).numpy()


def tile(
    images: Tensor,
    columns: int | None = None,
    pad: int = 2,
    scale: int = 1,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """All images on one sheet, row by row, each pixel enlarged to scale x scale without blur.

    images: (B, 3, H, W), or (3, H, W) for one. columns: by default as near to a square as it gets.
    pad: pixels of background between the images, after the enlargement.
    """
    if isinstance(images, Tensor) and images.ndim == 3:
        images = images[None]
    pixels = to_uint8(images)
    if pixels.ndim != 4:
        raise ValueError(f"tile takes (B, 3, H, W), not {tuple(images.shape)}")
    scale, pad = whole("scale", scale, 1), whole("pad", pad, 0)
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width, _ = pixels.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else min(whole("columns", columns, 1), n)
    rows = math.ceil(n / columns)
    size = (columns * (width + pad) - pad, rows * (height + pad) - pad)
    sheet = Image.new("RGB", size, background)
    for i, image in enumerate(pixels):
        row, column = divmod(i, columns)
        sheet.paste(Image.fromarray(image), (column * (width + pad), row * (height + pad)))
    return sheet


def sheet(picture: Image.Image | Tensor) -> Image.Image:
    """A Pillow image as it is; a tensor as `tile` lays it out, 64 pixels a picture or more."""
    if isinstance(picture, Image.Image):
        return picture
    return tile(picture, scale=max(1, math.ceil(64 / floats("images", picture).shape[-1])))


def save_png(image: Image.Image | Tensor, path: str | Path) -> None:
    """Writes a PNG, whole or not at all; makes the folder. Raises ValueError or OSError in words."""
    image, path = sheet(image), named(path, ".png")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write(path, buffer.getvalue())


def save_gif(
    frames: Sequence[Image.Image | Tensor], path: str | Path, seconds: float = 2.0
) -> None:
    """Writes an endless film of `seconds`, which then rests on its last frame.

    frames: of one size. They share one palette, chosen half by the last frame and half by all of
    them, without dithering, so that nothing flickers.
    """
    frames, path = [sheet(frame) for frame in frames], named(path, ".gif")
    durations = frame_durations(frames, seconds)
    size = tuple(min(side, 128) for side in frames[0].size)
    small = [f.convert("RGB").resize(size, Image.Resampling.NEAREST) for f in frames]
    sample = small + [small[-1]] * len(small)
    pixels = np.concatenate([np.asarray(f).reshape(-1, 3) for f in sample])
    palette = Image.fromarray(pixels[None]).quantize(255, kmeans=3)  # the 256th: "as before"
    none = Image.Dither.NONE
    first, *rest = [f.convert("RGB").quantize(palette=palette, dither=none) for f in frames]
    buffer = io.BytesIO()
    first.save(
        buffer, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False
    )
    write(path, buffer.getvalue())


def frame_durations(frames: Sequence[Image.Image], seconds: float) -> list[int]:
    """Milliseconds for each frame; the last rests a while longer. Raises ValueError if none fit."""
    if not frames:
        raise ValueError("a film needs at least one frame")
    if len({f.size for f in frames}) > 1:
        raise ValueError(f"a film's frames have one size, not {sorted({f.size for f in frames})}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"a film lasts more than 0 seconds, not {seconds}")
    each = max(20, round(1000 * seconds / len(frames)))  # browsers slow down anything faster
    return [each] * (len(frames) - 1) + [each + int(1000 * HOLD)]


def named(path: str | Path, suffix: str) -> str | Path:
    """`path`, if it ends in `suffix`; else ValueError."""
    if Path(path).suffix.lower() != suffix:
        raise ValueError(f"{path}: this is a {suffix} file, so call it {Path(path).stem}{suffix}")
    return path
