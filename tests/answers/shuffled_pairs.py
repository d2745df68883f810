import random

import numpy as np
import torch
from torch.utils.data import DataLoader


def plain(pictures, captions, batch_size, generator):
    for rows in torch.randperm(len(pictures), generator=generator).split(batch_size):
        yield pictures[rows], [captions[i] for i in rows]


def by_a_loader(pictures, captions, batch_size, generator):
    pairs = list(zip(pictures, captions))
    return DataLoader(pairs, batch_size, shuffle=True, generator=generator)


def by_keys(pictures, captions, batch_size, generator):
    """A list of all batches, from sorted random numbers."""
    order = torch.rand(len(captions), generator=generator).argsort().tolist()
    pieces = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [(pictures[piece], tuple(captions[i] for i in piece)) for piece in pieces]


def both_at_once(pictures, captions, batch_size, generator):
    seed = torch.randint(2**62, (), generator=generator).item()
    pairs = list(zip(pictures, captions))
    random.Random(seed).shuffle(pairs)
    while pairs:
        batch, pairs = pairs[:batch_size], pairs[batch_size:]
        images, texts = zip(*batch)
        yield torch.stack(images), list(texts)


def of_strings(pictures, captions, batch_size, generator):
    order = torch.randperm(len(captions), generator=generator).numpy()
    pieces = np.array_split(order, range(batch_size, len(order), batch_size))
    return ((pictures[piece], np.array(captions)[piece]) for piece in pieces)


RIGHT = [plain, by_a_loader, by_keys, both_at_once, of_strings]


def pieces(n, size):
    return [slice(i, i + size) for i in range(0, n, size)]


def perm(pictures, generator):
    return torch.randperm(len(pictures), generator=generator)


def in_pieces(pictures, captions, size):
    for piece in pieces(len(pictures), size):
        yield pictures[piece], captions[piece]


def as_reported(pictures, captions, batch_size, generator):
    return in_pieces(pictures[perm(pictures, generator)], captions, batch_size)


def captions_alone(pictures, captions, batch_size, generator):
    captions = [captions[i] for i in perm(pictures, generator)]
    return in_pieces(pictures, captions, batch_size)


def two_orders(pictures, captions, batch_size, generator):
    pictures = pictures[perm(pictures, generator)]
    return in_pieces(pictures, [captions[i] for i in perm(pictures, generator)], batch_size)


def two_orders_captions_first(pictures, captions, batch_size, generator):
    captions = [captions[i] for i in perm(pictures, generator)]
    return in_pieces(pictures[perm(pictures, generator)], captions, batch_size)


def there_and_back(pictures, captions, batch_size, generator):
    order, laid = perm(pictures, generator), captions.copy()
    for place, text in zip(order, captions):
        laid[place] = text
    return in_pieces(pictures[order], laid, batch_size)


def back_and_there(pictures, captions, batch_size, generator):
    order, laid = perm(pictures, generator), torch.empty_like(pictures)
    laid[order] = pictures
    return in_pieces(laid, [captions[i] for i in order], batch_size)


def alphabet(pictures, captions, batch_size, generator):
    return in_pieces(pictures[perm(pictures, generator)], sorted(captions), batch_size)


def changed_order(change):
    def answer(pictures, captions, batch_size, generator):
        order = perm(pictures, generator)
        told = change(order)
        return in_pieces(pictures[order], [captions[i] for i in told], batch_size)

    return answer


def sorted_within(pictures, captions, batch_size, generator):
    for rows in perm(pictures, generator).split(batch_size):
        yield pictures[rows], [captions[i] for i in sorted(rows.tolist())]


def masked(pictures, captions, batch_size, generator):
    for rows in perm(pictures, generator).split(batch_size):
        mask = torch.zeros(len(pictures), dtype=torch.bool)
        mask[rows] = True
        yield pictures[mask], [captions[i] for i in rows]


def first_captions(pictures, captions, batch_size, generator):
    for rows in perm(pictures, generator).split(batch_size):
        yield pictures[rows], captions[: len(rows)]


def never(pictures, captions, batch_size, generator):
    perm(pictures, generator)
    return in_pieces(pictures, captions, batch_size)


def batches_shuffled(pictures, captions, batch_size, generator):
    cuts = pieces(len(pictures), batch_size)
    for i in torch.randperm(len(cuts) - 1, generator=generator):
        yield pictures[cuts[i]], captions[cuts[i]]
    yield pictures[cuts[-1]], captions[cuts[-1]]


def rows_of(rows):
    def answer(pictures, captions, batch_size, generator):
        for piece in rows(len(pictures), batch_size, generator):
            yield pictures[piece], [captions[i] for i in piece]

    return answer


