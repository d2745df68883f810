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


def devices() -> list[str]:
    """What this machine computes on, the best last: "cpu", Apple's "mps", "cuda"."""
    mps = getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available()
    return ["cpu"] + ["mps"] * mps + ["cuda"] * torch.cuda.is_available()


def course_config() -> CourseConfig:
    """Sizes for a CPU or, where there is one, a GPU.

    The environment variable DIFFUSION_COURSE = cpu, mps or cuda decides before the machine is
    asked. Raises ValueError for another value, or for a GPU that PyTorch does not find.
    """
    wanted = os.environ.get("DIFFUSION_COURSE", "").strip().lower()
    if wanted not in ("", "cpu", "mps", "cuda"):
        raise ValueError(f"DIFFUSION_COURSE is {wanted!r}: set it to cpu, mps or cuda, or unset it")
    found = ["cpu"] if wanted == "cpu" else devices()
    name = wanted or found[-1]
    if name not in found:
        raise ValueError(
            f"DIFFUSION_COURSE is {name}, but PyTorch finds no GPU of the kind: use cpu"
        )
    if name == "cpu":
        return CourseConfig(torch.device("cpu"), 64, 300, 16, None)
    amp = None
    if name == "cuda":  # older GPUs emulate bfloat16, slowly: ask for the real thing
        real = torch.cuda.is_bf16_supported(including_emulation=False)
        amp = torch.bfloat16 if real else torch.float16
    return CourseConfig(torch.device(name), 256, 2000, 64, amp)


def progress(iterable: Iterable, total: int | None = None, desc: str = "") -> tqdm:
    """A progress bar around `iterable`: a widget in a notebook, a line of text elsewhere.

    Where a notebook is only read, its place is taken by the number of steps.
    """
    if not any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__):
        return tqdm(iterable, total=total, desc=desc)
    from IPython.display import display

    bar = tqdm(iterable, total=total, desc=desc, display=False)
    view = {"version_major": 2, "version_minor": 0, "model_id": bar.container.model_id}
    said = f"{desc} {bar.total or ''} steps".replace("  ", " ").strip()
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": said}, raw=True)
    bar.displayed = True
    return bar
