import math
import random

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.utils.data import DataLoader


def rate(s, steps, top=2e-3, warmup=5):
    return top * min(1, (s + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * s / steps))


def by_hand(model, loss_of, data, epochs, batch_size, generator):
    optimiser = torch.optim.AdamW(model.parameters())
    losses, steps = [], epochs * len(data) // batch_size
    for _ in range(epochs):
        for indices in torch.randperm(len(data), generator=generator).split(batch_size):
            for group in optimiser.param_groups:
                group["lr"] = rate(len(losses), steps)
            loss = loss_of(model, data[indices])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return losses


def with_loader(model, loss_of, data, epochs, batch_size, generator):
    loader = DataLoader(data, batch_size, shuffle=True, generator=generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = OneCycleLR(optimiser, 5e-3, total_steps=epochs * len(loader), pct_start=0.2)
    losses = []
    for _ in range(epochs):
        for batch in loader:
            optimiser.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
    return losses


def straight(model, loss_of, data, epochs, batch_size, generator):
    """SGD, up in a straight line and down in another."""
    steps = epochs * (len(data) // batch_size)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    line = LambdaLR(optimiser, lambda s: min((s + 1) / 4, (steps - s) / steps))
    losses = []
    for epoch in range(epochs):
        order = torch.argsort(torch.rand(len(data), generator=generator))
        for i in range(0, len(data), batch_size):
            model.zero_grad()
            loss = loss_of(model, data[order[i : i + batch_size]])
            loss.backward()
            optimiser.step()
            line.step()
            losses.append(loss.item())
    return losses


def by_closure(model, loss_of, data, epochs, batch_size, generator):
    """The loss inside step(), gradients clipped, two groups of weights, of which one is empty."""
    weights, losses = list(model.parameters()), []
    groups = [
        {"params": [p for p in weights if (p.ndim > 1) == matrix]} for matrix in (True, False)
    ]
    optimiser = torch.optim.AdamW(groups, lr=1e-2)
    schedule = OneCycleLR(optimiser, 1e-2, epochs=epochs, steps_per_epoch=len(data) // batch_size)
    for _ in range(epochs):
        for batch in data[torch.randperm(len(data), generator=generator)].split(batch_size):

            def closure(batch=batch):
                optimiser.zero_grad()
                loss = loss_of(model, batch)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                return loss

            losses.append(optimiser.step(closure).item())
            schedule.step()
    return losses


RIGHT = [by_hand, with_loader, straight, by_closure]


def recipe(
    order=lambda n, epoch, generator: torch.randperm(n, generator=generator),
    rates=rate,
    renew=False,
    zero=True,
    late=False,
    sign=1,
    keep=lambda loss: loss.item(),
):
    def answer(model, loss_of, data, epochs, batch_size, generator):
        optimiser = torch.optim.AdamW(model.parameters())
        losses, steps = [], epochs * len(data) // batch_size
        for epoch in range(epochs):
            if renew and epoch == 1:
                optimiser = torch.optim.AdamW(model.parameters())
            for indices in order(len(data), epoch, generator).split(batch_size):
                optimiser.param_groups[0]["lr"] = rates(len(losses), steps)
                if zero:
                    optimiser.zero_grad()
                loss = loss_of(model, data[indices])
                (sign * loss).backward()
                if late:
                    optimiser.zero_grad(set_to_none=late == "none")
                optimiser.step()
                losses.append(keep(loss))
        return losses

    return answer


def as_in_the_repository(model, loss_of, data, epochs, batch_size, generator):
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(epochs):
        optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
        for batch in data.split(batch_size):
            loss = loss_of(model, batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return losses


def once(n, epoch, generator, orders={}):  # noqa: B006
    if epoch == 0:
        orders["first"] = torch.randperm(n, generator=generator)
    return orders["first"]


def of_batches(n, epoch, generator):
    return (
        torch.randperm(n // 8, generator=generator)[:, None].mul(8).add(torch.arange(8)).flatten()
    )


def replaced(n, epoch, generator):
    return torch.randint(n, (n,), generator=generator)


def own_seed(n, epoch, generator):
    return torch.randperm(n, generator=torch.Generator().manual_seed(epoch))


def pythons(n, epoch, generator):
    return torch.tensor(random.Random(epoch).sample(range(n), n))


def no_return(*args):
    by_hand(*args)


def moved(n, epoch, generator):
    return torch.arange(n).roll(int(torch.randint(1, n, (1,), generator=generator)))


def one_more(model, loss_of, data, epochs, batch_size, generator):
    return with_loader(model, loss_of, data, epochs, batch_size + 1, generator)


def some_parameters(model, loss_of, data, epochs, batch_size, generator):
    class First:
        def parameters(self):
            return list(model.parameters())[:1]

    first = First()
    return with_loader(
        first, lambda m, batch: loss_of(model, batch), data, epochs, batch_size, generator
    )


def one_groups_rate(model, loss_of, data, epochs, batch_size, generator):
    optimiser = torch.optim.AdamW([{"params": [p]} for p in model.parameters()], lr=0.1)
    losses, steps = [], epochs * len(data) // batch_size
    for _ in range(epochs):
        for indices in torch.randperm(len(data), generator=generator).split(batch_size):
            optimiser.param_groups[0]["lr"] = rate(len(losses), steps)
            optimiser.zero_grad()
            loss = loss_of(model, data[indices])
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return losses


def shuffles_the_data(model, loss_of, data, epochs, batch_size, generator):
    return recipe(lambda n, epoch, generator: in_place(data, n, generator))(
        model, loss_of, data, epochs, batch_size, generator
    )


def in_place(data, n, generator):
    data.copy_(data[torch.randperm(n, generator=generator)])
    return torch.arange(n)


def reseeded(n, epoch, generator):
    return torch.randperm(n, generator=generator.manual_seed(3))


def rate_never_set(model, loss_of, data, epochs, batch_size, generator):
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses, steps = [], epochs * len(data) // batch_size
    for _ in range(epochs):
        for indices in torch.randperm(len(data), generator=generator).split(batch_size):
            optimiser.lr = rate(len(losses), steps)
            optimiser.zero_grad()
            loss = loss_of(model, data[indices])
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return losses


RIGHT += [
    recipe(keep=lambda loss: np.float32(loss.item())),
    recipe(keep=lambda loss: loss.detach().numpy()),
]
WRONG = {
    "in place": [shuffles_the_data],
    "generator set back": [recipe(reseeded)],
    "rate never changes": [rate_never_set],
    "schedule restarted": [
        recipe(rates=lambda s, steps: rate(s % (6 if steps > 20 else 1), 6, warmup=3))
    ],
    "rate of 0": [
        recipe(rates=lambda s, steps: 2e-3 * min(s / 5, (steps - s) / steps)),
        recipe(rates=lambda s, steps: 2e-3 * max(0, min((s + 1) / 5, 1 - s / 20))),
    ],
    "moved along": [recipe(moved)],
    "batch size": [one_more],
    "other parameters": [some_parameters],
    "one group's rate": [one_groups_rate],
    "never shuffled": [as_in_the_repository, recipe(lambda n, epoch, generator: torch.arange(n))],
    "shuffled once": [recipe(once)],
    "batches shuffled": [recipe(of_batches)],
    "with replacement": [recipe(replaced)],
    "global random": [recipe(lambda n, epoch, generator: torch.randperm(n))],
    "generator ignored": [recipe(own_seed), recipe(pythons)],
    "cleared too late": [recipe(late="zero")],
    "no backward": [recipe(late="none")],
    "uphill": [recipe(sign=-1)],
    "type": [recipe(keep=lambda loss: None)],
    "optimiser made again": [recipe(renew=True)],
    "rate too high": [recipe(rates=lambda s, steps: rate(s, steps, top=0.1))],
    "negative rate": [recipe(rates=lambda s, steps: 2e-3 * min((s + 1) / 5, 1 - s / 15))],
    "rate too low": [recipe(rates=lambda s, steps: rate(s, steps, top=1e-6))],
    "no warm-up": [recipe(rates=lambda s, steps: rate(s, steps, warmup=1))],
    "no decay": [recipe(rates=lambda s, steps: 2e-3 * min(1, (s + 1) / 5))],
    "warm-up too long": [
        recipe(rates=lambda s, steps: 2e-3 * (s + 1) / steps * (s < steps - 1) + 1e-6),
        recipe(rates=lambda s, steps: 2e-3 * min((s + 1) / 12, (steps - s) / 12)),
    ],
    "gradients pile up": [recipe(zero=False)],
    "gradients kept": [recipe(keep=lambda loss: loss)],
    "none": [no_return],
}


def zigzag(s, steps):
    return rate(s, steps) * (1 if s % 3 else 0.5)


def skips(model, loss_of, data, epochs, batch_size, generator):
    return by_hand(model, loss_of, data, epochs - 1, batch_size, generator)


def stops(*args):
    return by_hand(*args) / 2


def not_at_first(n, epoch, generator):
    return torch.randperm(n, generator=generator) if epoch else torch.arange(n)


def noughts(loss):
    return 0.0


def for_rows_only(model, loss_of, data, epochs, batch_size, generator):
    """Batches of (batch_size, D), whatever an item is."""

    def losses(model, batch):
        return loss_of(model, batch.reshape(-1, data.shape[1]))

    return by_hand(model, losses, data, epochs, batch_size, generator)


UNKNOWN = [
    for_rows_only,
    recipe(rates=zigzag),
    skips,
    stops,
    recipe(not_at_first),
    recipe(keep=noughts),
]
