import pytest
import torch
from safetensors.torch import save_file

from diffusion_lib.data import Sprites
from diffusion_lib.metrics import prompt_accuracy
from diffusion_lib.pipeline import PRETRAINED, TextToImage, load_pretrained, sprite_config
from diffusion_lib.training import Checkpoint, load_checkpoint, save_checkpoint

PROMPTS = ["a red dragon facing left", "a knight with a blue shield"]


@pytest.fixture(scope="module")
def model():
    return load_pretrained("sprites")


def test_the_shipped_model_is_small_and_has_the_recipes_configuration(model):
    assert sum(p.numel() for p in model.parameters()) <= 2_000_000
    assert model.config == sprite_config(Sprites.words)
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
        model.loss(torch.zeros(2, 3, 16, 16), ["a cat"] * 100, generator)
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
