import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from diffusion_lib.__main__ import main
from diffusion_lib.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from diffusion_lib.training import shuffled

ROOT = Path(__file__).parent.parent


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
        (["a cat", "--steps", 1001], "steps must be in 1…1000"),
        (["a cat", "--model", "nothing"], "shipped: emoji, judge, sprites"),
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
    assert Image.open(path.with_suffix(".loss.png")).size[0] > 400
    status, _, errors = run(capsys, "train", "--steps", 4, "-o", path)
    assert status == 1 and "trained to the end" in errors
    save_checkpoint(path, Checkpoint({"another": 1}, 1, {"model.w": torch.ones(1)}))
    status, _, errors = run(capsys, "train", "--steps", 4, "-o", path)
    assert status == 1 and "holds another kind of model" in errors


def test_evaluate_prints_what_it_covers(capsys):
    status, printed, _ = run(capsys, "evaluate", "--pictures", 4, "--steps", 2)
    assert status == 0
    held_out, seen = (line for line in printed.splitlines() if line[0] != " ")
    assert held_out.startswith("held-out prompts: ") and seen.startswith("seen prompts: ")
    assert '  of those like "a knight that is red": ' in printed
    for words in ("95% interval", "4 pictures", "4 distinct prompts", "pairs)"):
        assert words in held_out and words in seen


# --- outputs that must not eat each other ---------------------------------------------------------

SHORT = ("--steps", 2, "--every", 2, "--batch-size", 4)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The files of a run of two steps, which each test copies."""
    folder = tmp_path_factory.mktemp("finished")
    assert main(["train", *map(str, SHORT), "-o", str(folder / "a")]) == 0
    return folder


@pytest.fixture
def run_folder(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_runs_whose_names_differ_keep_apart(tmp_path, capsys):
    for name in ("lr0.1", "run.png"):
        status, _, errors = run(capsys, "train", *SHORT, "-o", tmp_path / name)
        assert status == 0, errors
    kinds = {".safetensors", ".model.safetensors", ".json", ".png", ".loss.png"}
    visible = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")}
    assert visible == {name + kind for name in ("lr0.1", "run.png") for kind in kinds}
    assert load_checkpoint(tmp_path / "run.png.safetensors").step == 2
    assert not list(tmp_path.glob(".*.partial"))


def test_two_runs_on_one_output(tmp_path, capsys):
    with FileLock(tmp_path / ".a.safetensors.lock"):
        status, _, errors = run(capsys, "train", *SHORT, "-o", tmp_path / "a")
    assert status == 1 and "another process trains" in errors


@pytest.mark.parametrize(
    "name, message",
    [
        ("", "the file's name is empty"),
        ("FILE/x", "is a file, not a folder"),
        ("x.safetensors/", "names a folder"),
        ("a.loss", "another run's files may be called so"),
        ("a.model", "another run's files may be called so"),
        ("a.model.safetensors", "another run's files may be called so"),
    ],
)
def test_where_nothing_can_be_written_is_told_before_training(
    tmp_path, capsys, monkeypatch, name, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    monkeypatch.setattr("diffusion_lib.runs.train", lambda *_, **__: pytest.fail("trained"))
    status, _, errors = run(capsys, "train", *SHORT, "-o", name)
    assert status == 1 and message in errors and "Traceback" not in errors


def test_a_run_stopped_while_it_painted_its_last_samples_is_finished_by_the_next(
    run_folder, capsys
):
    model = run_folder / "a.model.safetensors"
    before = model.read_bytes()
    model.unlink()
    status, printed, _ = run(capsys, "train", *SHORT, "-o", run_folder / "a")
    assert status == 0 and model.read_bytes() == before and str(model) in printed


@pytest.mark.parametrize("history", ["", '[{"step": 1}'])
def test_a_torn_history_is_written_anew_from_the_checkpoint(run_folder, capsys, history):
    (run_folder / "a.json").write_text(history)
    options = ("--steps", 3, "--every", 3, "--batch-size", 4, "-o", run_folder / "a")
    status, _, errors = run(capsys, "train", *options)
    assert status == 0, errors
    log = json.loads((run_folder / "a.json").read_text())
    assert [row["step"] for row in log] == [2, 3] and log[1]["seconds"] > log[0]["seconds"]


@pytest.mark.parametrize(
    "other, message",
    [(("--lr", 0.01), "begun with lr 0.004"), (("--batch-size", 3), "begun with batch 4")],
)
def test_a_run_goes_on_by_its_own_recipe_only(run_folder, capsys, other, message):
    options = ("--steps", 4, "--batch-size", 4, *other, "-o", run_folder / "a")
    status, _, errors = run(capsys, "train", *options)
    assert status == 1 and message in errors and "begin anew" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--every", "0"), ("train", "--batch-size", "0"), ("train", "--batch-size", "-1"),
        ("train", "--steps", "1.5"), ("evaluate", "--pictures", "0"), ("generate", "a cat", "--steps", "x"),
        ("generate", "a cat", "--sampler", "euler"),
    ],
)  # fmt: skip
def test_numbers_that_are_none(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert "whole number of at least 1" in errors or "invalid choice: 'euler'" in errors


def test_every_sampler_paints(tmp_path, capsys):
    pictures = []
    for sampler in ("ddim", "heun", "dpm_solver"):
        out = tmp_path / f"{sampler}.png"
        status, _, errors = run(
            capsys, "generate", "a cat", "--steps", 4, "--sampler", sampler, "-o", out
        )
        assert status == 0, errors
        pictures.append(out.read_bytes())
    assert len(set(pictures)) == 3


def test_a_console_of_few_characters(tmp_path):
    """Windows' old code pages have neither … nor ✓."""
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_lib", "progress", str(ROOT / "exercises")],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "cp437:strict"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    exercises = len([*(ROOT / "exercises").glob("*.ipynb")])
    assert f" of {exercises} solved".encode() in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="a pipe of the shell")
def test_head_may_stop_listening(tmp_path):
    command = f'"{sys.executable}" -m diffusion_lib progress "{tmp_path}" | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert len(done.stdout.splitlines()) == 1 and "Error" not in done.stderr, done.stderr


def test_a_missing_package_is_told_in_one_line(monkeypatch, capsys):
    def missing(name, device):
        raise ModuleNotFoundError("the pretrained words are not installed: pip install them")

    monkeypatch.setattr("diffusion_lib.__main__.load_model", missing)
    assert main(["generate", "a red dragon", "--model", "words"]) == 1
    assert capsys.readouterr().err == (
        "error: the pretrained words are not installed: pip install them\n"
    )
