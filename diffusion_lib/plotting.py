"""Figures for the notebooks. Importing this module sets matplotlib's style for the course.

A figure is shown as a picture *and* a fixed sentence with a number in it. nbval cannot compare
pictures; it compares the sentence, so a figure that changes makes its notebook's test fail.
"""

import base64
import io
import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from diffusion_lib.images import frame_durations, sheet, to_uint8

# Okabe and Ito (2008): eight colours that colour-blind readers tell apart; yellow left out.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]

plt.rcParams.update(
    {
        "figure.dpi": 110,
        "figure.figsize": (6.4, 3.6),
        "figure.constrained_layout.use": True,
        "figure.titlesize": "large",
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "image.interpolation": "nearest",
        "image.cmap": "viridis",
    }
)


def show(fig: Figure, text: str) -> None:
    """Displays `fig` with `text` as its caption and its alternative text, and closes it.

    text: a sentence that says what to see, with one rounded statistic computed from what is drawn.
    """
    size = max(10, 1.2 * fig.get_figwidth())  # wide figures are shrunk where they are shown
    width = int(fig.get_figwidth() * 150 / size)  # characters that fit on a line
    words = textwrap.fill(text, width)
    fig.text(0.5, -0.02, words, ha="center", va="top", color="0.35", fontsize=size)
    _show_png(png(fig, bbox_inches="tight"), text)


def png(fig: Figure, bbox_inches: str | None = None) -> bytes:
    """The figure as a PNG file's bytes; it is closed."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", bbox_inches=bbox_inches, metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


def _show_png(data: bytes, text: str) -> None:
    if not text.strip():
        raise ValueError("a figure needs a text: what to see, and one number computed from it")
    bundle = {"image/png": base64.b64encode(data).decode(), "text/plain": text}
    display(bundle, metadata={"image/png": {"alt": text}}, raw=True)


def image_figure(
    images: Tensor, titles: Sequence[str] | None = None, columns: int | None = None, title: str = ""
) -> Figure:
    """A figure of images, (B, 3, H, W) in [-1, 1], row by row, each under its own title."""
    pixels = to_uint8(images)
    if pixels.ndim != 4 or len(pixels) == 0:
        raise ValueError(f"images have shape (B, 3, H, W) with B >= 1, not {tuple(images.shape)}")
    if titles is not None and len(titles) != len(pixels):
        raise ValueError(f"{len(titles)} titles for {len(pixels)} images")
    columns = min(columns or 8, len(pixels))
    rows = math.ceil(len(pixels) / columns)
    size = (1.3 * columns, (1.6 if titles else 1.3) * rows + 0.4 * bool(title))
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i < len(pixels):
            axis.imshow(pixels[i])
        if titles and i < len(pixels):
            axis.set_title(textwrap.fill(titles[i], 18), fontsize=8, loc="center")
    fig.suptitle(title)
    return fig


def show_images(
    images: Tensor,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    title: str = "",
    text: str = "",
) -> None:
    """Shows `image_figure(...)`; without a text, with the images' number, mean and deviation."""
    figure = image_figure(images, titles, columns, title)
    mean, std = images.float().mean().item(), images.float().std(correction=0).item()
    show(figure, text or f"{len(images)} images: mean {mean + 0:.2f}, standard deviation {std:.2f}")


def curves(
    x: Tensor | Sequence[float],
    lines: Mapping[str, Tensor | Sequence[float]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    log: str = "",
) -> Figure:
    """A figure of named curves over one x; show it by `show(curves(...), text)`.

    log: the axes that are logarithmic, "", "x", "y" or "xy".
    """
    fig, axis = plt.subplots()
    for name, y in lines.items():
        axis.plot(torch.as_tensor(x).cpu(), torch.as_tensor(y).detach().cpu(), label=name)
    scales = {f"{side}scale": "log" for side in log}
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel, **scales)
    if len(lines) > 1:
        axis.legend()
    return fig


def animate(frames: Sequence[Tensor | Image.Image], text: str, seconds: float = 3.0) -> None:
    """Shows a film, endlessly, resting on its last frame; `text` as in `show`.

    frames: (3, H, W) or (B, 3, H, W) in [-1, 1], or Pillow images. An animated PNG, so that
    nbval compares its text alone.
    """
    sheets = [sheet(frame) for frame in frames]
    durations = frame_durations(sheets, seconds)
    buffer = io.BytesIO()
    first, *rest = sheets
    first.save(buffer, "PNG", save_all=True, append_images=rest, duration=durations, loop=0)
    _show_png(buffer.getvalue(), text)
