"""Checks of training: the recipe, the moving average, and speed."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from diffusion_lib.checks._core import SEED, Mistake, Part, Wrong, call, exercise, in_parts, judge
from diffusion_lib.checks._speed import Pictures, Singles, reference, tiny

TOP = 2e-3, 1e-2  # where the highest learning rate may lie, give or take a tenth
RUNS = (48, 8, 4), (60, 10, 5)  # items, batch size, epochs: 24 and 30 steps


class _Linear(nn.Module):
    """w · x: the gradient of its mean is the mean of x, so that one sees what an optimiser gets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.bias = nn.Parameter(torch.zeros(1))


def _along(a: Tensor, b: Tensor) -> bool:
    """Whether a is b, but for a positive factor: gradients may be clipped or scaled."""
    return torch.allclose(
        nn.functional.normalize(a, dim=0), nn.functional.normalize(b, dim=0), atol=1e-4
    )


def _gradient(got: Tensor | None, means: list[Tensor]) -> None:
    """Judges what an optimiser gets; means: of the batches so far."""
    if not means or got is None:
        raise Wrong(
            "The optimiser makes a step, and there is no gradient.",
            "loss.backward() makes it; it comes after zero_grad() and before step()",
            "no backward",
        )
    if _along(got, means[-1]):
        return
    if len(means) > 1 and _along(got, sum(means)):
        raise Wrong(
            f"At step {len(means)} the gradient is the sum of those of all steps.",
            "gradients pile up: clear them with optimiser.zero_grad() in each step",
            "gradients pile up",
        )
    reason = f"At step {len(means)} the optimiser does not get the gradient of that step's loss"
    if not got.any():
        cause = "zero_grad() between backward() and step() clears what has just been computed"
        raise Wrong(f"{reason}, but zeros.", cause, "cleared too late")
    if _along(-got, means[-1]):
        raise Wrong(
            f"{reason}, but its opposite.", "the loss is made larger, not smaller", "uphill"
        )
    raise Wrong(f"{reason}. It is wrong in a way that I do not recognise.")


class _Run(NamedTuple):
    """One run of a recipe, as it was seen."""

    n: int
    size: int
    epochs: int
    batches: list[list[int]]  # the numbers of the items
    losses: list[float]
    rates: list[float]
    optimisers: list
    result: object


def _watched(answer, n: int, size: int, epochs: int, seed: int = 6) -> _Run:
    draws = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    data = torch.cat([torch.arange(n)[:, None], draws], dim=1).float()
    model = _Linear()
    batches: list[list[int]] = []
    losses, rates, optimisers = [], [], []

    def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
        batches.append(batch[:, 0].long().tolist())
        loss = (batch @ model.weight + model.bias).mean()
        losses.append(loss.item())
        return loss

    def look(optimiser: torch.optim.Optimizer) -> None:
        groups = {float(group["lr"]) for group in optimiser.param_groups}
        if len(groups) > 1:
            raise Wrong(
                f"The optimiser's groups of parameters have different learning rates: {sorted(groups)}.",
                "the rate is set in one of optimiser.param_groups only",
                "one group's rate",
            )
        rates.append(groups.pop())
        if not any(optimiser is other for other in optimisers):
            optimisers.append(optimiser)
        weights = {id(p) for group in optimiser.param_groups for p in group["params"]}
        if weights != {id(p) for p in model.parameters()}:
            raise Wrong(
                "The optimiser does not have all parameters of the model, or has others.",
                "it takes model.parameters(), all of them",
                "other parameters",
            )
        _gradient(model.weight.grad, [data[b].mean(0) for b in batches])

    def closure(args: tuple, named: dict) -> bool:  # then the gradient is made within step()
        return len(args) > 1 or bool(named.get("closure"))

    handles = [
        register_optimizer_step_pre_hook(lambda o, a, k: None if closure(a, k) else look(o)),
        register_optimizer_step_post_hook(lambda o, a, k: look(o) if closure(a, k) else None),
    ]
    try:
        generator = torch.Generator().manual_seed(seed)
        result = call(answer, model, loss_of, data, epochs, size, generator, name="training_recipe")
    finally:
        for handle in handles:
            handle.remove()
    return _Run(n, size, epochs, batches, losses, rates, optimisers, result)