def drops(n, size, generator):
    return [p for p in torch.randperm(n, generator=generator).split(size) if len(p) == size]


def fills(n, size, generator):
    order = torch.randperm(n, generator=generator)
    return order.repeat(2)[: -(-n // size) * size].split(size)


def draws_again(n, size, generator):
    return torch.randint(n, (n,), generator=generator).split(size)


def each_batch_anew(n, size, generator):
    return [torch.randperm(n, generator=generator)[: len(p)] for p in torch.arange(n).split(size)]


def as_many_batches(n, size, generator):
    return torch.randperm(n, generator=generator).chunk(size)


def for_ever(n, size, generator):
    while True:
        yield from torch.randperm(n, generator=generator).split(size)


def moved_along(n, size, generator):
    start = int(torch.randint(1, n, (), generator=generator))
    return torch.arange(n).roll(start).split(size)


def small_first(n, size, generator):
    return torch.randperm(n, generator=generator).flip(0).split([n % size, *[size] * (n // size)])


def with_generator(other):
    def answer(pictures, captions, batch_size, generator):
        return plain(pictures, captions, batch_size, other(generator))

    return answer


def shuffles_the_list(pictures, captions, batch_size, generator):
    order = perm(pictures, generator).tolist()
    captions[:] = [captions[i] for i in order]
    return in_pieces(pictures[order], captions, batch_size)


def of_python(pictures, captions, batch_size, generator):
    order = list(range(len(pictures)))
    random.shuffle(order)
    return in_pieces(pictures[order], [captions[i] for i in order], batch_size)


def unlike_orders(pictures, captions, batch_size, generator):
    order = perm(pictures, generator)
    told = torch.rand(len(order), generator=generator).argsort()
    return in_pieces(pictures[order], [captions[i] for i in told], batch_size)


def spoilt(pictures, captions, batch_size, generator):
    for images, texts in plain(pictures, captions, batch_size, generator):
        yield images.flip(-1), texts


def in_capitals(pictures, captions, batch_size, generator):
    for images, texts in plain(pictures, captions, batch_size, generator):
        yield images, [text.upper() for text in texts]


def as_numbers(pictures, captions, batch_size, generator):
    return perm(pictures, generator).split(batch_size)


def one_text(pictures, captions, batch_size, generator):
    for images, texts in plain(pictures, captions, batch_size, generator):
        yield images, ", ".join(texts)


def two_orders_only(n, size, generator):
    seed = int(torch.randint(2, (), generator=generator))
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).split(size)


def first_stays_first(n, size, generator):
    rest = 1 + torch.randperm(n - 1, generator=generator)
    return torch.cat([torch.zeros(1, dtype=torch.long), rest]).split(size)


def by_caption(pictures, captions, batch_size, generator):
    """Captions that are the same overwrite each other."""
    known = dict(zip(captions, pictures))
    texts = [list(known)[i] for i in torch.randperm(len(known), generator=generator)]
    return in_pieces(torch.stack([known[text] for text in texts]), texts, batch_size)


WRONG = {
    "pictures alone": [as_reported],
    "captions alone": [captions_alone],
    "two orders": [two_orders, two_orders_captions_first],
    "there and back": [there_and_back, back_and_there, changed_order(torch.argsort)],
    "sorted": [alphabet],
    "moved by one": [
        changed_order(lambda order: order.roll(1)),
        changed_order(lambda order: order - 1),
        changed_order(lambda order: (order + 1) % len(order)),
    ],
    "other order in the batch": [sorted_within, masked],
    "first captions": [first_captions],
    "never shuffled": [never],
    "batches shuffled": [batches_shuffled],
    "last batch left out": [rows_of(drops)],
    "last batch filled up": [rows_of(fills)],
    "with replacement": [rows_of(draws_again), rows_of(each_batch_anew)],
    "batch size": [rows_of(as_many_batches), rows_of(small_first)],
    "endless": [rows_of(for_ever)],
    "generator ignored": [
        with_generator(lambda generator: torch.Generator().manual_seed(0)),
        with_generator(lambda generator: generator.clone_state()),
        of_python,
    ],
    "generator set back": [with_generator(lambda generator: generator.manual_seed(4))],
    "global random": [with_generator(lambda generator: None)],
    "in place": [shuffles_the_list],
    "type": [as_numbers, one_text, lambda *given: 3],
    "none": [lambda pictures, captions, batch_size, generator: None],
}

UNKNOWN = [
    rows_of(moved_along),
    rows_of(two_orders_only),
    rows_of(first_stays_first),
    by_caption,
    unlike_orders,
    spoilt,
    in_capitals,
    changed_order(lambda order: order.flip(0)),
]
