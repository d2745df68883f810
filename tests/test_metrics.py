import pytest
import scipy.stats
import torch

from diffusion_lib.data import art
from diffusion_lib.data.art import draw, to_float
from diffusion_lib.data.sprites import NAMES, Attributes, Sprites, caption, parse, sample
from diffusion_lib.metrics import clustered_interval, correct, prompt_accuracy, recognise


@pytest.fixture(scope="module")
def truth():
    """3,000 pictures of all combinations, held-out ones too, with captions that leave nothing out."""
    generator = torch.Generator().manual_seed(1)
    rows = sample(3000, generator)
    rows[:, 1] = torch.randint(8, (3000,), generator=generator)
    images = to_float(draw(rows, generator))
    prompts = [caption(Attributes(*[n[i] for n, i in zip(NAMES, row)])) for row in rows.tolist()]
    return images, prompts


def noisy(images, std):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    return images + std * noise


def test_right_on_clean_and_on_noisy_renders_and_low_when_shuffled(truth):
    images, prompts = truth
    assert prompt_accuracy(images, prompts) >= 0.995
    assert prompt_accuracy(noisy(images, 0.1), prompts) >= 0.98
    assert prompt_accuracy(images, prompts[1:] + prompts[:1]) < 0.15


@pytest.mark.parametrize("times", [1.2, 1.4, 2.0, 2.5])
def test_saturated_colours_are_read_rightly_or_refused(truth, times):
    images, prompts = truth[0][:600], truth[1][:600]
    grey = images.mean(dim=1, keepdim=True)
    loud = (grey + times * (images - grey)).clamp(-1, 1)
    right = correct(loud, prompts)
    refused = torch.tensor([seen is None for seen in recognise(loud)])
    assert (right | refused).all()
    assert right.float().mean() > 0.99 if times < 1.5 else refused.any()


@pytest.mark.parametrize("times, share", [(1.2, 0.98), (1.4, 0.88)])
def test_more_contrast_washes_out_pale_places_only(truth, times, share):
    images, prompts = truth[0][:600], truth[1][:600]
    seen = recognise((times * images).clamp(-1, 1))
    named = [parse(prompt) for prompt in prompts]
    apart = [(a, b) for a, b in zip(named, seen) if b is not None and a != b]
    assert all(a._replace(background=b.background) == b for a, b in apart)
    assert sum(a == b for a, b in zip(named, seen)) / len(named) > share


def test_captions_that_leave_things_out():
    data = Sprites(2000, seed=5)
    images = to_float(data.images)
    assert prompt_accuracy(images, data.captions) >= 0.995
    assert prompt_accuracy(images, data.captions[1:] + data.captions[:1]) < 0.15


def test_garbage_is_no_sprite(truth):
    images = truth[0][:500]
    generator = torch.Generator().manual_seed(3)
    uniform = torch.rand(images.shape, generator=generator) * 2 - 1
    shuffled = images.flatten(2)[:, :, torch.randperm(256, generator=generator)].view_as(images)
    bare = art.LAYOUTS[:, :32].flatten(0, 1).long()  # scenery without a sprite, (7 · 32, 256)
    palette = art.PLAIN.repeat(7, 1, 1)
    palette[:, art.SCENERY :] = art.SCENES
    rows = torch.arange(7).repeat_interleave(32)
    bare = to_float(palette[rows[:, None], bare]).view(-1, 16, 16, 3).permute(0, 3, 1, 2)
    for name, garbage in dict(
        noise=torch.randn(images.shape, generator=generator).clamp(-1, 1),
        uniform=uniform,
        shuffled=shuffled,
        bare=bare,
        flat=torch.zeros(3, 3, 16, 16) + torch.tensor([-1.0, 0, 1]).view(3, 1, 1, 1),
    ).items():
        assert all(seen is None for seen in recognise(garbage)), name


def test_two_blended_sprites_count_for_hardly_any_prompt(truth):
    images, prompts = truth
    blend = (images[:1000] + images[1000:2000]) / 2
    assert prompt_accuracy(blend, prompts[:1000]) < 0.15


def test_one_wrong_attribute_is_enough():
    image = Sprites.render("a red dragon facing left at night")[None]
    assert correct(image, ["a red dragon facing left at night"]).all()
    assert correct(image, ["a dragon"]).all() and correct(image, ["a red dragon at night"]).all()
    for wrong in ["a blue dragon", "a red cat", "a red dragon facing right", "a dragon in a cave"]:
        assert not correct(image, [wrong]).any(), wrong


def test_larger_pictures_are_averaged_down():
    image = Sprites.render("a blue knight with a red flag", size=48)[None]
    assert recognise(image)[0][:4] == ("knight", "blue", "flag", "red")


@pytest.mark.parametrize(
    "images, prompts, message",
    [
        (torch.zeros(1, 3, 16, 16), ["a cat", "a cat"], "1 pictures need as many"),
        (torch.zeros(1, 3, 16, 16), "a", "list of texts"),
        (torch.zeros(1, 16, 16), ["a cat"], r"must have shape \(B, C, H, W"),
        (torch.zeros(1, 3, 20, 20), ["a cat"], "or larger"),
        (torch.zeros(1, 3, 16, 16).byte(), ["a cat"], "float tensor"),
        (torch.zeros(0, 3, 16, 16), [], "is empty"),
        (torch.zeros(1, 3, 16, 16), ["a dragn"], "did you mean 'dragon'"),
    ],
)
def test_bad_input(images, prompts, message):
    with pytest.raises((ValueError, TypeError), match=message):
        prompt_accuracy(images, prompts)


def test_pictures_of_another_range_are_refused_not_scored(truth):
    images, prompts = truth[0][:20], truth[1][:20]
    for other in (images / 2 + 0.5, (images + 1) * 127.5):
        with pytest.raises(ValueError, match="2 x - 1"):
            prompt_accuracy(other, prompts)
    images = images.clone()
    images[3, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 of 20 pictures hold NaN"):
        prompt_accuracy(images, prompts)


def test_interval_is_wilsons_when_errors_are_independent():
    right = torch.rand(4000, generator=torch.Generator().manual_seed(0)) < 0.9
    low, high = clustered_interval(right, list(range(4000)))
    wilson = scipy.stats.binomtest(int(right.sum()), 4000).proportion_ci(method="wilson")
    assert low == pytest.approx(wilson.low, abs=2e-3) and high == pytest.approx(
        wilson.high, abs=2e-3
    )


def test_interval_covers_the_truth_when_errors_come_in_clusters():
    generator, covered = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        share = torch.where(torch.rand(60, generator=generator) < 0.2, 0.5, 1.0)  # truth: 0.9
        right = torch.rand(60, 10, generator=generator) < share[:, None]
        low, high = clustered_interval(right.flatten(), [i for i in range(60) for _ in range(10)])
        covered += low < 0.9 < high
    assert 0.91 < covered / 300 < 0.99


def test_interval_without_errors_counts_clusters_not_pictures():
    low, high = clustered_interval(torch.ones(600, dtype=torch.bool), [i % 60 for i in range(600)])
    assert high == 1 and 0.93 < low < 0.95
