"""What the check of faster training measures with: watched pictures, and the given loop."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from diffusion_lib.checks._core import SEED
from diffusion_lib.denoiser import Denoiser
from diffusion_lib.schedules import cosine_schedule


class Pictures:
    """Pictures that notice how they are asked for: one by one, or a batch from `images`."""

    def __init__(self, images: Tensor) -> None:
        self.images = images  # uint8 (N, 3, H, W)
        self.counter = torch.zeros(
            1, dtype=torch.long
        ).share_memory_()  # a loader's workers count too

    @property
    def singly(self) -> int:
        return int(self.counter)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        self.counter += 1
        if isinstance(i, Tensor | list) and torch.as_tensor(i).numel() != 1:
            raise TypeError("data[…] takes the number of one picture; data.images[…] takes a row")
        return self.images[int(i)].float() / 127.5 - 1


class Singles(TorchFunctionMode):
    """Counts the pictures that come out of a tensor of many, or go into a batch, one by one."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shapes, self.cut, self.stacked = (shape, (1, *shape)), 0, 0

    def _count(self, values: Any) -> int:
        values = values if isinstance(values, list | tuple) else [values]
        return sum(isinstance(v, Tensor) and v.shape in self.shapes for v in values)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if args and func in (torch.stack, torch.cat, torch.concat):
            self.stacked += self._count(args[0])
        elif args and not self._count(args[0]):
            self.cut += self._count(out)
        return out


class _Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x) + t[:, None, None, None] / 1000))


def tiny() -> Denoiser:
    torch.manual_seed(SEED)
    return Denoiser(_Tiny(), cosine_schedule(100), "v")


def reference(
    images: Tensor,
    order: Tensor,
    lr: float,
    scale=lambda x: x.float() / 127.5 - 1,
    clear: bool = True,
    renew: bool = False,
    seed: int = 3,
) -> Tensor:
    """The given loop's losses, (S,), or those of a known mistake."""
    model, generator = tiny(), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr)
    losses = []
    for indices in order:
        if renew:
            optimiser = torch.optim.AdamW(model.parameters(), lr=lr)
        loss = model.loss(scale(images[indices]), generator=generator)
        if clear:
            optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses)