def _orders(run: _Run) -> None:
    N, batches, steps = run.n, run.batches, run.epochs * run.n // run.size
    asked = f"{N} items in batches of {run.size}, {run.epochs} epochs"
    if len(batches) != steps:
        raise Wrong(f"{asked}: {steps} steps. Yours asks for the loss {len(batches)} times.")
    other = [len(batch) for batch in batches if len(batch) != run.size]
    if other:
        raise Wrong(f"{asked}: one of your batches holds {other[0]} items.", mistake="batch size")
    flat = [i for batch in batches for i in batch]
    epochs = [flat[i : i + N] for i in range(0, len(flat), N)]
    for k, epoch in enumerate(epochs, 1):
        if sorted(epoch) != list(range(N)):
            raise Wrong(
                f"Epoch {k} shows {len(set(epoch))} different items of {N}.",
                "the items are drawn with replacement, or the batches overlap; an epoch is a permutation, "
                "each item once",
                "with replacement",
            )
    if epochs[0] == list(range(N)) and epochs[1] == epochs[0]:
        raise Wrong(
            f"The first batch holds the items {batches[0]}, and the data come in that order always.",
            "the data are never shuffled",
            "never shuffled",
        )
    if all(epoch == epochs[0] for epoch in epochs):
        raise Wrong(
            "All epochs go through the data in the same order.",
            "the data are shuffled once; draw a new order for each epoch",
            "shuffled once",
        )
    for k, epoch in enumerate(epochs):
        if epoch == list(range(N)):
            raise Wrong(
                f"Epoch {k + 1} goes through the data as they lie there; shuffle every one."
            )
        if epoch in epochs[:k]:
            raise Wrong(
                f"Epoch {k + 1} repeats the order of epoch {epochs.index(epoch) + 1}; each needs a new one."
            )
    per_epoch = N // run.size
    met = [{frozenset(b) for b in batches[i : i + per_epoch]} for i in range(0, steps, per_epoch)]
    if all(one == met[0] for one in met):
        raise Wrong(
            "The same items always meet in a batch.",
            "the batches are shuffled, not the items in them",
            "batches shuffled",
        )
    for k, epoch in enumerate(epochs):
        for before in [list(range(N)), *epochs[:k]]:
            follows = dict(zip(before, before[1:] + before[:1]))
            if sum(follows[a] == b for a, b in zip(epoch, epoch[1:])) > N / 2:
                raise Wrong(
                    f"In epoch {k + 1} most items follow the same item as before.",
                    "the order is only moved along, not shuffled",
                    "moved along",
                )


def _rates(rates: list[float], optimisers: list) -> None:
    if not rates:
        raise Wrong("No optimiser of torch.optim has made a step.", mistake="no step")
    top = max(rates)
    peak = rates.index(top)
    said = f"The learning rate: first {rates[0]:.3g}, highest {top:.3g}, last {rates[-1]:.3g}."
    if len(optimisers) > 1:
        raise Wrong(
            f"{len(optimisers)} optimisers made steps.",
            "a new optimiser forgets the running means of the old one: make one, before the loop",
            "optimiser made again",
        )
    if min(rates) < 0:
        raise Wrong(
            said,
            "the rate is negative: is the warm-up longer than the run, or the fall too long?",
            "negative rate",
        )
    if not TOP[0] / 1.1 <= top <= TOP[1] * 1.1:
        raise Wrong(
            said,
            f"AdamW moves each weight by about the rate in each step: between {TOP[0]:g} and {TOP[1]:g} "
            "is wanted here",
            "rate too high" if top > TOP[1] else "rate too low",
        )
    if rates[0] > top / 3 or peak == 0:
        raise Wrong(
            said,
            f"there is no warm-up of steps: of these {len(rates)}, the first should have a third of the "
            "highest rate at most, and the next ones more and more",
            "no warm-up",
        )
    if rates[-1] > top / 5:
        raise Wrong(
            said, "there is no decay: end with a fifth of the highest rate at most", "no decay"
        )
    rising = all(a <= b * (1 + 1e-6) for a, b in zip(rates[:peak], rates[1 : peak + 1]))
    falling = all(a * (1 + 1e-6) >= b for a, b in zip(rates[peak:], rates[peak + 1 :]))
    if not (rising and falling):
        raise Wrong(f"{said} In between it goes up and down; it should rise once and fall once.")
    if peak > len(rates) / 2:
        raise Wrong(
            f"{said} The highest comes at step {peak + 1} of {len(rates)}; the warm-up is for the first few.",
            mistake="warm-up too long",
        )


