import copy
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusion_lib.images import save_png, tile, to_uint8


def with_fork(paint, model, noise, folder, step):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step:06d}.png"
    model.eval()
    with torch.no_grad(), torch.random.fork_rng():
        images = paint(model, noise)
    model.train()
    tile(images).save(path)
    return path


@torch.no_grad()
def by_state(paint, model, noise, folder, step):
    state, mode = torch.get_rng_state(), model.training
    try:
        sheet = tile(paint(model.eval(), noise.clone()))
    finally:
        model.train(mode)
        torch.set_rng_state(state)
    path = Path(folder, str(step).zfill(6) + ".png")
    save_png(sheet, path)
    return path


def on_a_copy(paint, model, noise, folder, step):
    os.makedirs(folder, exist_ok=True)
    twin = copy.deepcopy(model)
    twin.eval()
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        images = paint(twin, noise)
    name = os.path.join(folder, f"{str(step):0>6}.png")
    tile(images).save(name)
    return name


def by_hand(paint, model, noise, folder, step):
    before = torch.random.get_rng_state()
    model.train(False)
    with torch.no_grad():
        pictures = to_uint8(paint(model, noise))
    model.train(True)
    torch.random.set_rng_state(before)
    n, height, width, _ = pictures.shape
    columns = int(np.ceil(n**0.5))
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (height + 2), i % columns * (width + 2)
        sheet[y : y + height, x : x + width] = picture
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(folder / f"{step:06}.png")
    return folder / f"{step:06}.png"


RIGHT = [with_fork, by_state, on_a_copy, by_hand]


def as_reported(paint, model, noise, folder, step):
    model.eval()
    tile(paint(model, torch.randn_like(noise)), scale=4).save(folder / "samples.png")


def needs_a_folder(paint, model, noise, folder, step):
    model.eval()
    with torch.no_grad():
        images = paint(model, noise)
    model.train()
    tile(images).save(folder / f"{step:06d}.png")
    return folder / f"{step:06d}.png"


def makes_one_level(paint, model, noise, folder, step):
    folder.mkdir(exist_ok=True)
    return with_fork(paint, model, noise, folder, step)


def makes_it_again(paint, model, noise, folder, step):
    folder.mkdir(parents=True)
    return with_fork(paint, model, noise, folder, step)


def new_noise(paint, model, noise, folder, step):
    with torch.random.fork_rng():
        return with_fork(paint, model, torch.randn_like(noise), folder, step)


def noise_of_the_step(paint, model, noise, folder, step):
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(step))
    return with_fork(paint, model, other, folder, step)


def hook(eval=True, grad=False, back=True, fork=True, before=None, name="{:06d}.png", sheet=tile):
    """The hook with one thing another way."""

    def answer(paint, model, noise, folder, step):
        folder.mkdir(parents=True, exist_ok=True)
        state = torch.get_rng_state()
        if before:
            before(noise)
        if eval:
            model.eval()
        with torch.set_grad_enabled(grad):
            images = paint(model, noise)
        if back:
            model.train()
        if fork:
            torch.set_rng_state(state)
        path = folder / name.format(step)
        sheet(images).save(path)
        return path

    return answer


def a_file_each(paint, model, noise, folder, step):
    with_fork(paint, model, noise, folder, step).unlink()
    model.eval()
    with torch.no_grad():
        for i, image in enumerate(paint(model, noise)):
            tile(image).save(folder / f"{step:06d}_{i}.png")
    model.train()
    return folder


def a_file_each_once(paint, model, noise, folder, step):
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    with torch.no_grad():
        for i, image in enumerate(paint(model, noise)):
            tile(image).save(folder / f"{step:06d}_{i}.png")
    model.train()
    return folder


def nothing(paint, model, noise, folder, step):
    with_fork(paint, model, noise, folder, step)


def the_sheet(paint, model, noise, folder, step):
    return Image.open(with_fork(paint, model, noise, folder, step))


def noise_in_place(paint, model, noise, folder, step):
    return with_fork(paint, model, noise.mul_(2), folder, step)


def seeds(paint, model, noise, folder, step):
    torch.manual_seed(0)
    return with_fork(paint, model, noise, folder, step)


def no_gradients_any_more(paint, model, noise, folder, step):
    torch.set_grad_enabled(False)
    return with_fork(paint, model, noise, folder, step)


def black(images):
    return tile((images * 255).clamp(0, 255) / 127.5 - 1)


def halves_the_weights(paint, model, noise, folder, step):
    path = with_fork(paint, model, noise, folder, step)
    with torch.no_grad():
        for p in model.parameters():
            p.div_(2)
    return path


def outer_mode_alone(paint, model, noise, folder, step):
    path = with_fork(paint, model, noise, folder, step)
    model.eval()
    model.training = True
    return path


def outermost_only(paint, model, noise, folder, step):
    """eval() reaches every module, and one is put back."""
    path = with_fork(paint, model, noise, folder, step)
    for module in model.modules():
        module.training = module is model
    return path


def state_taken_too_late(paint, model, noise, folder, step):
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    with torch.no_grad():
        images = paint(model, noise)
    state = torch.get_rng_state()
    model.train()
    path = folder / f"{step:06d}.png"
    tile(images).save(path)
    torch.set_rng_state(state)
    return path


WRONG = {
    "model changed": [halves_the_weights],
    "no folder": [as_reported, needs_a_folder, makes_one_level],
    "folder exists": [makes_it_again],
    "new noise": [new_noise, noise_of_the_step],
    "not in eval mode": [hook(eval=False)],
    "gradients kept": [hook(grad=True)],
    "left in eval mode": [outer_mode_alone, outermost_only, hook(back=False)],
    "random numbers": [hook(fork=False, before=torch.randn_like)],
    "global seed": [seeds],
    "random numbers of paint": [hook(fork=False), state_taken_too_late],
    "same name": [hook(name="samples.png")],
    "no leading zeros": [hook(name="{}.png"), hook(name="step_{}.png")],
    "a file a picture": [a_file_each_once],
    "none": [nothing],
    "type": [the_sheet],
    "in place": [noise_in_place],
    "negative values are black": [hook(sheet=black)],
    "made for [0, 1]": [hook(sheet=lambda images: tile((images + 1) / 2))],
    "first picture alone": [hook(sheet=lambda images: tile(images[0]))],
    "stretched": [
        hook(sheet=lambda x: tile(2 * (x - x.min()) / (x.max() - x.min()) - 1)),
    ],
    "grad mode": [no_gradients_any_more],
}


def returns_the_folder(paint, model, noise, folder, step):
    return with_fork(paint, model, noise, folder, step).parent


def one_step_late(paint, model, noise, folder, step):
    return with_fork(paint, model, noise, folder, step + 1)


UNKNOWN = [
    a_file_each,
    returns_the_folder,
    one_step_late,
    hook(sheet=lambda images: tile(images, columns=5)),
    hook(sheet=lambda images: tile(-images)),
    hook(name="{:06d}.jpg"),
    lambda paint, model, noise, folder, step: folder / f"{step:06d}.png",
]
