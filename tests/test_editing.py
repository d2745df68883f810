import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lib import load_pretrained
from diffusion_lib.__main__ import main
from diffusion_lib.data.sprites import Sprites
from diffusion_lib.editing import (
    attending,
    counterparts,
    cut,
    fresh,
    img2img,
    inpaint,
    invert,
    known,
    repaint,
    reword,
    slerp,
)
from diffusion_lib.metrics import prompt_accuracy, recognise
from diffusion_lib.sampling import ddim, dpm_solver, heun, last
from diffusion_lib.schedules import cosine_schedule, flow_schedule, linear_schedule

SCHEDULES = [cosine_schedule(), linear_schedule(), flow_schedule()]
KNIGHT, DRAGON = "a knight with a blue shield", "a red dragon facing left"


@pytest.fixture(scope="module")
def model():
    return load_pretrained("sprites")


@pytest.fixture(scope="module")
def sprites():
    data = Sprites(1)
    return torch.stack([data.render(KNIGHT, seed=3), data.render(DRAGON, seed=5)])


def gaussian(schedule, mean, variance):
    """The exact denoiser of pictures from N(mean, variance): E[x_0 | x_t]."""

    def denoise(x, t):
        alpha, sigma = (float(row[t]) for row in (schedule.alpha, schedule.sigma))
        return mean + alpha * variance * (x - alpha * mean) / (alpha**2 * variance + sigma**2)

    return denoise


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", [ddim, heun, dpm_solver])
def test_any_sampler_starts_where_the_schedule_is_cut(schedule, sampler):
    part = cut(schedule, 0.5)
    assert part.T == 500 and torch.equal(part.sigma, schedule.sigma[:501])
    x0 = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    x = part.add_noise(x0, part.T, torch.randn(2, 3, 4, 4, dtype=torch.float64))
    times = [step.t for step in sampler(lambda x, t: x0, part, x, 5)]
    assert times == [400, 300, 200, 100, 0]
    assert (last(sampler(lambda x, t: x0, part, x, 5)) - x0).abs().max() < 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_known_stays_what_it_is_at_every_step(schedule):
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    mask[..., :2] = 1
    denoise = known(gaussian(schedule, 0.3, 0.5), x0, mask)
    x = schedule.add_noise(x0, schedule.T, eps)
    for step in ddim(denoise, schedule, x, 8):
        right = float(schedule.alpha[step.t]) * x0 + float(schedule.sigma[step.t]) * eps
        assert (step.x - right)[..., 2:].abs().max() < 1e-6
        assert step.t == 0 or (step.x - right)[..., :2].abs().max() > 0.01


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_inversion_is_what_ddim_undoes(schedule):
    x0 = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoise = gaussian(schedule, 0.3, 0.5)
    errors = []
    for rounds in (1, 3, 30):
        noise = last(invert(denoise, schedule, x0, 20, rounds))
        errors.append(float((last(ddim(denoise, schedule, noise, 20)) - x0).abs().max()))
    assert errors[0] > 1e-3 > errors[2] and errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_steps_invert_better(schedule):
    x0 = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoise, errors = gaussian(schedule, 0.3, 0.5), []
    for steps in (10, 100):
        noise = last(invert(denoise, schedule, x0, steps))
        errors.append(float((last(ddim(denoise, schedule, noise, steps)) - x0).abs().max()))
    assert errors[1] < errors[0] / 4


