import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lib.__main__ import main
from diffusion_lib.training import Checkpoint, load_checkpoint, save_checkpoint, shuffled


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    return status, *capsys.readouterr()


def test_generate_writes_a_grid_and_its_film(tmp_path, capsys):
    out = tmp_path / "new" / "p.png"
    status, printed, _ = run(
        capsys, "generate", "a red dragon facing left", "a green potion at night",
        "--steps", 5, "--guidance", 2, "--seed", 7, "--negative", "a cat", "-o", out,
    )  # fmt: skip
    assert status == 0 and str(out) in printed and str(out.with_suffix(".gif")) in printed
    assert Image.open(out).size == (2 * 256 + 2, 256)
    assert Image.open(out.with_suffix(".gif")).n_frames == 5
    assert len(np.unique(np.asarray(Image.open(out)))) > 30
    first = out.read_bytes()
    run(
        capsys, "generate", "a red dragon facing left", "a green potion at night",
        "--steps", 5, "--guidance", 2, "--seed", 7, "--negative", "a cat", "-o", out,
    )  # fmt: skip
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["a red dragn"], "unknown word 'dragn' in 'a red dragn'; did you mean 'dragon'"),
        (["a cat", "--steps", 0], "steps must be in 1…1000"),
        (["a cat", "--model", "nothing"], "shipped: sprites"),
        (["a cat", "--steps", 1, "-o", "FILE/x.png"], "could not write"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    status, _, errors = run(capsys, "generate", *arguments)
    assert status == 1
    assert [line for line in errors.splitlines() if line.startswith("error: ") and message in line]
    assert "Traceback" not in errors and not (tmp_path / "out.png").exists()


def test_train_can_be_stopped_and_goes_on(tmp_path, capsys, monkeypatch):
    def weights(path, *more):
        status, printed, errors = run(
            capsys, "train", "--steps", 4, "--every", 2, "--batch-size", 4, "-o", path, *more
        )
        assert status == 0, errors
        return load_checkpoint(path), printed

    whole, _ = weights(tmp_path / "whole.safetensors")
    # the same run, with Ctrl-C pressed during its third step
    path = tmp_path / "parts.safetensors"

    def interrupted(*arguments):
        for i, batch in enumerate(shuffled(*arguments)):
            if i == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    monkeypatch.setattr("diffusion_lib.__main__.shuffled", interrupted)
    status, printed, _ = run(
        capsys, "train", "--steps", 4, "--every", 2, "--batch-size", 4, "-o", path
    )
    assert status == 130 and "stopped and saved at step 3" in printed
    monkeypatch.undo()
    resumed, printed = weights(path)
    assert resumed.step == whole.step == 4
    assert all((resumed.tensors[k] == v).all() for k, v in whole.tensors.items())
    model = load_checkpoint(path.with_suffix(".model.safetensors"))
    assert all((v == resumed.part("ema")[k]).all() for k, v in model.part("model").items())
    assert len(model.tensors) == len(resumed.part("ema"))
    log = json.loads(path.with_suffix(".json").read_text())
    assert [row["step"] for row in log] == [2, 3, 4]
    assert Image.open(path.with_suffix(".png")).size[0] > 100
    assert Image.open(path.with_suffix(".loss.png")).size == (480, 240)
    status, _, errors = run(capsys, "train", "--steps", 4, "-o", path)
    assert status == 1 and "trained to the end" in errors
    save_checkpoint(path, Checkpoint({"another": 1}, 1, {"model.w": torch.ones(1)}))
    status, _, errors = run(capsys, "train", "--steps", 4, "-o", path)
    assert status == 1 and "holds another kind of model" in errors


def test_evaluate_prints_what_it_covers(capsys):
    status, printed, _ = run(capsys, "evaluate", "--pictures", 4, "--steps", 2)
    assert status == 0
    held_out, seen = printed.splitlines()
    assert held_out.startswith("held-out prompts: ") and seen.startswith("seen prompts: ")
    for words in ("95% interval", "4 pictures", "4 distinct prompts", "pairs)"):
        assert words in held_out and words in seen