@exercise(
    6,
    "The loss goes nowhere",
    'notebook 04, "The loop, by hand"',
    solved="A new order each epoch, one optimiser, and a rate that rises and falls.",
    slow_start=True,
)
def training_recipe(answer) -> None:
    """answer(model, loss_of, data, epochs, batch_size, generator) -> the losses, one a step."""
    for size in RUNS:
        run = _watched(answer, *size)
        _orders(run)
        in_parts(
            Part(
                "the rate",
                lambda: _rates(run.rates, run.optimisers),  # noqa: B023
                'notebook 04, "A learning rate that rises and falls"',
            )
        )
    *_, batches, losses, rates, _, result = run
    if len(rates) != len(batches):
        raise Wrong(f"The loss was asked {len(batches)} times, but {len(rates)} steps were made.")
    if result is None:
        raise Wrong("`training_recipe` returned None: is a `return` missing?", mistake="none")
    if not isinstance(result, list | tuple) or len(result) != len(batches):
        raise Wrong(
            "`training_recipe` should return a list of the losses, one a step.", mistake="type"
        )
    if any(isinstance(one, Tensor) and one.requires_grad for one in result):
        raise Wrong(
            "The losses that you return hold on to their gradients, and so to all the memory of the "
            "network.",
            "keep loss.item()",
            "gradients kept",
        )
    _returned(result, losses)
    again, other = (_watched(answer, *RUNS[-1], seed=seed).batches for seed in (6, 7))
    if again != batches or other == batches:
        raise Wrong(
            "The same generator, set to the same seed, gives another order."
            if again != batches
            else "Another seed of the generator gives the same order.",
            "hand the generator on to the draw",
            "generator ignored",
        )


def _returned(result: list | tuple, losses: list[float]) -> None:
    """Raises Wrong unless the answer returns the losses that it was given."""
    for step, (got, want) in enumerate(zip(result, losses), 1):
        if not isinstance(got, int | float | Tensor) or torch.as_tensor(got).numel() != 1:
            kind = type(got).__name__
            raise Wrong(
                f"The losses should be plain numbers; that of step {step} is of type {kind}.",
                mistake="type",
            )
        if abs(float(got) - want) > 1e-4 * max(1, abs(want)):
            raise Wrong(
                f"The loss of step {step}: you return {float(got):.5g}, and it was {want:.5g}.\n"
                "    It is wrong in a way that I do not recognise."
            )


# --- 15 ------------------------------------------------------------------------------------------


def _network(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm1d(2)
    network = nn.Sequential(nn.Linear(3, 2), nn.Sequential(norm))
    for tensor in [*network.parameters(), norm.running_mean, norm.running_var]:
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator))
    norm.num_batches_tracked.fill_(seed)
    return network


def _flat(network: nn.Module) -> Tensor:
    return torch.cat([v.detach().double().flatten() for v in network.state_dict().values()])


def _steps(update, first: int, count: int, decay: float) -> Tensor:
    """(count, all numbers of the average): after each of the updates n = first, first + 1, …"""
    average, rows = _network(0), []
    for n in range(first, first + count):
        update(average, _network(n), n, decay)
        rows.append(_flat(average))
    return torch.stack(rows)


def _mixing(share, buffers: str = "copied"):
    """An update whose average keeps share(n, decay) of itself."""

    @torch.no_grad()
    def update(average: nn.Module, model: nn.Module, n: int, decay: float) -> None:
        d = share(n, decay)
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_(d * old + (1 - d) * new)
        for old, new in zip(average.buffers(), model.buffers()):
            if buffers == "copied" or (buffers == "averaged" and not old.is_floating_point()):
                old.copy_(new)
            elif buffers == "averaged":
                old.copy_(d * old + (1 - d) * new)

    return update