def test_inverted_pictures_are_as_noise_is():
    schedule = cosine_schedule()
    x0 = 0.3 + 0.5**0.5 * torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = last(invert(gaussian(schedule, 0.3, 0.5), schedule, x0, 100))
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_repaint_of_one_round_is_ddim_and_more_rounds_keep_the_distribution():
    schedule = cosine_schedule()
    denoise = gaussian(schedule, 0.3, 0.5)
    x = torch.randn(4096, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    once = last(repaint(denoise, schedule, x, 10, rounds=1))
    assert torch.equal(once, last(ddim(denoise, schedule, x, 10)))
    generator = torch.Generator().manual_seed(1)
    often = last(repaint(denoise, schedule, x, 200, 3, generator))
    assert abs(often.mean() - 0.3) < 0.02 and abs(often.var() - 0.5) < 0.03


def test_fresh_noise_in_each_step():
    schedule = cosine_schedule()
    x0, x = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    taken = list(fresh(lambda x, t: x0, schedule, x, 4, torch.Generator().manual_seed(1)))
    generator = torch.Generator().manual_seed(1)
    for step in taken:
        z = torch.randn(x.shape, generator=generator)
        right = float(schedule.alpha[step.t]) * x0 + float(schedule.sigma[step.t]) * z
        assert torch.allclose(step.x, right, atol=1e-6)
    assert [step.t for step in taken] == [750, 500, 250, 0] and torch.equal(taken[-1].x, x0)


def test_a_painted_half_fits_the_other(model):
    """The background of the left half is read from the whole picture, whose right half is new."""
    data, prompts = (
        Sprites(1),
        ["a red dragon", "a white robot", "a blue fish", "a green ninja"] * 8,
    )
    images = torch.stack([data.render(prompt, seed=i) for i, prompt in enumerate(prompts)])
    mask = (torch.arange(16) >= 8).float().expand(16, 16)
    before = [sprite.background for sprite in recognise(images)]
    fits = {}
    for sampler in (None, ddim):
        found = recognise(inpaint(model, images, mask, prompts, seed=0, sampler=sampler))
        fits[sampler] = sum(s is not None and s.background == b for s, b in zip(found, before))
    assert fits[None] > fits[ddim] and fits[None] >= 28


def test_a_picture_is_painted_alike_whatever_stands_beside_it(model, sprites):
    mask = torch.zeros(16, 16)
    mask[8:] = 1
    both = inpaint(model, sprites, mask, [KNIGHT, DRAGON], seed=3, steps=4)
    one = inpaint(model, sprites[:1], mask, [KNIGHT], seed=3, steps=4)
    assert (both[:1] - one).abs().max() < 1e-4


def test_slerp():
    a, b = torch.randn(2, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(slerp(a, b, 0), a, atol=1e-5)
    assert torch.allclose(slerp(a, b, 1), b, atol=1e-5)
    assert torch.allclose(slerp(a, a, 0.3), a, atol=1e-3)
    unit = [z / z.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for z in (a, b)]
    assert torch.allclose(slerp(*unit, 0.3).flatten(1).norm(dim=1), torch.ones(5), atol=1e-5)
    with pytest.raises(ValueError, match="one shape"):
        slerp(a, b[:2], 0.5)


def test_more_strength_changes_more(model, sprites):
    prompts = [KNIGHT, DRAGON]
    changes = []
    for strength in (0.1, 0.5, 0.9):
        painted = img2img(model, sprites, prompts, strength=strength, seed=0)
        changes.append(float((painted - sprites).square().mean()))
    assert changes[0] < 0.02 and changes[0] < changes[1] < changes[2]
    anew = img2img(model, sprites, prompts, strength=1, seed=0)
    assert (anew - model.generate(prompts, seed=0)).abs().max() < 0.05


def test_the_words_decide_what_becomes_of_a_picture(model, sprites):
    blue = ["a blue dragon facing left"] * 8
    painted = img2img(model, sprites[1:].expand(8, -1, -1, -1), blue, strength=0.8, seed=0)
    assert prompt_accuracy(painted, blue) > 0.5


def test_nothing_outside_the_mask_changes(model, sprites):
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[8:] = True
    painted = inpaint(model, sprites, mask, [KNIGHT, DRAGON], seed=0)
    assert torch.equal(painted[..., :8, :], sprites[..., :8, :])
    assert (painted - sprites)[..., 8:, :].abs().max() > 0.1
    soft = inpaint(model, sprites, mask.float()[None, None] / 2, [KNIGHT, DRAGON], seed=0)
    assert torch.equal(soft[..., :8, :], sprites[..., :8, :])


def test_counterparts(model):
    def of(a, b):
        ids, _ = model.tokenizer([a, b])
        return counterparts(*ids)[:8].tolist()

    assert of("a red dragon", "a blue dragon")[:4] == [0, 1, 2, 3]
    assert of("a dragon at night", "a red dragon at night")[:6] == [0, 1, -1, 2, 3, 4]
    assert of("a red dragon at night", "a dragon at night")[:5] == [0, 1, 3, 4, 5]


def test_the_same_words_paint_the_same_picture(model):
    prompts = [KNIGHT, DRAGON] * 5  # more than go through the network at once
    first, second = reword(model, prompts, prompts, seed=0)
    assert (first - second).abs().max() < 1e-3
    assert (first - model.generate(prompts, seed=0)).abs().max() < 1e-3


def test_carried_maps_keep_more_of_the_picture(model):
    prompts, edits = ["a knight with a blue shield"] * 8, ["a wizard with a blue shield"] * 8
    first, kept = reword(model, prompts, edits, share=0.8, seed=0)
    same, free = reword(model, prompts, edits, share=0, seed=0)
    assert (first - same).abs().max() < 1e-3
    assert (kept - first).square().mean() < (free - first).square().mean()


def test_the_network_is_itself_again_even_after_an_error(model):
    x, cond = model.noise(2, 0), model.encode([KNIGHT, DRAGON])
    before = model.denoiser(x, 500, cond)
    with pytest.raises(ZeroDivisionError), attending(model.denoiser.net, lambda w: w / (1 // 0)):
        model.denoiser(x, 500, cond)
    assert torch.equal(model.denoiser(x, 500, cond), before)
    with attending(model.denoiser.net, lambda weights: weights):
        assert (model.denoiser(x, 500, cond) - before).abs().max() < 1e-4


def test_what_cannot_be_edited(model, sprites):
    prompts = [KNIGHT, DRAGON]
    for wrong, said in (
        (dict(strength=0), "changes nothing"),
        (dict(strength=1.2), "0…1"),
        (dict(strength=float("nan")), "finite"),
        (dict(mask=torch.ones(8, 8)), "a mask for pictures"),
        (dict(mask=torch.full((16, 16), 2.0)), "lies in"),
        (dict(mask=[[0, 1]]), "mask must be a float tensor"),
        (dict(mask=torch.full((16, 16), torch.nan)), "lies in"),
    ):
        with pytest.raises(ValueError, match=said):
            img2img(model, sprites, prompts, **wrong)
    with pytest.raises(ValueError, match="2 pictures need as many prompts"):
        img2img(model, sprites, prompts[:1])
    with pytest.raises(ValueError, match="paints 16 pixels"):
        img2img(model, sprites.repeat(1, 1, 2, 2), prompts)
    with pytest.raises(ValueError, match="NaN"):
        img2img(model, sprites * torch.nan, prompts)
    with pytest.raises(ValueError, match="edits"):
        reword(model, prompts, prompts[:1])
    with pytest.raises(ValueError, match="rounds"):
        last(invert(lambda x, t: x, cosine_schedule(), sprites, 5, rounds=0))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16"])
def test_the_command_takes_a_picture_of_any_mode(tmp_path, capsys, mode):
    rows = np.linspace(0, 255, 40, dtype=np.uint8)[:, None].repeat(60, 1)
    if mode == "I;16":
        Image.fromarray(rows.astype(np.uint16) * 257).save(tmp_path / "my picture.png")
    else:
        Image.fromarray(rows).convert(mode).save(tmp_path / "my picture.png")
    Image.fromarray((rows > 128).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    out = tmp_path / "ä" / "out.png"
    told = ["edit", str(tmp_path / "my picture.png"), DRAGON, "--steps", "4", "-o", str(out)]
    assert main([*told, "--mask", str(tmp_path / "mask.png")]) == 0
    assert Image.open(out).size == (2 * 256 + 2, 256)
    assert "before and after" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    picture, broken = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGB", (20, 20)).save(picture)
    Image.new("L", (10, 20)).save(tmp_path / "mask.png")
    broken.write_bytes(picture.read_bytes()[:50])
    for told, said in (
        ([tmp_path / "no.png", DRAGON], "no file"),
        ([broken, DRAGON], "cannot be read"),
        ([picture, "a red dragn"], "did you mean 'dragon'"),
        ([picture, DRAGON, "--strength", "2"], "strength"),
        ([picture, DRAGON, "--mask", tmp_path / "mask.png"], "they must be the same"),
        ([picture, DRAGON, "-o", tmp_path / "x.jpg"], ".png"),
    ):
        assert main(["edit", *map(str, told)]) == 1
        assert said in capsys.readouterr().err
