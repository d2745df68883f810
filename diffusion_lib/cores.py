"""On a CPU, a core for each part of a batch, instead of all cores for each operation in turn."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

LEAST = 16  # pictures a core: below that, sharing them out costs more than it brings


def by_core(f: Callable[..., Tensor], *batch: Tensor | None) -> Tensor:
    """f(*batch), computed part by part of the batch at once; where it cannot gain, f(*batch) itself.

    batch: tensors (B, …), the first on the CPU, or None. f must answer each row by itself, as a
    network in evaluation does. Not while gradients are recorded or under autocast: a thread has its
    own. Two cores that share each small operation wait for each other; benchmarks/sampling.py measures
    both ways.
    """
    threads = torch.get_num_threads()
    parts = min(threads, len(batch[0]) // LEAST)
    plain = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    if parts < 2 or plain or batch[0].device.type != "cpu":
        return f(*batch)
    pieces = [(None,) * parts if b is None else b.tensor_split(parts) for b in batch]
    answers = list(workers(parts).map(torch.no_grad()(f), *pieces))
    torch.set_num_threads(threads)  # for threads yet to come: the number set last is theirs
    return torch.cat(answers)


@lru_cache(maxsize=1)
def workers(n: int) -> ThreadPoolExecutor:
    """Threads that live on from call to call, each on one core: they keep the memory they work in."""
    return ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,))


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=workers.cache_clear)
