"""Several processes train one model, each on its part of every batch: torchrun starts them.

Whatever is random is drawn for the whole batch by each process, which takes its own rows: so many
processes do what one would, to rounding.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def processes(device: str) -> Iterator[str]:
    """Joins the processes that torchrun has started, if it has; yields this one's device."""
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def first() -> bool:
    """Whether this is the one process that writes and prints."""
    return place()[0] == 0


def part(rows: Tensor) -> Tensor:
    """This process's share of rows that are there for all. Raises ValueError for unequal shares."""
    rank, size = place()
    if len(rows) % size:
        raise ValueError(f"a batch of {len(rows)} cannot be split evenly among {size} processes")
    return rows.chunk(size)[rank]


def drawn(draw: Callable[[int], Tensor], n: int) -> Tensor:
    """draw(n), for n rows here: this process's share of what is drawn for the rows of all."""
    return part(draw(n * place()[1]))


def agreed(value: Tensor) -> Tensor:
    """The mean of all processes' values."""
    if place()[1] == 1:
        return value
    value = value.detach().clone()
    distributed.all_reduce(value)
    return value / place()[1]


def anywhere(flag: bool, like: Tensor) -> bool:
    """Whether it is so in any process; they talk by tensors on the device of `like`."""
    return flag if place()[1] == 1 else bool(agreed(like.new_tensor(float(flag))) > 0)


class Loss(nn.Module):
    """A model whose call is its loss, since DistributedDataParallel listens to calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *batch, generator: torch.Generator) -> Tensor:
        return self.model.loss(*batch, generator=generator)


def loss_of(model: nn.Module) -> Callable[..., Tensor]:
    """model.loss, whose gradients are those of all processes' batches together."""
    return model.loss if place()[1] == 1 else DistributedDataParallel(Loss(model))
