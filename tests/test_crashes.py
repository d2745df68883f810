"""Kills, truncations and flipped bits: what is on the disk is whole, or is refused."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from diffusion_lib.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from diffusion_lib.files import write
from diffusion_lib.pipeline import PRETRAINED, load_pretrained

POSIX = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and FIFOs are POSIX's")

# Trains a line through points, saves after each step and says so; resumes if there is a file.
CHILD = """
import sys
from pathlib import Path
import torch
from torch import nn
from diffusion_lib import load_checkpoint, save_checkpoint, shuffled, state_of, train

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(20_000))
    def loss(self, x, y, generator):
        noise = torch.randn(len(x), generator=generator) * 0.01
        return ((self.w.mean() * x + noise - y) ** 2).mean()

path, x = Path(sys.argv[1]), torch.linspace(-1, 1, 40)
resume = load_checkpoint(path) if path.exists() else None
start = resume.step if resume else 0
batches = shuffled(list(zip(x, 3 * x)), 8, start=start)
for state in train(Line(), batches, steps=90, lr=0.1, resume=resume):
    save_checkpoint(path, state_of(state, {"what": "a line"}))
    print(state.step, flush=True)
"""


def child(path):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    )


@POSIX
def test_runs_killed_at_any_moment_resume_to_the_same_bits(tmp_path):
    whole = tmp_path / "whole" / "c.safetensors"
    assert child(whole).wait(120) == 0
    path, dice, kills = tmp_path / "killed" / "c.safetensors", random.Random(0), 0
    while True:
        process, steps = child(path), dice.randint(5, 25)
        for i, line in enumerate(process.stdout):  # let it take some steps, then kill it anywhere
            if i == steps and int(line) < 90:
                time.sleep(dice.random() * 0.01)
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
        process.stdout.close()
        if process.wait(120) == 0:
            break
        assert load_checkpoint(path).step >= int(line)
    assert kills >= 3
    a, b = load_checkpoint(whole), load_checkpoint(path)
    assert a.tensors.keys() == b.tensors.keys()
    assert all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)
    assert os.listdir(path.parent) == ["c.safetensors"]  # nothing half-written is left


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "c"
    tensors = {"model.w": torch.randn(9, 7), "generator": torch.arange(5, dtype=torch.uint8)}
    save_checkpoint(path, Checkpoint({"a": [1, "b"]}, 3, tensors, recipe={"lr": 0.1}))
    return path.read_bytes()


def test_no_truncation_is_taken_for_a_checkpoint(small, tmp_path):
    for n in {*range(0, len(small), 11), len(small) - 1}:
        (tmp_path / "cut").write_bytes(small[:n])
        with pytest.raises(ValueError, match="damaged|no checkpoint of"):
            load_checkpoint(tmp_path / "cut")


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_any_flipped_bit_is_noticed(small, tmp_path):
    path, dice = tmp_path / "flipped", random.Random(1)
    for bit in dice.sample(range(8 * len(small)), 1500):
        path.write_bytes(flipped(small, bit))
        with pytest.raises(ValueError, match="damaged|no checkpoint of|diverged"):
            load_checkpoint(path)


def test_flipped_bits_in_the_shipped_models_description(tmp_path):
    data, dice = (PRETRAINED / "sprites.safetensors").read_bytes(), random.Random(2)
    length = int.from_bytes(data[:8], "little")
    head = data.index(b"__metadata__")
    places = dice.sample(range(8 * head, 8 * (head + 2500)), 40) + dice.sample(
        range(8 * (8 + length), 8 * len(data)), 20
    )
    for bit in places:
        (tmp_path / "m").write_bytes(flipped(data, bit))
        with pytest.raises(ValueError, match="damaged|no checkpoint of|diverged"):
            load_pretrained(tmp_path / "m")


def test_what_was_never_a_checkpoint(tmp_path):
    for i, data in enumerate([b"", b"\0" * 8, b"{}", os.urandom(500), b"\xff" * 8 + b"{}"]):
        (tmp_path / str(i)).write_bytes(data)
        with pytest.raises(ValueError, match="damaged, cut short, or no safetensors"):
            load_checkpoint(tmp_path / str(i))
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path)


# --- the one writer -------------------------------------------------------------------------------


def test_a_written_file_has_the_users_rights_and_replaces_the_old_one(tmp_path):
    before = os.umask(0o022)
    try:
        write(tmp_path / "new" / "a.json", b"1")
        write(tmp_path / "new" / "a.json", b"22")
    finally:
        os.umask(before)
    path = tmp_path / "new" / "a.json"
    assert path.read_bytes() == b"22" and os.listdir(path.parent) == ["a.json"]
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o644


@POSIX
def test_a_private_file_stays_private(tmp_path):
    write(tmp_path / "a", b"1")
    (tmp_path / "a").chmod(0o600)
    write(tmp_path / "a", b"2")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@POSIX
def test_links_are_followed_and_stay(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    write(tmp_path / "link", b"1")
    write(tmp_path / "link", b"2")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").read_bytes() == b"2"


@POSIX
def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("mine")
    for path, words in [
        (tmp_path / "fifo", "no regular file"),
        (os.devnull, "no regular file"),
        (tmp_path, "it is a folder"),
        (str(tmp_path / "new") + "/", "names a folder"),
        (tmp_path / "file" / "x", "file is a file, not a folder"),
        ("", "the file's name is empty"),
    ]:
        with pytest.raises(OSError, match=words):
            write(path, b"x")
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file"]


def test_what_a_dead_process_left_is_cleared_and_what_a_live_one_writes_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getppid(), "x"):
        (tmp_path / f".a[1].png.{pid}.partial").write_bytes(b"half")
    (tmp_path / f".b.png.{dead.pid}.partial").write_bytes(b"another's")
    write(tmp_path / "a[1].png", b"whole")
    left = {f".a[1].png.{os.getppid()}.partial", f".b.png.{dead.pid}.partial", "a[1].png"}
    assert set(os.listdir(tmp_path)) == left
