"""Exercise 31: pictures and captions, shuffled together."""

from itertools import islice

import torch
from torch import Tensor

from diffusion_lib.checks._call import call, inputs_of, kind
from diffusion_lib.checks._compare import as_tensor, close
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._stages import use_of_generator
from diffusion_lib.checks._wrong import Wrong, unknown

TABLE = Table(
    None,
    """
pictures alone
    the pictures are shuffled, and the captions stay in their old order
captions alone
    the captions are shuffled, and the pictures stay in their old order
two orders
    pictures and captions are each shuffled by an order of their own: draw one, and use it twice
there and back
    the pictures go along the order and the captions against it (or the other way round): the
    caption of picture order[i] is captions[order[i]]
sorted
    the captions come in the order of the alphabet: something sorts them
moved by one
    each picture comes with a neighbour's caption: one of the two is moved by a place
other order in the batch
    each batch has the right captions, in another order than its pictures: a set, a sorting, or a
    mask forgets the order
first captions
    every batch has the captions of the first one: they are to be cut out as the pictures are
never shuffled
    the pairs come in the order that they are given in
batches shuffled
    the batches are shuffled, and not the pairs: shuffle all pairs first, then cut batches out
last batch left out
    what is left over makes a last, smaller batch
last batch filled up
    the last batch is filled up with pairs that have been there already; it may be smaller
batch size
    cut the order into pieces of `batch_size`; the last one alone may be smaller
with replacement
    the pairs are drawn with replacement; in an epoch each comes exactly once: a permutation
endless
    after each pair has come once, the epoch is over
generator ignored
    use the generator that you are given, itself, in the draw: no copy, and none of your own
generator set back
    your code seeds the generator, or sets it back: then all epochs have the same order. Draw from
    it as it is
""",
)


def data(n: int) -> tuple[Tensor, list[str]]:
    """Pictures whose first number says which they are, with captions, no two of them alike."""
    pictures = torch.randn(n, 3, 2, 2, generator=torch.Generator().manual_seed(n))
    pictures[:, 0, 0, 0] = torch.arange(n)
    return pictures, [f"{'zmarqeb'[(5 * i) % 7]} cat number {i}" for i in range(n)]


def batches_of(
    answer, n: int, size: int, generator: torch.Generator, told: list[str] | None = None
) -> list[tuple[list, list]]:
    """The numbers of the pictures and of the captions in each batch. told: other captions."""
    pictures, captions = data(n)
    captions = told or captions
    most = 2 * n + 3

    def read(pictures, captions, batch_size, generator) -> list:
        epoch = answer(pictures, captions, batch_size, generator)
        if not hasattr(epoch, "__iter__"):
            name = "none" if epoch is None else "type"
            said = f"should yield batches, or return a list of them, and returned {kind(epoch)}."
            raise Wrong(f"`shuffled_pairs` {said}", name)
        return list(islice(epoch, most))

    given = pictures.clone(), captions.copy(), size, generator
    inputs_of(answer, given)  # its complaints are of the answer, not of `read`
    found = call(read, *given, name="shuffled_pairs")
    reason = f"{n} pairs in batches of {size}: more than {most - 1} batches come, and no end."
    TABLE.demand(len(found) < most, "endless", reason)
    batches = []
    for i, batch in enumerate(found, 1):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise Wrong(
                f"Batch {i} should be a pair (pictures, captions), and is {kind(batch)}.", "type"
            )
        images, texts = batch
        images = as_tensor(images, "shuffled_pairs")
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise Wrong(f"The captions of batch {i} should be a list of strings.", "type")
        if images.shape[1:] != pictures.shape[1:] or len(images) != len(texts):
            raise unknown(
                f"Batch {i} has pictures of shape {tuple(images.shape)} and {len(texts)} captions."
            )
        rows = images[:, 0, 0, 0].round().long().tolist()
        if not {*texts} <= {*captions} or not {*rows} <= {*range(n)}:
            raise unknown(f"Batch {i} has pictures or captions that are none of the given ones.")
        if not close(images, pictures[rows]):
            raise unknown(f"The pictures of batch {i} are not as they were given.")
        batches.append((rows, [captions.index(text) for text in texts]))
    return batches


def joined(batches: list[tuple[list, list]]) -> tuple[list[int], list[int]]:
    """Of all batches, the numbers of the pictures, and those of the captions."""
    return tuple([i for batch in batches for i in batch[side]] for side in (0, 1))


def check_once(batches: list, n: int, size: int) -> None:
    asked, rows = f"{n} pairs in batches of {size}", joined(batches)[0]
    sizes = [len(rows) for rows, _ in batches]
    full, rest = divmod(n, size)
    wanted = [size] * full + [rest] * bool(rest)
    said = f"{asked}: the batches have the sizes {sizes}"
    TABLE.demand(not rest or sizes != wanted[:-1], "last batch left out", f"{said}.")
    again = len(rows) - len({*rows})
    filled = rest and sizes == [size] * (full + 1) and {*rows} == {*range(n)}
    TABLE.demand(not filled, "last batch filled up", f"{said}, and {again} pairs come twice.")
    TABLE.demand(sizes == wanted, "batch size", f"{said}.")
    reason = f"{asked}: {len({*rows})} different pictures come in one epoch."
    TABLE.demand(sorted(rows) == [*range(n)], "with replacement", reason)


