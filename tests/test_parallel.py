"""Two processes train as one does: torchrun, gloo, the CPU."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from diffusion_lib.checkpoints import load_checkpoint
from diffusion_lib.parallel import drawn, part

pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo's rendezvous by torchrun")


def command(folder, name, processes, *more):
    told = ["-m", "diffusion_lib", "train", "--steps", "3", "--every", "3", "--batch-size", "8"]
    told += [*more, "--device", "cpu", "-o", str(folder / name)]
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *(run if processes > 1 else []), *told]


@pytest.mark.parametrize("kind", ["painter", "autoencoder"])
def test_two_processes_equal_one(tmp_path, kind):
    more = [] if kind == "painter" else ["--part", "autoencoder", "--data", "emoji"]
    one, two = (
        subprocess.run(command(tmp_path, f"{n}", n, *more), capture_output=True, text=True)
        for n in (1, 2)
    )
    assert one.returncode == two.returncode == 0, one.stderr[-2000:] + two.stderr[-2000:]
    assert two.stdout.count("checkpoints, samples and the loss curve") == 1  # one of them speaks
    a, b = (load_checkpoint(tmp_path / f"{n}.safetensors") for n in (1, 2))
    assert a.step == b.step == 3 and a.tensors.keys() == b.tensors.keys()
    for name, tensor in a.tensors.items():
        assert (tensor - b.tensors[name]).abs().max() <= 1e-5, name
    assert a.log[0]["loss"] == pytest.approx(b.log[0]["loss"], abs=1e-5)


def test_what_cannot_be_split_is_said(tmp_path):
    done = subprocess.run(
        command(tmp_path, "odd", 2, "--batch-size", "9"), capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "error: a batch of 9 cannot be split evenly among 2 processes" in done.stderr


def test_a_killed_process_ends_the_run_which_then_goes_on(tmp_path):
    long = ("--steps", "400", "--every", "5")
    begun = subprocess.Popen(
        command(tmp_path, "a", 2, *long), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    path, until = tmp_path / "a.safetensors", time.time() + 120
    while not path.exists() and time.time() < until:
        time.sleep(0.5)
    listed = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True).stdout
    workers = [
        int(line.split()[0])
        for line in listed.splitlines()
        if str(tmp_path / "a") in line and "torch.distributed.run" not in line
    ]
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)
    _, errors = begun.communicate(timeout=120)
    assert begun.returncode != 0 and "SIGKILL" in errors
    step = load_checkpoint(path).step
    more = ("--steps", str(step + 2), "--every", "5")
    again = subprocess.run(command(tmp_path, "a", 1, *more), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    assert load_checkpoint(path).step == step + 2


def test_one_process_draws_and_keeps_everything():
    assert torch.equal(part(torch.arange(5)), torch.arange(5))
    assert torch.equal(drawn(torch.arange, 4), torch.arange(4))
