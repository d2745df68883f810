"""From a folder of pictures to a model that paints: the commands of notebook 11."""

import json

import pytest
import torch
from PIL import Image

from diffusion_lib import recipes
from diffusion_lib.__main__ import main
from diffusion_lib.checkpoints import load_checkpoint
from diffusion_lib.data import Emoji, Folder
from diffusion_lib.data.latents import Latents
from diffusion_lib.images import to_uint8
from diffusion_lib.pipeline import load_autoencoder, load_pretrained
from diffusion_lib.training import shuffled, train

SHORT = ("--steps", "2", "--every", "2", "--batch-size", "8", "--size", "16")


def write_folder(path, rows):
    """Emoji as a folder with metadata.jsonl."""
    data = Emoji()
    images, captions = data.batch(rows)
    path.mkdir()
    told = []
    for i, (pixels, caption) in enumerate(zip(to_uint8(images), captions)):
        Image.fromarray(pixels).save(path / f"{i:04d}.png")
        told.append(json.dumps({"file_name": f"{i:04d}.png", "text": caption}))
    (path / "metadata.jsonl").write_text("\n".join(told), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "pictures"
    write_folder(path, torch.arange(0, 4000, 100))
    return path


@pytest.fixture(scope="module")
def autoencoder(folder):
    """Trained for two steps, on that folder."""
    name = folder.parent / "coder"
    told = ["train", "--data", folder, "--part", "autoencoder", *SHORT, "-o", name]
    assert main([str(t) for t in told]) == 0
    return name.with_suffix(".model.safetensors")


def test_forty_pictures_become_a_model_that_paints(folder, autoencoder, tmp_path, capsys):
    name = tmp_path / "painter"
    told = ["train", "--data", folder, "--autoencoder", autoencoder, *SHORT, "-o", name]
    assert main([str(t) for t in told]) == 0
    printed = capsys.readouterr().out
    assert f"generate … --model {name}.model.safetensors" in printed
    caption = Folder(folder).captions[0]
    told = ["generate", caption, "--model", f"{name}.model.safetensors", "--steps", "2"]
    assert main([*told, "-o", str(tmp_path / "p.png")]) == 0
    assert Image.open(tmp_path / "p.png").size == (256, 256)
    assert main([*told, "-o", str(tmp_path / "p.png"), "--negative", "qwertz"]) == 1
    assert "unknown word 'qwertz'" in capsys.readouterr().err
    model = load_pretrained(f"{name}.model.safetensors")
    z = model.autoencoder.encode(Folder(folder, 16).batch(range(40))[0])
    assert z.std() == pytest.approx(1, abs=1e-3)  # scaled by what these pictures need
    # the autoencoder is frozen, and to be had from either file
    ours, its = (load_autoencoder(p) for p in (f"{name}.model.safetensors", autoencoder))
    assert torch.equal(ours.quant.weight, its.quant.weight) and its.scale == 1


def test_a_painter_goes_on_where_it_was(folder, autoencoder, tmp_path):
    told = ["train", "--data", folder, "--autoencoder", autoencoder, *SHORT]
    for steps, name in ((4, "whole"), (2, "parts")):
        command = [*told, "-o", tmp_path / name, "--steps", steps]
        assert main([str(t) for t in command]) == 0
    # a longer run has another schedule of rates, so the halves are compared step by step
    whole, parts = (load_checkpoint(tmp_path / f"{n}.safetensors") for n in ("whole", "parts"))
    assert whole.step == 4 and parts.step == 2
    assert torch.equal(
        whole.tensors["model.autoencoder.scale"], parts.tensors["model.autoencoder.scale"]
    )
    command = [*told, "-o", tmp_path / "parts", "--steps", 4]
    assert main([str(t) for t in command]) == 0
    assert load_checkpoint(tmp_path / "parts.safetensors").step == 4


def test_emoji_written_out_as_a_folder_train_to_the_same_result(tmp_path, autoencoder):
    rows = torch.arange(0, 6400, 100)
    write_folder(tmp_path / "emoji", rows)
    data, folder, coder = Emoji(), Folder(tmp_path / "emoji"), load_autoencoder(autoencoder)
    assert folder.captions == [data.captions[i] for i in rows]
    assert torch.equal(
        folder.images, torch.from_numpy(to_uint8(data.pictures(rows))).permute(0, 3, 1, 2)
    )
    data.cells, data.captions = data.cells[rows], folder.captions
    losses = []
    for pictures in (data, folder):
        latents = Latents(pictures, coder)
        config = recipes.latent_config(coder.config, 16, folder.words)
        config["unet"] |= dict(channels=[8, 16, 16], heads=2)
        torch.manual_seed(0)
        model = recipes.TextToImage.from_config(config)
        model.autoencoder.requires_grad_(False)
        run = train(model, shuffled(latents, 16), steps=6)
        losses.append(torch.stack([state.loss for state in run]))
    assert (losses[0] - losses[1]).abs().max() < 5e-3 and losses[0].std() > 0.01


def test_a_new_run_may_start_from_a_trained_model(folder, autoencoder, tmp_path, capsys):
    told = ["train", "--data", folder, *SHORT]
    first = [*told, "--autoencoder", autoencoder, "-o", tmp_path / "a"]
    second = [*told, "--start", tmp_path / "a.model.safetensors", "--lr", "1e-9"]
    for command in (first, [*second, "-o", tmp_path / "b"]):
        assert main([str(t) for t in command]) == 0
    a, b = (load_pretrained(tmp_path / f"{n}.model.safetensors").state_dict() for n in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a if k.startswith("autoencoder"))
    assert all((a[k] - b[k]).abs().max() < 1e-5 for k in a) and not all(
        torch.equal(a[k], b[k]) for k in a
    )
    (tmp_path / "other").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "other" / "a.png")
    (tmp_path / "other" / "a.txt").write_text("a zeppelin")
    second[2] = tmp_path / "other"
    assert main([str(t) for t in [*second, "-o", tmp_path / "c"]]) == 1
    assert "unknown word 'zeppelin'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--data", "nowhere"], "there is no folder at nowhere"),
        (["--part", "judge"], "the judge judges emoji"),
        (["--data", "emoji", "--autoencoder", "nothing"], "no checkpoint named or at 'nothing'"),
        (["--data", "emoji", "--autoencoder", "sprites"], "does not fit this version"),
    ],
)
def test_mistakes(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *options, "-o", "x"]) == 1
    assert message in capsys.readouterr().err
