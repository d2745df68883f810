"""Exercise 06: the recipe of a training."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from diffusion_lib.checks._call import call
from diffusion_lib.checks._compare import close
from diffusion_lib.checks._frame import exercise, in_parts
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._losses import losses_of
from diffusion_lib.checks._wrong import Part, Wrong, unknown

TABLE = Table(
    None,
    """
no backward
    loss.backward() makes the gradient; it comes after zero_grad() and before step()
gradients pile up
    clear the gradients with optimiser.zero_grad() in each step
cleared too late
    zero_grad() between backward() and step() clears what has just been computed
uphill
    the loss is made larger, not smaller
one group's rate
    the rate is set in one of optimiser.param_groups only
other parameters
    it takes model.parameters(), all of them
batch size
    batches of another size: split the order into pieces of `batch_size`
with replacement
    the items are drawn with replacement, or the batches overlap; an epoch is a permutation, each item
    once
never shuffled
    the data are never shuffled
generator set back
    the generator is seeded, or set back, in each epoch: draw from it as it is
shuffled once
    the data are shuffled once; draw a new order for each epoch
batches shuffled
    the batches are shuffled, not the items in them
moved along
    the order is only moved along, not shuffled
no step
    no optimiser of torch.optim has made a step
optimiser made again
    a new optimiser forgets the running means of the old one: make one, before the loop
rate never changes
    whatever is computed, no other rate reaches the optimiser: set it in optimiser.param_groups before
    each step, or call step() of a scheduler
schedule restarted
    the schedule begins anew in each epoch: count the steps of the whole run
negative rate
    is the warm-up longer than the run, or the fall too long?
rate of 0
    a step with rate 0 learns nothing: begin above it (with (s + 1), say), and reach it at the end only
rate too high
rate too low
    AdamW moves each weight by about the rate in each step: between 0.002 and 0.01 is wanted here
no warm-up
    the first step should have a third of the highest rate at most, and the next ones more and more
no decay
    end with a fifth of the highest rate at most
warm-up too long
    let the rise take ten steps at the most
generator ignored
    hand the generator on to the draw
""",
)
LOW, HIGH = 2e-3, 1e-2  # where the highest learning rate may lie, give or take a tenth
# items, batch size, epochs, an item's shape: 24 and 30 steps
RUNS = (48, 8, 4, (3,)), (60, 10, 5, (3, 1))


class Linear(nn.Module):
    """w · x: the gradient of its mean is the mean of x, so that one sees what an optimiser gets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))


class Run(NamedTuple):
    """One run of a recipe, as it was seen."""

    n: int
    size: int
    epochs: int
    batches: list[list[int]]  # the numbers of the items
    losses: list[float]
    rates: list[float]
    optimisers: list


def watched(
    answer, n: int, size: int, epochs: int, shape: tuple, generator: torch.Generator
) -> tuple[Run, object]:
    """A run, and what the answer returned."""
    draws = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    items = torch.cat([torch.arange(n)[:, None], draws], dim=1).float()
    data = items.clone().unflatten(1, shape)
    model, run = Linear(), Run(n, size, epochs, [], [], [], [])

    def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
        if batch.shape[1:] != data.shape[1:]:
            said = f"Of data of shape {tuple(data.shape)} you make a batch of {tuple(batch.shape)}."
            raise unknown(said)
        batch = batch.flatten(1)
        run.batches.append(batch[:, 0].long().tolist())
        loss = (batch @ model.weight + model.bias).mean()
        run.losses.append(loss.item())
        return loss

    def look(optimiser: torch.optim.Optimizer) -> None:
        rates = {float(group["lr"]) for group in optimiser.param_groups}
        reason = f"The optimiser's groups of parameters have different rates: {sorted(rates)}."
        TABLE.demand(len(rates) == 1, "one group's rate", reason)
        run.rates.extend(rates)
        if not any(optimiser is other for other in run.optimisers):
            run.optimisers.append(optimiser)
        weights = {id(p) for group in optimiser.param_groups for p in group["params"]}
        reason = "The optimiser does not have all parameters of the model, or has others."
        TABLE.demand(weights == {*map(id, model.parameters())}, "other parameters", reason)
        check_gradient(model.weight.grad, [items[batch].mean(0) for batch in run.batches])

    def closure(args: tuple, named: dict) -> bool:  # then the gradient is made within step()
        return len(args) > 1 or bool(named.get("closure"))

    handles = [
        register_optimizer_step_pre_hook(lambda o, a, k: None if closure(a, k) else look(o)),
        register_optimizer_step_post_hook(lambda o, a, k: look(o) if closure(a, k) else None),
    ]
    try:
        given = model, loss_of, data, epochs, size, generator
        return run, call(answer, *given, name="training_recipe")
    finally:
        for handle in handles:
            handle.remove()


def check_gradient(got: Tensor | None, means: list[Tensor]) -> None:
    """Judges what an optimiser gets, but for a positive factor. means: of the batches so far."""
    reason = "The optimiser makes a step, and there is no gradient."
    TABLE.demand(means and got is not None, "no backward", reason)
    along = lambda want: close(normalize(got, dim=0), normalize(want, dim=0))  # noqa: E731
    if along(means[-1]):
        return
    reason = f"At step {len(means)} the gradient is the sum of those of all steps."
    TABLE.demand(len(means) == 1 or not along(sum(means)), "gradients pile up", reason)
    reason = f"At step {len(means)} the optimiser does not get the gradient of that step's loss"
    TABLE.demand(got.any(), "cleared too late", f"{reason}, but zeros.")
    TABLE.demand(not along(-means[-1]), "uphill", f"{reason}, but its opposite.")
    raise unknown(f"{reason}.")


