import copy

import torch


def share(n, decay):
    return min(decay, (1 + n) / (10 + n))


@torch.no_grad()
def by_lerp(average, model, n, decay):
    for mean, new in zip(average.parameters(), model.parameters()):
        mean.lerp_(new, 1 - share(n, decay))
    for mean, new in zip(average.buffers(), model.buffers()):
        mean.copy_(new)


def by_state_dict(average, model, n, decay):
    weights, old = dict(model.named_parameters()), average.state_dict()
    d = share(n, decay)
    mixed = {
        k: d * old[k] + (1 - d) * v if k in weights else v for k, v in model.state_dict().items()
    }
    average.load_state_dict(mixed)


def by_data(average, model, n, decay):
    d = share(n, decay)
    live = dict(model.named_parameters())
    for name, mean in average.named_parameters():
        mean.data.mul_(d).add_(live[name].data, alpha=1 - d)
    for name, buffer in model.named_buffers():
        average.get_buffer(name).copy_(buffer)


RIGHT = [by_lerp, by_state_dict, by_data]


def mixing(shares, buffers="copied"):
    @torch.no_grad()
    def update(average, model, n, decay):
        d = shares(n, decay)
        for mean, new in zip(average.parameters(), model.parameters()):
            mean.mul_(d).add_((1 - d) * new)
        for mean, new in zip(average.buffers(), model.buffers()):
            if buffers == "copied":
                mean.copy_(new)
            elif buffers == "averaged":
                mean.copy_(d * mean + (1 - d) * new if mean.is_floating_point() else new)

    return update


def weights_only(average, model, n, decay):
    d = share(n, decay)
    with torch.no_grad():
        for mean, new in zip(average.parameters(), model.parameters()):
            mean.copy_(torch.lerp(new, mean, d))


def all_tensors(average, model, n, decay):
    d, old = share(n, decay), average.state_dict()
    new = model.state_dict()
    average.load_state_dict(
        {k: d * old[k] + (1 - d) * new[k] if old[k].is_floating_point() else new[k] for k in old}
    )


def a_new_one(average, model, n, decay):
    average = copy.deepcopy(average)
    by_lerp(average, model, n, decay)
    return average


def hands_over(average, model, n, decay):
    for mean, new in zip(average.parameters(), model.parameters()):
        mean.data = new.data
    for mean, new in zip(average.buffers(), model.buffers()):
        mean.data = new.data


@torch.no_grad()
def into_the_model(average, model, n, decay):
    for mean, new in zip(average.parameters(), model.parameters()):
        new.lerp_(mean, share(n, decay))


def to_eval(average, model, n, decay):
    model.eval()
    by_lerp(average, model, n, decay)


@torch.no_grad()
def new_parameters(average, model, n, decay):
    d = share(n, decay)
    new = dict(model.named_parameters())
    for name, mean in list(average.named_parameters()):
        place = average.get_submodule(name.rpartition(".")[0])
        mixed = torch.nn.Parameter(d * mean + (1 - d) * new[name])
        setattr(place, name.rpartition(".")[2], mixed)
    for mean, buffer in zip(average.buffers(), model.buffers()):
        mean.copy_(buffer)


@torch.no_grad()
def new_data(average, model, n, decay):
    d = share(n, decay)
    for mean, new in zip(average.parameters(), model.parameters()):
        mean.data = d * mean + (1 - d) * new
    for mean, new in zip(average.buffers(), model.buffers()):
        mean.copy_(new)


@torch.no_grad()
def trained_only(average, model, n, decay):
    d = share(n, decay)
    for mean, new in zip(average.parameters(), model.parameters()):
        if new.requires_grad:
            mean.lerp_(new, 1 - d)
    for mean, new in zip(average.buffers(), model.buffers()):
        mean.copy_(new)


@torch.no_grad()
def rebinds_a_name(average, model, n, decay):
    d = share(n, decay)
    for mean, new in zip(average.parameters(), model.parameters()):
        mean = d * mean + (1 - d) * new  # noqa: PLW2901
    for mean, new in zip(average.buffers(), model.buffers()):
        mean.copy_(new)


WRONG = {
    "rebound": [new_parameters, new_data],
    "frozen skipped": [trained_only],
    "exchanged": [mixing(lambda n, d: 1 - share(n, d))],
    "no warm-up": [mixing(lambda n, d: d), mixing(lambda n, d: d, buffers="kept")],
    "max": [mixing(lambda n, d: max(d, (1 + n) / (10 + n)))],
    "one early": [mixing(lambda n, d: min(d, n / (9 + n)))],
    "one late": [mixing(lambda n, d: min(d, (2 + n) / (11 + n)))],
    "always the warm-up": [mixing(lambda n, d: (1 + n) / (10 + n))],
    "plain mean": [mixing(lambda n, d: 1 - 1 / n)],
    "copy": [lambda average, model, n, decay: average.load_state_dict(model.state_dict()) and None],
    "buffers forgotten": [weights_only],
    "buffers averaged": [all_tensors],
    "nothing": [a_new_one, rebinds_a_name],
    "same tensors": [hands_over],
    "model changed": [into_the_model, to_eval],
}


def squared(average, model, n, decay):
    mixing(lambda n, d: share(n, d) ** 2)(average, model, n, decay)


def only_once(average, model, n, decay):
    if n % 2:
        by_lerp(average, model, n, decay)


def with_gradients(average, model, n, decay):
    for mean, new in zip(average.parameters(), model.parameters()):
        mean.lerp_(new, 1 - share(n, decay))


UNKNOWN = [squared, only_once, with_gradients]
