import copy

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset


def plain(model, data, order, lr, generator):
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr)
    losses = []
    for indices in order:
        x0 = data.images[indices].float() / 127.5 - 1
        loss = model.loss(x0, generator=generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def channels_last(model, data, order, lr, generator):
    model.to(memory_format=torch.channels_last)
    images = data.images.to(memory_format=torch.channels_last)
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=lr, foreach=True), []
    for indices in order.unbind():
        model.zero_grad(set_to_none=True)
        loss = model.loss(images[indices].float().div_(127.5).sub_(1), generator=generator)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def half(model, data, order, lr, generator):
    """In bfloat16, all pictures converted beforehand."""
    everything = data.images.float() / 127.5 - 1
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=lr), []
    for indices in order:
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.loss(everything.index_select(0, indices), generator=generator)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def gathered(model, data, order, lr, generator):
    """All batches in one gather, by numpy; then by slices."""
    batches = torch.from_numpy(data.images[:, :].numpy()[order.flatten().numpy()])
    batches = [batches[i : i + order.shape[1]] for i in range(0, order.numel(), order.shape[1])]
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=lr, foreach=True), []
    for x0 in batches:
        loss = model.loss((x0.float() - 127.5) / 127.5, generator=generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return losses


def plain_numbers(*args):
    return np.array([loss.item() for loss in plain(*args)], dtype=np.float32)


def looks_at_the_first(model, data, order, lr, generator):
    """One picture alone, for its size; and the table of all scaled values, by lookup."""
    table, first = torch.arange(256).float() / 127.5 - 1, data.images[0]
    losses = torch.empty(len(order))
    optimiser = torch.optim.AdamW([{"params": list(model.parameters()), "lr": lr}])
    for step, indices in enumerate(order):
        x0 = table[data.images[indices].int()].reshape(-1, *first.shape)
        loss = model.loss(x0, generator=generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses[step] = loss.detach()
    return losses


def own_layout(model, data, order, lr, generator):
    """The same pictures in data.images, but channels last."""
    data.images = data.images.to(memory_format=torch.channels_last)
    return plain(model, data, order, lr, generator)


RIGHT = [plain, channels_last, half, gathered, plain_numbers, looks_at_the_first, own_layout]


def loop(
    fetch=lambda data, i: data.images[i].float() / 127.5 - 1,
    clear=True,
    step=True,
    keep=None,
    optim=torch.optim.AdamW,
):
    def answer(model, data, order, lr, generator):
        optimiser, losses = optim(model.parameters(), lr=lr), []
        for indices in order:
            if clear:
                optimiser.zero_grad()
            loss = model.loss(fetch(data, indices), generator=generator)
            loss.backward()
            if step:
                optimiser.step()
            losses.append(loss.detach() if keep is None else keep(loss))
        return torch.stack(losses)

    return answer


def as_given(model, data, order, lr, generator):
    return loop(lambda data, i: torch.stack([data[j] for j in i.tolist()]))(
        model, data, order, lr, generator
    )


def no_return(*args):
    plain(*args)


def with_graphs(model, data, order, lr, generator):
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=lr), []
    for indices in order:
        losses.append(model.loss(data.images[indices].float() / 127.5 - 1, generator=generator))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    return losses


def draws_globally(model, data, order, lr, generator):
    return plain(model, data, order, lr, None)


def from_loader(wrap):
    def answer(model, data, order, lr, generator):
        loader = DataLoader(wrap(data), batch_sampler=order.tolist(), generator=torch.Generator())
        optimiser, losses = torch.optim.AdamW(model.parameters(), lr=lr), []
        for batch in loader:
            x0 = batch if isinstance(batch, torch.Tensor) else batch[0].float() / 127.5 - 1
            loss = model.loss(x0, generator=generator)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses

    return answer


def scaled(images):
    return torch.as_tensor(images).float() / 127.5 - 1


def renews(model, data, order, lr, generator):
    losses = []
    for indices in order:
        losses += plain(model, data, indices[None], lr, generator)
    return losses


def as_a_generator(*args):
    yield from plain(*args)


def a_copy(model, data, order, lr, generator):
    return plain(copy.deepcopy(model), data, order, lr, generator)


def cleared_late(model, data, order, lr, generator):
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=lr), []
    for indices in order:
        loss = model.loss(scaled(data.images[indices]), generator=generator)
        loss.backward()
        optimiser.zero_grad(set_to_none=False)
        optimiser.step()
        losses.append(loss.item())
    return losses


