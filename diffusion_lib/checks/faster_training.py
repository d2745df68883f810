"""Exercise 25: training that does not wait for its pictures."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from diffusion_lib.checks._call import careful
from diffusion_lib.checks._compare import close, is_float
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, tell
from diffusion_lib.checks._losses import losses_of
from diffusion_lib.checks._session import SEED
from diffusion_lib.checks._wrong import Wrong
from diffusion_lib.denoiser import Denoiser
from diffusion_lib.schedules import cosine_schedule

NEAR = 1e-3  # what mixed precision may change


def right(model, data, order, lr, generator):
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr)
    losses = []
    for indices in order:
        x0 = data.images[indices].float() / 127.5 - 1
        loss = model.loss(x0, generator=generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return losses


TABLE = Table(
    right,
    """
nothing learned | optimiser.step() -> pass
nothing learned | optimiser.step() -> optimiser.zero_grad(set_to_none=False); optimiser.step()
    no step changes the weights: it is not made, or without a gradient
rate ignored | lr=lr -> lr=1e-3
    `lr` is not handed on: AdamW's own rate is 0.001
another optimiser | AdamW(model.parameters(), lr=lr) -> SGD(model.parameters(), lr=lr)
another optimiser | AdamW( -> Adam(
another optimiser | AdamW( -> NAdam(
another optimiser | AdamW( -> RMSprop(
    the given loop uses torch.optim.AdamW as it comes, which also shrinks every weight a little in
    each step; another optimiser is another training, no faster one
gradients pile up | optimiser.zero_grad() -> pass
    the gradients are never cleared
optimiser made again | loss = model.loss -> optimiser = torch.optim.AdamW(model.parameters(), lr=lr); loss = model.loss
    an optimiser that is made in each step forgets its running means
a copy trained | optimiser = -> model = copy.deepcopy(model); optimiser =
    the model that you were given is as it was before: a copy of it was trained
unscaled | .float() / 127.5 - 1 -> .float()
    the pictures go in as they lie there, 0 to 255, not in [-1, 1]
0 to 1 | / 127.5 - 1 -> / 255
    the pictures go in as 0 to 1, not in [-1, 1]
sorted | in order: -> in order.sort(dim=1).values:
    the numbers in a row of `order` are sorted; then each picture meets the noise and the time that
    were drawn for another
uint8 overflow | .float() / 127.5 - 1 -> * 2 / 255 - 1
uint8 overflow | .float() / 127.5 - 1 -> .sub(128) / 128
uint8 overflow | .float() / 127.5 - 1 -> .sub(128) / 127.5
uint8 overflow | .float() / 127.5 - 1 -> .sub(127) / 127
uint8 overflow | .float() / 127.5 - 1 -> .sub(127) / 127.5
uint8 overflow | .float() / 127.5 - 1 -> .sub(127) / 128
    you reckon in uint8, which knows 0 to 255 only and begins again at 0: 200 · 2 is 144, and 100 - 128
    is 228. First make floats of the pictures
uint8
    the pictures are still uint8, 0 to 255: the model wants floats in [-1, 1]
one by one
    your code runs Python for every single picture; take a whole batch out of data.images at once
rebound
    `data` is not yours: keep what you make of its pictures in a variable of your own
in place
    `data` is not yours: make new tensors of its pictures (x / 127.5, not x /= 127.5)
""",
)


class Singles(TorchFunctionMode):
    """Counts the pictures that torch or NumPy takes out of many, one by one."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shapes, self.count = (shape, (1, *shape)), 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not (args and isinstance(args[0], Tensor) and args[0].shape in self.shapes):
            self.seen(*out if isinstance(out, list | tuple) else [out])
        return self.watched(out) if isinstance(out, np.ndarray) else out

    def seen(self, *values: Any) -> None:
        self.count += sum(getattr(value, "shape", None) in self.shapes for value in values)

    def watched(self, pictures: np.ndarray) -> np.ndarray:
        class Watched(np.ndarray):
            def __getitem__(array, index):
                out = super().__getitem__(index)
                self.seen(out)
                return out

        return pictures.view(Watched) if pictures.shape[1:] == self.shapes[0] else pictures


class Pictures:
    """As in the notebook: all pictures, and one at a time; it counts how often that is asked for."""

    def __init__(self, images: Tensor) -> None:
        self.images = images  # uint8 (N, 3, H, W)
        self.count = torch.zeros(1).share_memory_()  # a loader's workers count too

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        self.count += 1
        return self.images[int(i)].float() / 127.5 - 1


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))
        self.idle = nn.Parameter(torch.ones(()))  # has no gradient: only AdamW's decay moves it

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x) + 0 * self.idle


class Model(Denoiser):
    def loss(self, x0, *args, **named):
        TABLE.demand(is_float(x0), "uint8", "The batch for `model.loss` is no tensor of floats.")
        return super().loss(x0, *args, **named)


def observed(answer):
    """An answer as a function that returns its losses, how AdamW shrank a weight, and what moved."""

    def run(model, data, order, lr, generator) -> Tensor:
        images, trained = data.images.clone(), copy.deepcopy(model)
        pictures, singles = Pictures(images), Singles(images.shape[1:])

        def fetched() -> None:
            count = max(int(pictures.count), singles.count)
            reason = f"{count} pictures were fetched one by one, for {len(order)} batches."
            TABLE.demand(count <= 2 * len(order), "one by one", reason)

        try:
            with singles:
                result = answer(trained, pictures, order, lr, generator)
        except Wrong as wrong:
            if wrong.mistake == "global random":  # a DataLoader draws, and has a worse fault here
                fetched()
            raise
        losses = losses_of(result, len(order), "faster_training")
        fetched()
        left = torch.as_tensor(pictures.images).cpu()
        same, kept = torch.equal(images, data.images), torch.equal(left.float(), images.float())
        TABLE.demand(same, "in place", "The pictures in data.images were changed in place.")
        TABLE.demand(kept, "rebound", "`data.images` is another tensor than before the training.")
        shrunk = 100 * (1 - trained.net.idle.item())
        moved = not torch.equal(model.net[0].weight, trained.net[0].weight)
        return torch.cat([losses, torch.tensor([shrunk, float(moved)])])

    return run


@exercise(
    25,
    "The processor waits for its pictures",
    'notebook 04, "Something to learn"',
    solved="The same losses, and no picture is fetched by itself.",
)
def faster_training(answer) -> None:
    """answer(model, data, order, lr, generator) -> the losses, one for each row of `order`."""
    torch.manual_seed(SEED)
    model, draws = Model(Net(), cosine_schedule(100), "v"), torch.Generator().manual_seed(25)
    data = Pictures(torch.randint(0, 256, (40, 3, 8, 8), generator=draws, dtype=torch.uint8))
    order = torch.stack([torch.randperm(40, generator=draws)[:8] for _ in range(9)])

    def result(f, case) -> Tensor:
        return observed(f)(*case, torch.Generator().manual_seed(3))

    case = model, data, order, 0.02
    got, want = (result(f, case) for f in (careful(answer, "faster_training"), right))
    if close(got, want, NEAR):
        return
    step = int((~torch.isclose(got, want, NEAR, NEAR)).nonzero()[0])
    reason = f"The loss of step {step + 1}: yours {got[step]:.4f}, expected {want[step]:.4f}."
    if step >= len(order):
        reason = (
            "The losses are right; the model's weights after it are not those of the given loop."
        )
    tell(reason, [got], [case], TABLE, result, NEAR)