def check_pairs(batches: list, n: int, size: int, seed: int) -> None:
    rows, told = joined(batches)
    if rows == told:
        return
    fit = sum(a == b for a, b in zip(rows, told))
    i = next(i for i, (a, b) in enumerate(zip(rows, told)) if a != b)
    reason = (
        f"{fit} of {n} pictures come with their own caption. The first that does not is "
        f"picture {rows[i]}: it comes with caption {told[i]}."
    )
    given = [*range(n)]
    first = [*range(size)]
    back = [rows.index(j) for j in given]
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(n, generator=generator).tolist() for _ in range(2)]
    alphabet = sorted(given, key=data(n)[1].__getitem__)
    TABLE.demand(told != given, "pictures alone", reason)
    TABLE.demand(rows != given or sorted(told) != given, "captions alone", reason)
    TABLE.demand(sorted([rows, told]) != sorted(drawn), "two orders", reason)
    TABLE.demand(told != back, "there and back", reason)
    TABLE.demand(told != alphabet, "sorted", reason)
    for near in (rows[1:] + rows[:1], rows[-1:] + rows[:-1]):
        TABLE.demand(told != near, "moved by one", reason)
    TABLE.demand([(j + 1) % n for j in rows] != told, "moved by one", reason)
    TABLE.demand([(j - 1) % n for j in rows] != told, "moved by one", reason)
    TABLE.demand(
        not all(sorted(a) == sorted(b) for a, b in batches), "other order in the batch", reason
    )
    same = all(b == batches[0][1][: len(b)] for _, b in batches)
    TABLE.demand(not same or told[:size] not in (first, rows[:size]), "first captions", reason)
    raise unknown(reason)


def check_order(epochs: list[list], n: int, size: int) -> None:
    """That of three epochs is random, as far as can be seen."""
    given = [range(i, min(i + size, n)) for i in range(0, n, size)]
    for batches in epochs:
        rows = joined(batches)[0]
        reason = f"The first batch has the pairs {batches[0][0]}."
        TABLE.demand(rows != [*range(n)], "never shuffled", reason)
        met, pieces = ({frozenset(b) for b in some} for some in ([r for r, _ in batches], given))
        reason = f"{reason} The same pairs meet in a batch as without shuffling."
        TABLE.demand(met != pieces, "batches shuffled", reason)
        together = sum(b - a == 1 for a, b in zip(rows, rows[1:]))
        if together > n / 3:
            raise unknown(f"{together} of {n} pairs still come after the same pair as before.")


def check_places(places: Tensor) -> None:
    """places (20, 60): where each of 60 pairs stands in 20 epochs; each may stand anywhere."""
    if (orders := len(places.unique(dim=0))) < 20:
        raise unknown(f"In 20 epochs only {orders} different orders come.")
    stuck = ((places.mean(0) - 29.5).abs() > 20) | (places.std(0) < 5)  # five standard errors
    if stuck.any():
        i = int(stuck.nonzero()[0])
        raise unknown(f"In 20 epochs, pair {i} always comes near place {places[:, i].mean():.0f}.")


@exercise(
    31,
    "Beautiful, and not what I asked for",
    'notebook 11, "Your own folder"',
    "one order of 0 … N - 1; picture order[i] with caption order[i]",
    "A new order for the pairs, and each picture keeps its own words.",
)
def shuffled_pairs(answer) -> None:
    """answer(pictures, captions, batch_size, generator) -> pairs (pictures, captions), one epoch."""
    for n, size, seed in ((60, 8, 31), (48, 12, 32), (5, 8, 33)):
        generator = torch.Generator().manual_seed(seed)
        epochs = [batches_of(answer, n, size, generator)]
        check_once(epochs[0], n, size)
        check_pairs(epochs[0], n, size, seed)
        epochs += [batches_of(answer, n, size, generator) for _ in range(2)]
        for batches in epochs[1:]:
            check_once(batches, n, size)
            if not all(rows == told for rows, told in batches):
                raise unknown("In the second or third epoch the captions do not fit any more.")
        if n > size:
            check_order(epochs, n, size)

    def order(generator: torch.Generator) -> Tensor:
        return torch.tensor(joined(batches_of(answer, 60, 8, generator))[0])

    use = use_of_generator(order)
    reason = "The generator that you are given is as it was after the epoch."
    TABLE.demand(use != "ignored", "generator ignored", reason)
    reason = "All epochs have the same order."
    TABLE.demand(use != "set back", "generator set back", reason)
    reason = "The same generator, set to the same seed, gives another order."
    TABLE.demand(use != "mixed", "generator ignored", reason)
    generator = torch.Generator().manual_seed(34)
    check_places(torch.stack([order(generator).argsort() for _ in range(20)]).double())
    twins = joined(batches_of(answer, 20, 8, generator, ["a cat"] * 20))[0]
    if sorted(twins) != [*range(20)]:
        raise unknown(
            f"Of 20 pictures with one and the same caption an epoch has only {len({*twins})}."
        )
