import pytest
import torch
from torch.nn.functional import avg_pool2d

from diffusion_lib import exams
from diffusion_lib.autoencoder import Autoencoder, AutoencoderConfig
from diffusion_lib.data.emoji import STYLES, THINGS, Emoji, parse
from diffusion_lib.judge import Gallery, Judge, JudgeConfig, Lessons, load_judge
from diffusion_lib.noise import seeded
from diffusion_lib.pipeline import load_autoencoder, load_pretrained


def test_its_verdict_is_what_it_sees():
    torch.manual_seed(0)
    judge, images = Judge().eval(), torch.rand(3, 3, 64, 64) * 2 - 1
    things, styles = judge(images)
    assert things.shape == (3, len(THINGS)) and styles.shape == (3, len(STYLES))
    assert judge.features(images).shape == (3, 192)
    with torch.no_grad():
        judge.things.bias[THINGS.index("octopus")] += 1000
        judge.styles.bias[STYLES.index("blob")] += 1000
    prompts = ["an octopus, blob style, on white", "an octopus, flat style", "a squid"]
    verdict = judge.verdict(images, prompts)
    assert verdict.thing.tolist() == [True, True, False]
    assert verdict.style.tolist() == [True, False, True]  # the last names none
    assert verdict.both.tolist() == [True, False, False]


def test_it_learns_a_few_pictures():
    torch.manual_seed(0)
    data = Emoji()
    rows = torch.arange(0, 160, 20)
    images, cells = data.pictures(rows), data.cells[rows]
    judge = Judge(JudgeConfig((8, 16, 16, 32)))
    optimiser = torch.optim.Adam(judge.parameters(), lr=3e-3)
    for _ in range(150):
        loss = judge.loss(images, cells[:, 0], cells[:, 1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert judge.verdict(images, [data.captions[i] for i in rows]).both.all()


def test_the_gallery_knows_every_real_picture():
    gallery = Gallery()
    for prompts in (Emoji.held_out_prompts(60), Emoji.never_prompts(20)):
        images = exams.real(prompts)
        assert gallery.verdict(images, prompts).both.all()
        noisy = images + 0.1 * torch.randn(images.shape, generator=seeded(0))
        assert gallery.verdict(noisy, prompts).both.float().mean() > 0.9
        nearest = gallery.distances(images, prompts).amin(1)
        assert nearest.max() < 2e-3  # cdist's rounding
    noise = torch.rand(1, 3, 64, 64, generator=seeded(0)) * 2 - 1
    prompt = "an octopus, blob style, on a red background"
    by_hand = [
        (avg_pool2d(noise, 4) - avg_pool2d(Emoji().render(f"{t}, {s} style, on red")[None], 4))
        .square().mean().sqrt().item()
        for t, s in list(gallery.rows)[:3]
    ]  # fmt: skip
    told = gallery.distances(noise, ["an octopus, blob style, on a red background"])[0, :3]
    assert (told - torch.tensor(by_hand)).abs().max() < 1e-4
    with pytest.raises(ValueError, match="'an octopus' names no background"):
        gallery.distances(noise, ["an octopus"])
    assert not gallery.verdict(noise, [prompt]).both.any()


def test_floors_change_one_thing_only():
    prompts = Emoji.held_out_prompts(30)
    for thing in (False, True):
        others = exams.instead(prompts, thing)
        for a, b in zip(map(parse, prompts), map(parse, others)):
            assert (a.thing != b.thing) == thing and (a.style != b.style) == (not thing)
            assert a.ground == b.ground
        exams.real(others)  # somebody drew each
    assert exams.instead(prompts, True) == exams.instead(prompts, True)


def test_lessons_are_real_pictures_changed_a_little():
    torch.manual_seed(0)
    coder = Autoencoder(AutoencoderConfig((8, 8), fold=2)).eval()
    lessons = Lessons(coder, copies=1)
    rows = torch.tensor([5, 17, 900])
    x, things, styles = lessons.batch(rows)
    again = lessons.batch(rows)
    assert torch.equal(x, again[0]) and x.shape == (3, 3, 64, 64)
    names = list(lessons.names)
    for row, thing, style in zip(rows, things, styles):
        assert names[row] == (THINGS[thing], STYLES[style])
    drawn = lessons.drawn(torch.arange(200), seeded(1))
    assert drawn.min() >= -1.001 and drawn.max() <= 1.001
    # a pixel of the corner is mostly background, of any colour; the thing is still in the middle
    assert drawn[:, :, 0, 0].std() > 0.3
    centre = Emoji().tiles[:200, :3, 28:36, 28:36].float().mean((2, 3)) / 127.5 - 1
    opaque = Emoji().tiles[:200, 3, 24:40, 24:40].amin((1, 2)) == 255
    off = (drawn[:, :, 28:36, 28:36].mean((2, 3)) - centre)[opaque].abs().mean()
    assert opaque.sum() > 50 and off < 0.25


def test_the_shipped_judge_knows_real_pictures_after_the_autoencoder():
    judge, coder = load_judge(), load_autoencoder()
    prompts = Emoji.held_out_prompts(200)
    with torch.no_grad():
        images = coder.decode(coder.encode(exams.real(prompts))).clamp(-1, 1)
    verdict = judge.verdict(images, prompts)
    assert verdict.both.float().mean() >= 0.97
    assert exams.Exam().nearest_of_ten(images[:40], prompts[:40], 0).float().mean() >= 0.97
    swapped = exams.instead(prompts, thing=True)
    assert judge.verdict(images, swapped).thing.float().mean() <= 0.01


def test_the_exam_prints_what_it_covers():
    model = load_pretrained("emoji")
    lines = list(exams.Exam().report(model, 3, steps=1))
    assert lines[0].startswith("held-out prompts: thing ") and " style " in lines[0]
    assert [line for line in lines if line.startswith("seen prompts: ")]
    assert "nearer to the true picture than to 9 others" in lines[-1]
    for words in ("ceiling", "floor", "nearest training picture", "second judge"):
        assert any(words in line for line in lines)
