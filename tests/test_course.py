import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest
import torch

from diffusion_lib import course
from diffusion_lib.__main__ import parser
from diffusion_lib.course import course_config, devices, progress


def fake_gpu(monkeypatch, present: bool, bf16: bool = True):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)


@pytest.mark.parametrize(
    "wanted, present, device",
    [("", False, "cpu"), ("", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_device(monkeypatch, wanted, present, device):
    monkeypatch.setenv("DIFFUSION_COURSE", wanted)
    fake_gpu(monkeypatch, present)
    assert course_config().device.type == device


def test_cpu_does_not_even_look_for_a_gpu(monkeypatch):
    monkeypatch.setenv("DIFFUSION_COURSE", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked the GPU"))
    assert course_config().amp is None


def test_a_gpu_does_more_and_emulates_nothing(monkeypatch):
    monkeypatch.setenv("DIFFUSION_COURSE", "cpu")
    cpu = course_config()
    monkeypatch.delenv("DIFFUSION_COURSE")
    fake_gpu(monkeypatch, True, bf16=False)
    gpu = course_config()
    assert gpu.amp == torch.float16
    assert gpu.batch_size > cpu.batch_size and gpu.train_steps > cpu.train_steps
    with pytest.raises(FrozenInstanceError):
        gpu.batch_size = 1


def test_clear_errors(monkeypatch):
    fake_gpu(monkeypatch, False)
    monkeypatch.setenv("DIFFUSION_COURSE", "cuda")
    with pytest.raises(ValueError, match="no GPU"):
        course_config()
    monkeypatch.setenv("DIFFUSION_COURSE", "tpu")
    with pytest.raises(ValueError, match="'tpu'.*cpu, mps or cuda"):
        course_config()


def test_progress_counts_generators(capsys):
    bar = progress(iter([1, 2, 3]), total=3, desc="walking")
    assert list(bar) == [1, 2, 3]
    assert bar.n == bar.total == 3 and "walking" in bar.desc


def test_in_a_notebook_that_is_only_read_the_bar_says_how_many_steps(monkeypatch):
    import IPython.display
    from tqdm.notebook import tqdm

    shown = []
    monkeypatch.setattr(course, "tqdm", tqdm)
    monkeypatch.setattr(IPython.display, "display", lambda bundle, raw: shown.append(bundle))
    assert list(progress(iter([1, 2, 3]), total=3, desc="walking")) == [1, 2, 3]
    (bundle,) = shown
    assert bundle["text/plain"] == "walking 3 steps" and len(bundle) == 2


def test_images_and_course_need_the_core_alone():
    code = (
        "import sys, diffusion_lib.images, diffusion_lib.course\n"
        "print([m for m in ('matplotlib', 'ipywidgets', 'torchvision', 'IPython', 'transformers')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_apples_gpu_is_offered_wherever_nvidias_is(monkeypatch):
    monkeypatch.setenv("DIFFUSION_COURSE", "")
    fake_gpu(monkeypatch, False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices() == ["cpu", "mps"]
    config = course_config()
    assert config.device.type == "mps" and config.amp is None and config.batch_size == 256
    for command in ("generate x", "train", "evaluate"):
        args = parser().parse_args(command.split())
        assert args.device == "mps"
