"""Exercise 15: a moving average of the weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge


@torch.no_grad()
def right(average, model, n, decay):
    d = min(decay, (1 + n) / (10 + n))
    for old, new in zip(average.parameters(), model.parameters()):
        old.copy_(d * old + (1 - d) * new)
    for old, new in zip(average.buffers(), model.buffers()):
        old.copy_(new)


TABLE = Table(
    right,
    """
exchanged | d * old + (1 - d) * new -> (1 - d) * old + d * new
    d and 1 - d have changed places: the average keeps the large share
no warm-up | min(decay, (1 + n) / (10 + n)) -> decay
no warm-up | min(decay, (1 + n) / (10 + n)) -> decay ;; old.copy_(new) -> pass
    without a warm-up the random start stays in the average for long (and buffers are to be copied)
max | min( -> max(
    the warm-up must hold the decay *down*: min, not max
one early | d = -> n = n - 1; d =
    n counts from 1; you reckon with n - 1
one late | d = -> n = n + 1; d =
    n counts from 1; you reckon with n + 1
always the warm-up | min(decay, (1 + n) / (10 + n)) -> (1 + n) / (10 + n)
    the decay is never reached: take the smaller of the two
plain mean | min(decay, (1 + n) / (10 + n)) -> (n - 1) / n
    this is the mean of all steps; it should forget the old ones
copy | min(decay, (1 + n) / (10 + n)) -> 0.0
    this copies the last weights; nothing is averaged
frozen skipped | old.copy_(d -> new.requires_grad and old.copy_(d
    parameters that are frozen (requires_grad=False) are left out: they belong to the average, too
buffers forgotten | old.copy_(new) -> pass
    the buffers (means of a BatchNorm, say) stay at their first values: copy them
buffers averaged | copy_(new) -> copy_(d * old + (1 - d) * new if old.is_floating_point() else new)
    buffers are not weights: copy them as they are
nothing | d = -> return; d =
nothing | old.copy_(d * old + (1 - d) * new) -> pass
    the average's parameters do not change: write into its tensors, `copy_`, `lerp_`, `mul_`
rebound
    the average gets new tensors in the place of its own, and whoever holds those has the old numbers:
    write into them, `copy_`, `lerp_`, `mul_`
model changed
    only the average is to be written to
same tensors
    copy the numbers into the average's tensors, do not hand over the tensors
gradients kept
    work without gradients: torch.no_grad()
""",
)


def network(seed: int) -> nn.Module:
    """One of several with the same parts, one of them frozen; no number is that of another seed."""
    generator = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm1d(2)
    net = nn.Sequential(nn.Linear(3, 2), nn.Sequential(norm), nn.Linear(2, 2).requires_grad_(False))
    for tensor in [*net.parameters(), norm.running_mean, norm.running_var]:
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator))
    norm.num_batches_tracked.fill_(seed)
    return net


def state(net: nn.Module) -> Tensor:
    return torch.cat([v.detach().double().flatten() for v in net.state_dict().values()])


def tensors(net: nn.Module) -> list[tuple[int, int]]:
    """Which objects they are, and where in memory their numbers lie."""
    return [(id(v), v.data_ptr()) for v in (*net.parameters(), *net.buffers())]


def observed(update: Callable) -> Callable[..., Tensor]:
    def rows(first: int, count: int, decay: float) -> Tensor:
        """(count, all numbers of the average): after each of the updates n = first, first + 1, …"""
        average, rows = network(0), []
        for n in range(first, first + count):
            model, want, places = network(n), state(network(n)), tensors(average)
            update(average, model, n, decay)
            same = torch.equal(state(model), want) and model.training
            reason = "`moving_average` changes the model that is being trained."
            TABLE.demand(same, "model changed", reason)
            shared = {place for _, place in tensors(average)} & {
                place for _, place in tensors(model)
            }
            reason = (
                "After the update the average holds the model's own tensors: the next training "
            )
            TABLE.demand(not shared, "same tensors", reason + "step moves both.")
            hangs = any(p.grad_fn is not None for p in average.parameters())
            reason = "The average remembers how it was computed, step by step, for ever."
            TABLE.demand(not hangs, "gradients kept", reason)
            reason = "After the update the average has other tensors than before."
            TABLE.demand(tensors(average) == places, "rebound", reason)
            rows.append(state(average))
        return torch.stack(rows)

    return rows


@exercise(
    15,
    "Every sample day is another lottery",
    'notebook 04, "An average of the weights"',
    "w_mean ← d · w_mean + (1 - d) · w,   d = min(decay, (1 + n)/(10 + n))",
    "A calm copy of a restless model.",
)
def moving_average(answer) -> None:
    """answer(average, model, n, decay): updates `average` in place after step n = 1, 2, …"""
    cases = [(1, 5, 0.5), (1, 4, 0.999), (200, 3, 0.9)]
    judge(answer, cases, TABLE, "moving_average", 1e-5, observe=observed)