def _warm(n: int, decay: float) -> float:
    return min(decay, (1 + n) / (10 + n))


AVERAGE_MISTAKES = [
    Mistake("exchanged", "d and 1 - d have changed places: the average keeps the large share", _mixing(lambda n, d: 1 - _warm(n, d))),
    Mistake("no warm-up", "without a warm-up the random start stays in the average for long", _mixing(lambda n, d: d)),
    Mistake("no warm-up", "without a warm-up the random start stays in the average for long; and the buffers are to be copied", _mixing(lambda n, d: d, "kept")),
    Mistake("max", "the warm-up must hold the decay *down*: min, not max", _mixing(lambda n, d: max(d, (1 + n) / (10 + n)))),
    Mistake("one early", "n counts from 1; you reckon with n - 1", _mixing(lambda n, d: _warm(n - 1, d))),
    Mistake("one late", "n counts from 1; you reckon with n + 1", _mixing(lambda n, d: _warm(n + 1, d))),
    Mistake("always the warm-up", "the decay is never reached: take the smaller of the two", _mixing(lambda n, d: (1 + n) / (10 + n))),
    Mistake("plain mean", "this is the mean of all steps; it should forget the old ones", _mixing(lambda n, d: (n - 1) / n)),
    Mistake("copy", "this copies the last weights; nothing is averaged", _mixing(lambda n, d: 0.0)),
    Mistake("buffers forgotten", "the buffers (means of a BatchNorm, say) stay at their first values: copy them", _mixing(_warm, "kept")),
    Mistake("buffers averaged", "buffers are not weights: copy them as they are", _mixing(_warm, "averaged")),
    Mistake("nothing", "the average does not change: write into its tensors, `copy_`, `lerp_`, `mul_`", lambda average, model, n, decay: None),
]  # fmt: skip


@exercise(
    15,
    "Every sample day is another lottery",
    'notebook 04, "An average of the weights"',
    "w_mean ← d · w_mean + (1 - d) · w,   d = min(decay, (1 + n)/(10 + n))",
    "A calm copy of a restless model.",
)
def moving_average(answer) -> None:
    """answer(average, model, n, decay): updates `average` in place after step n = 1, 2, …"""

    def checked(average: nn.Module, model: nn.Module, n: int, decay: float) -> None:
        before, training = _flat(model), model.training
        call(answer, average, model, n, decay, name="moving_average")
        if not torch.equal(before, _flat(model)) or model.training != training:
            raise Wrong(
                "`moving_average` changes the model that is being trained.",
                "only the average is to be written to",
                "model changed",
            )
        ours = {tensor.data_ptr() for tensor in model.state_dict().values()}
        if any(tensor.data_ptr() in ours for tensor in average.state_dict().values()):
            raise Wrong(
                "After the update the average holds the model's own tensors: the next training step "
                "moves both.",
                "copy the numbers into the average's tensors, do not hand over the tensors",
                "same tensors",
            )
        if any(p.grad_fn is not None for p in average.parameters()):
            raise Wrong(
                "The average remembers how it was computed, step by step, for ever.",
                "work without gradients: torch.no_grad()",
                "gradients kept",
            )

    right = lambda first, count, decay: _steps(_mixing(_warm), first, count, decay)  # noqa: E731
    mistakes = [
        Mistake(m.name, m.cause, lambda *case, update=m.answer: _steps(update, *case))
        for m in AVERAGE_MISTAKES
    ]

    def walked(first: int, count: int, decay: float) -> Tensor:
        return _steps(checked, first, count, decay)

    cases = [(1, 5, 0.5), (1, 4, 0.999), (200, 3, 0.9)]
    judge(walked, cases, right, mistakes, atol=1e-5, name="moving_average")


# --- 25 ------------------------------------------------------------------------------------------