def without_decay(parameters, lr):
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)


def by_numpy(data, indices):
    images = data.images.numpy()
    return scaled(np.stack([images[i] for i in indices.tolist()]))


def last_loss(*args):
    return plain(*args)[-1]


def last_number(*args):
    return plain(*args)[-1].item()


def in_float_for_ever(model, data, order, lr, generator):
    data.images = scaled(data.images)
    return loop(lambda data, i: data.images[i])(model, data, order, lr, generator)


def in_place(model, data, order, lr, generator):
    losses = plain(model, data, order, lr, generator)
    data.images.bitwise_not_()
    return losses


def sorts_a_copy(model, data, order, lr, generator):
    return plain(model, data, order.sort().values, lr, generator)


def sorts(model, data, order, lr, generator):
    order.copy_(order.sort().values)
    return plain(model, data, order, lr, generator)


def global_loader(model, data, order, lr, generator):
    """A DataLoader that draws global numbers, too: fetching one by one is the worse fault."""
    batches = DataLoader(data, batch_sampler=order.tolist())
    return plain_over(batches, model, lr, generator)


def plain_over(batches, model, lr, generator):
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=lr), []
    for x0 in batches:
        loss = model.loss(x0, generator=generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


WRONG = {
    "another optimiser": [
        loop(optim=torch.optim.SGD),
        loop(optim=torch.optim.Adam),
        loop(optim=torch.optim.RMSprop),
        loop(optim=without_decay),
    ],
    "rebound": [in_float_for_ever],
    "in place": [in_place, sorts],
    "sorted": [sorts_a_copy],
    "uint8 overflow": [
        loop(lambda data, i: data.images[i] * 2 / 255 - 1),
        loop(lambda data, i: (data.images[i] - 128) / 128),
        loop(lambda data, i: (data.images[i] - 128) / 127.5),
        loop(lambda data, i: (data.images[i] - 127).float() / 127),
    ],
    "a copy trained": [a_copy],
    "one by one": [
        as_given,
        loop(lambda data, i: torch.stack([*map(data.__getitem__, i)])),
        loop(lambda data, i: scaled(torch.stack([data.images[j] for j in i]))),
        loop(lambda data, i: scaled(torch.cat([data.images[j : j + 1] for j in i.tolist()]))),
        loop(lambda data, i: torch.stack([scaled(data.images.numpy()[j].copy()) for j in i])),
        from_loader(lambda data: data),
        from_loader(lambda data: TensorDataset(data.images)),
        loop(by_numpy),
        global_loader,
    ],
    "optimiser made again": [renews],
    "rate ignored": [
        lambda model, data, order, lr, generator: plain(model, data, order, 1e-3, generator)
    ],
    "uint8": [loop(lambda data, i: data.images[i])],
    "type": [
        as_a_generator,
        lambda *args: "fast",
        lambda *args: [None] * 8,
        last_loss,
        last_number,
    ],
    "unscaled": [loop(lambda data, i: data.images[i].float())],
    "0 to 1": [loop(lambda data, i: data.images[i] / 255)],
    "gradients pile up": [loop(clear=False)],
    "nothing learned": [loop(step=False), cleared_late],
    "gradients kept": [with_graphs, loop(keep=lambda loss: loss)],
    "none": [no_return],
    "global random": [draws_globally],
}


def shuffled(model, data, order, lr, generator):
    return plain(model, data, order.flip(0), lr, generator)


def another_rate(model, data, order, lr, generator):
    return plain(model, data, order, 10 * lr, generator)


def half_of_it(model, data, order, lr, generator):
    return plain(model, data, order[::2], lr, generator)


def same_pictures(model, data, order, lr, generator):
    return plain(model, data, order[:1].expand_as(order), lr, generator)


def twice_the_rate(model, data, order, lr, generator):
    return plain(model, data, order, 2 * lr, generator)


UNKNOWN = [
    loop(lambda data, i: data.images[i].float() / 128 - 1),
    shuffled,
    another_rate,
    twice_the_rate,
    half_of_it,
    same_pictures,
]