def check_orders(run: Run, again: Callable[[], Run]) -> None:
    """again: a second run, with the generator as the first one left it."""
    N, batches, steps = run.n, run.batches, run.epochs * run.n // run.size
    asked = f"{N} items in batches of {run.size}, {run.epochs} epochs"
    if len(batches) != steps:
        raise unknown(f"{asked}: {steps} steps. Yours asks for the loss {len(batches)} times.")
    other = {len(batch) for batch in batches} - {run.size}
    TABLE.demand(not other, "batch size", f"{asked}: there are batches of {other} items.")
    flat = [i for batch in batches for i in batch]
    given, epochs = list(range(N)), [flat[i : i + N] for i in range(0, len(flat), N)]
    for k, epoch in enumerate(epochs, 1):
        reason = f"Epoch {k} shows {len({*epoch})} different items of {N}."
        TABLE.demand(sorted(epoch) == given, "with replacement", reason)
    reason = (
        f"The first batch holds the items {batches[0]}, and the data come in that order always."
    )
    TABLE.demand(any(epoch != given for epoch in epochs), "never shuffled", reason)
    same, reason = epochs[1:] == epochs[:-1], "All epochs go through the data in the same order."
    TABLE.demand(not same or again().batches != batches, "generator set back", reason)
    TABLE.demand(not same, "shuffled once", reason)
    for k, epoch in enumerate(epochs):
        if epoch == given or epoch in epochs[:k]:
            raise unknown(f"Epoch {k + 1} goes through the data in an order that they had before.")
    each = N // run.size
    met = [{frozenset(b) for b in batches[i : i + each]} for i in range(0, steps, each)]
    reason = "The same items always meet in a batch."
    TABLE.demand(met[1:] != met[:-1], "batches shuffled", reason)
    for k, epoch in enumerate(epochs):
        for before in [given, *epochs[:k]]:
            follows = dict(zip(before, before[1:] + before[:1]))
            kept = sum(follows[a] == b for a, b in zip(epoch, epoch[1:]))
            reason = f"In epoch {k + 1} most items follow the same item as before."
            TABLE.demand(kept <= N / 2, "moved along", reason)


def check_rates(run: Run) -> None:
    TABLE.demand(run.rates, "no step", "The weights were never moved.")
    rates, top, each = run.rates, max(run.rates), run.n // run.size
    peak, said = rates.index(top), f"The rate: first {rates[0]:.3g}, highest {top:.3g}, last "
    said = f"{said}{rates[-1]:.3g}."
    reason = f"{len(run.optimisers)} optimisers made steps."
    TABLE.demand(len(run.optimisers) == 1, "optimiser made again", reason)
    reason = f"The rate is {top:.3g} in all of the {len(rates)} steps."
    TABLE.demand(min(rates) != top, "rate never changes", reason)
    reason = f"{said} The same rates come again in each epoch."
    TABLE.demand(rates[each:] != rates[:-each], "schedule restarted", reason)
    TABLE.demand(min(rates) >= 0, "negative rate", said)
    reason = f"{said} It is 0 at step {rates.index(min(rates)) + 1} of {len(rates)}."
    TABLE.demand(min(rates[:-1]) > 0, "rate of 0", reason)
    TABLE.demand(top <= HIGH * 1.1, "rate too high", said)
    TABLE.demand(top >= LOW / 1.1, "rate too low", said)
    TABLE.demand(peak and rates[0] <= top / 3, "no warm-up", said)
    TABLE.demand(rates[-1] <= top / 5, "no decay", said)
    rising, falling = rates[: peak + 1], rates[peak:]
    steady = all(a <= b * (1 + 1e-6) for a, b in zip(rising, rising[1:]))
    if not steady or any(a * (1 + 1e-6) < b for a, b in zip(falling, falling[1:])):
        raise unknown(f"{said} In between it goes up and down; it should rise once and fall once.")
    reason = f"{said} The highest comes at step {peak + 1} of {len(rates)}."
    TABLE.demand(peak < 10, "warm-up too long", reason)


@exercise(
    6,
    "The loss goes nowhere",
    'notebook 04, "The loop, by hand"',
    solved="A new order each epoch, one optimiser, and a rate that rises and falls.",
)
def training_recipe(answer) -> None:
    """answer(model, loss_of, data, epochs, batch_size, generator) -> the losses, one a step."""
    rates = 'notebook 04, "A learning rate that rises and falls"'
    for size in RUNS:
        generator = torch.Generator().manual_seed(6)
        run, result = watched(answer, *size, generator)
        check_orders(run, lambda: watched(answer, *size, generator)[0])  # noqa: B023
        in_parts(Part("the rate", lambda: check_rates(run), rates))  # noqa: B023
        if len(run.rates) != len(run.batches):
            asked = f"The loss was asked {len(run.batches)} times"
            raise Wrong(f"{asked}, but {len(run.rates)} steps were made.")
        got, want = losses_of(result, len(run.losses), "training_recipe"), torch.tensor(run.losses)
        if off := [i for i, (a, b) in enumerate(zip(got, want)) if not close(a, b)]:
            step = f"The loss of step {off[0] + 1}: you return {got[off[0]]:.5g}"
            raise unknown(f"{step}, and it was {want[off[0]]:.5g}.")
    seeds = (torch.Generator().manual_seed(seed) for seed in (6, 7))
    again, other = (watched(answer, *RUNS[-1], seed)[0].batches for seed in seeds)
    reason = "The same generator, set to the same seed, gives another order."
    TABLE.demand(again == run.batches, "generator ignored", reason)
    reason = "Another seed of the generator gives the same order."
    TABLE.demand(other != run.batches, "generator ignored", reason)