@exercise(
    25,
    "The processor waits for its pictures",
    'notebook 04, "Something to learn"',
    solved="The same losses, and no picture is fetched by itself.",
    slow_start=True,
)
def faster_training(answer) -> None:
    """answer(model, data, order, lr, generator) -> the losses, one for each row of `order`."""
    draws = torch.Generator().manual_seed(25)
    images = torch.randint(0, 256, (40, 3, 8, 8), generator=draws, dtype=torch.uint8)
    order = torch.stack([torch.randperm(40, generator=draws)[:8] for _ in range(9)])
    data, model, lr = Pictures(images), tiny(), 0.02
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(SEED)
    singles = Singles(images.shape[1:])

    def one_by_one() -> None:
        count = data.singly or max(singles.cut, singles.stacked)
        if data.singly or count > 2 * len(order):
            raise Wrong(
                f"{count} pictures were fetched one by one, for {order.numel()} in {len(order)} "
                "batches.",
                f"{'data[i]' if data.singly else 'your loop over pictures'} runs Python for every "
                "single picture; take a whole batch out of data.images at once",
                "one by one",
            )

    try:
        with singles:
            result = call(answer, model, data, order, lr, generator, name="faster_training")
    except Wrong as wrong:
        if wrong.mistake == "global random":  # a DataLoader draws them, and has worse faults here
            one_by_one()
        if "'Byte'" in wrong.reason or "uint8" in wrong.reason:
            wrong.cause = "the pictures are still uint8, 0…255: the model wants floats in [-1, 1]"
            wrong.mistake = "uint8"
        raise
    if result is None:
        raise Wrong("`faster_training` returned None: is a `return` missing?", mistake="none")
    one_by_one()
    if not isinstance(result, Tensor | list | tuple):
        raise Wrong(
            "`faster_training` should return a tensor or a list of the losses, and returned a "
            f"{type(result).__name__}.",
            mistake="type",
        )
    if not torch.equal(images, data.images):
        raise Wrong("The pictures were changed in place.", mistake="in place")
    if any(isinstance(one, Tensor) and one.requires_grad for one in result):
        raise Wrong(
            "The losses hold on to their gradients, and so to all the memory of the network.",
            "keep loss.detach()",
            "gradients kept",
        )
    try:
        got = result if isinstance(result, Tensor) else torch.tensor([float(one) for one in result])
    except (TypeError, ValueError, RuntimeError):
        raise Wrong("The losses that you return are not all numbers.", mistake="type") from None
    got, want = got.float().flatten().cpu(), reference(images, order, lr)
    if got.shape != want.shape:
        raise Wrong(f"{len(want)} steps should give {len(want)} losses; yours are {len(got)}.")
    if torch.allclose(got, want, atol=2e-3):  # bfloat16 included
        if all(torch.equal(a, b) for a, b in zip(model.parameters(), tiny().parameters())):
            raise Wrong(
                "The losses are right, but the model that you were given is as it was before.",
                "a copy of it was trained",
                "a copy trained",
            )
        return
    first = int((~torch.isclose(got, want, atol=2e-3)).nonzero()[0])
    reason = f"The loss of step {first + 1}: yours {got[first]:.4f}, expected {want[first]:.4f}."
    known = {
        "nothing learned": (
            "no step changes the weights: it is not made, or without a gradient",
            {"lr": 0.0},
        ),
        "rate ignored": ("`lr` is not handed on: AdamW's own rate is 0.001", {"lr": 1e-3}),
        "gradients pile up": ("the gradients are never cleared", {"clear": False}),
        "optimiser made again": (
            "an optimiser that is made in each step forgets its running means",
            {"renew": True},
        ),
        "unscaled": (
            "the pictures go in as they lie there, 0 to 255, not in [-1, 1]",
            {"scale": lambda x: x.float()},
        ),
        "0 to 1": ("the pictures go in as 0 to 1, not in [-1, 1]", {"scale": lambda x: x / 255}),
    }
    for name, (cause, options) in known.items():
        if torch.allclose(
            got, reference(images, order, **({"lr": lr} | options)), rtol=1e-3, atol=1e-4
        ):
            raise Wrong(reason, cause, name)
    raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")
