"""Paints the README's pictures with the shipped model: python tools/pictures.py"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from diffusion_lib import load_pretrained
from diffusion_lib.data import HELD_OUT, parse
from diffusion_lib.images import save_png, tile

ASSETS = Path(__file__).resolve().parent.parent / "assets"
PROMPTS = [
    "a blue dragon facing right",
    "a knight with a red shield in the snow",
    "a green potion at night",
    "a pink cat facing left on grass",
    "an orange wizard with a blue flag",
    "a yellow robot in a cave",
    "a purple mushroom in the desert",
    "a red ghost at sunset",
    "at night, a white horse facing right",
    "a princess that is green with a pink balloon",
    "a blue crystal in a cave",
    "an orange snail facing left on grass",
]
CELL, ROOM = 176, 44  # a picture of 11 times 16 pixels, and below it two lines of words


def labelled(images: torch.Tensor, columns: int) -> Image.Image:
    """Pictures above their prompts; a star where the pair of kind and colour was held out."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (CELL + 12) - 12, rows * (CELL + ROOM)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, prompt) in enumerate(zip(images, PROMPTS)):
        x, y = i % columns * (CELL + 12), i // columns * (CELL + ROOM)
        sheet.paste(tile(image, scale=CELL // 16), (x, y))
        named = parse(prompt)
        words = prompt.split()
        if (named.kind, named.colour) in HELD_OUT:
            words.append("*")
        lines, middle = [" ".join(words)], x + CELL // 2
        if len(lines[0]) > 26:
            half = max(k for k in range(len(words)) if len(" ".join(words[:k])) <= 24)
            lines = [" ".join(words[:half]), " ".join(words[half:])]
        for k, line in enumerate(lines):
            draw.text(
                (middle, y + CELL + 10 + 15 * k), line, fill="#333333", anchor="mm", font_size=13
            )
    return sheet


def main() -> None:
    model = load_pretrained("sprites")
    save_png(labelled(model.generate(PROMPTS, seed=4), columns=6), ASSETS / "prompts.png")
    film = list(model.film(PROMPTS[:1], seed=4))
    shown = [film[i] for i in (0, 5, 9, 12, 14, 16, 17, 18, 19)]
    rows = torch.cat([s.x for s in shown] + [s.x0 for s in shown])
    save_png(tile(rows, columns=len(shown), scale=7, pad=6), ASSETS / "film.png")


if __name__ == "__main__":
    main()
