"""A training run that can be left alone: progress, loss curve, samples, and files to go on from."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from PIL import Image
from torch import nn
from tqdm.auto import tqdm

from diffusion_lib import parallel
from diffusion_lib.checkpoints import finished, load_checkpoint, save_checkpoint, state_of
from diffusion_lib.files import output, write
from diffusion_lib.images import save_png
from diffusion_lib.training import train


class Run:
    """The files `name.safetensors` (to go on from), `.json`, `.loss.png`, `.png` (samples) and, in
    the end, `.model.safetensors` (the averaged weights alone).

    with Run("runs/mine", steps=1000) as run:        nobody else trains it meanwhile
        run.train(model, config, batches, show)      after Ctrl-C the same command goes on
    """

    def __init__(self, name: str, steps: int, restart: bool = False) -> None:
        """Raises ValueError if it is trained to the end, or its files would be another run's."""
        self.name, self.steps = name.removesuffix(".safetensors"), steps
        if self.name.endswith((".model", ".loss")):
            raise ValueError(f"{name}: another run's files may be called so; choose another name")
        folder = not self.name or self.name[-1] in "/\\"
        self.path = output(self.name if folder else f"{self.name}.safetensors")
        self.model_path = Path(f"{self.name}.model.safetensors")
        self.restart = restart
        self.lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)

    def __enter__(self) -> "Run":
        try:
            if parallel.first():
                self.lock.acquire()
        except Timeout:
            raise OSError(
                f"another process trains {self.path}: wait, or name another --output"
            ) from None
        try:
            there = self.path.is_file() and not self.restart
            self.resume = load_checkpoint(self.path) if there else None
            self.start = self.resume.step if self.resume else 0
            ended = self.start == self.steps and self.model_path.is_file()
            if self.start > self.steps or ended:
                raise ValueError(
                    f"{self.path} is trained to the end: use --restart, or more --steps"
                )
        except BaseException:
            self.lock.release()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.lock.release()

    def train(
        self,
        model: nn.Module,
        config: dict,
        batches: Iterator[tuple],
        show: Callable[[nn.Module], Image.Image],
        every: int,
        **recipe,
    ) -> None:
        """Trains to the end. config: what the checkpoint says of the model; batches: from `start`
        on; show: samples of the averaged model, every so many steps; recipe: `train`'s.

        Raises KeyboardInterrupt, after saving, if Ctrl-C is pressed.
        """
        if self.resume and self.resume.config != config:
            raise ValueError(
                f"{self.path} holds another kind of model: use --restart, or another --output"
            )
        log = list(self.resume.log) if self.resume else []  # rows of step, loss and seconds
        before, began, losses = log[-1]["seconds"] if log else 0.0, time.perf_counter(), []
        first, step, stop = parallel.first(), self.start, False
        if first:
            print(f"checkpoints, samples and the loss curve: {self.name}.*")
        bar = tqdm(total=self.steps, initial=step, unit="step", disable=not first)
        with bar, _ctrl_c() as pressed:
            recipe |= dict(steps=self.steps, resume=self.resume)
            for state in train(model, batches, **recipe) if step < self.steps else ():
                bar.update()
                step = state.step
                losses.append(state.loss)
                stop = parallel.anywhere(bool(pressed), state.loss)  # all stop, or none
                if step % every and step < self.steps and not stop:
                    continue
                loss = torch.stack(losses).mean().item()
                losses.clear()
                if first:
                    bar.set_postfix(loss=f"{loss:.4f}")
                    seconds = round(before + time.perf_counter() - began, 1)
                    log.append({"step": step, "loss": loss, "seconds": seconds})
                    checkpoint = state_of(state, config)
                    checkpoint.log = log
                    save_checkpoint(self.path, checkpoint)
                    write(f"{self.name}.json", json.dumps(log, indent=1).encode())
                if stop:
                    break
                if first:
                    _draw_curve(log, f"{self.name}.loss.png")
                    save_png(show(state.ema.model), f"{self.name}.png")
        if stop and step < self.steps:
            if first:
                print(f"stopped and saved at step {step}; the same command goes on from there")
            raise KeyboardInterrupt
        if first:
            save_checkpoint(self.model_path, finished(load_checkpoint(self.path)))
            total = log[-1]["seconds"] if log else 0
            print(f"{self.steps} steps in {total:.0f} s: {self.model_path}")


def _draw_curve(log: list[dict], path: str) -> None:
    if find_spec("matplotlib") is None:  # the core draws no curves; the numbers are in the .json
        return
    from diffusion_lib.plotting import curves, png

    steps, losses = [row["step"] for row in log], [row["loss"] for row in log]
    labels = dict(title="Training", xlabel="step", ylabel="loss", log="y")
    write(path, png(curves(steps, {"loss": losses}, **labels)))


@contextmanager
def _ctrl_c() -> Iterator[list]:
    """A list that is empty until Ctrl-C: a step is never torn apart. A second Ctrl-C is at once."""
    pressed: list[bool] = []

    def press(*_) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
