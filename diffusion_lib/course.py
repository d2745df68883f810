"""What the notebooks need around the library: sizes that suit the machine, and a progress bar."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm


@dataclass(frozen=True)
class CourseConfig:
    """How much a notebook does on this machine."""

    device: torch.device
    batch_size: int  # images a training step
    train_steps: int  # of a short training run
    n_images: int  # samples to draw and to look at
    amp: torch.dtype | None  # of mixed precision: `train(..., amp=config.amp)`; None = float32


def course_config() -> CourseConfig:
    """Sizes for a CPU or, where there is one, a GPU.

    The environment variable DIFFUSION_COURSE = cpu or cuda decides before the machine is asked.
    Raises ValueError for another value, or for cuda where PyTorch finds no GPU.
    """
    wanted = os.environ.get("DIFFUSION_COURSE", "").strip().lower()
    if wanted not in ("", "cpu", "cuda"):
        raise ValueError(f"DIFFUSION_COURSE is {wanted!r}: set it to cpu or to cuda, or unset it")
    if wanted != "cpu" and torch.cuda.is_available():
        # Older GPUs emulate bfloat16, slowly: ask for the real thing.
        real = torch.cuda.is_bf16_supported(including_emulation=False)
        amp = torch.bfloat16 if real else torch.float16
        return CourseConfig(torch.device("cuda"), 256, 2000, 64, amp)
    if wanted == "cuda":
        raise ValueError("DIFFUSION_COURSE is cuda, but PyTorch finds no GPU: set it to cpu")
    return CourseConfig(torch.device("cpu"), 64, 300, 16, None)


def progress(iterable: Iterable, total: int | None = None, desc: str = "") -> tqdm:
    """A progress bar around `iterable`: a widget in a notebook, a line of text elsewhere."""
    return tqdm(iterable, total=total, desc=desc)
