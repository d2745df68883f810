"""Paints the pictures of README and docs with the shipped models: python tools/pictures.py"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from diffusion_lib import ddim, last, load_pretrained
from diffusion_lib.data import HELD_OUT, Emoji, parse
from diffusion_lib.images import save_png, tile

ROOT = Path(__file__).resolve().parent.parent
ASSETS, SEEDS = ROOT / "assets", ROOT / "docs" / "seeds"
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
EMOJI = {
    "an owl, flat style, on a green background": "held out: no training picture shows an owl in this style",
    "a rocket, twemoji style, on a yellow background": "held out",
    "grapes, noto style, on a white background": "held out",
    "a robot, classic style, on an orange background": "held out",
    "an octopus, blob style, on a blue background": "in the training pictures",
    "a castle, soft style, on a pink background": "in the training pictures",
    "a shark, noto style, on a white background": "a thing that no training picture shows in any style",
    "a puppy, flat style, on a white background": "a word that no caption holds",
}
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


def sprites() -> None:
    """assets/prompts.png and assets/film.png"""
    model = load_pretrained("sprites")
    save_png(labelled(model.generate(PROMPTS, seed=4), columns=6), ASSETS / "prompts.png")
    film = list(model.film(PROMPTS[:1], seed=4))
    shown = [film[i] for i in (0, 5, 9, 12, 14, 16, 17, 18, 19)]
    rows = torch.cat([s.x for s in shown] + [s.x0 for s in shown])
    save_png(tile(rows, columns=len(shown), scale=7, pad=6), ASSETS / "film.png")


def emoji() -> None:
    """docs/seeds.md: the first 64 seeds of each prompt; assets/emoji.png: 24 held-out prompts."""
    model = load_pretrained("emoji")
    SEEDS.mkdir(exist_ok=True)
    noise = torch.cat([model.noise(1, seed) for seed in range(64)])
    page = [
        "# The first 64 seeds of eight prompts",
        "Seeds 0 to 63 from left to right and from top to bottom, none left out; 20 steps, guidance 4. "
        "`python tools/pictures.py` paints them again.",
    ]
    for i, (prompt, what) in enumerate(EMOJI.items(), start=1):
        denoise = model.denoise_with([prompt] * 64)
        images = model.decode(last(ddim(denoise, model.denoiser.schedule, noise, 20)))
        tile(images.clamp(-1, 1), columns=16).save(SEEDS / f"{i}.webp", quality=90)
        page += [f"## {prompt}", f"({what})", f"![64 pictures of: {prompt}](seeds/{i}.webp)"]
    (ROOT / "docs" / "seeds.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    prompts = Emoji.held_out_prompts(24, seed=7)
    save_png(tile(model.generate(prompts, seed=0), columns=12, pad=4), ASSETS / "emoji.png")


if __name__ == "__main__":
    sprites()
    emoji()
