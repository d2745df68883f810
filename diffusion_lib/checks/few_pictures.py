"""Exercise 33: the Fréchet distance of few pictures, and of infinitely many."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.checks._call import call, inputs_of, kind
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._stages import use_of_generator
from diffusion_lib.checks._wrong import unknown


def right(distance, real, fake, sizes, generator):
    found = []
    for n in sizes:
        rows = torch.randperm(len(fake), generator=generator)[:n]
        found.append(float(distance(real, fake[rows])))
    x = torch.tensor([1 / n for n in sizes], dtype=torch.float64)
    y = torch.tensor(found, dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return y.mean() - slope * x.mean()


def polynomial(x: Tensor, y: Tensor, degree: int, weights: Tensor | float = 1.0) -> Tensor:
    """Coefficients of the polynomial that is nearest, the constant first."""
    powers = torch.stack([x**i for i in range(degree + 1)], 1)
    weights = torch.as_tensor(weights, dtype=x.dtype).expand_as(x).sqrt()
    return torch.linalg.lstsq(powers * weights[:, None], (y * weights)[:, None]).solution[:, 0]


LINE = "y.mean() - slope * x.mean()"
TABLE = Table(
    right,
    f"""
slope | {LINE} -> slope
    this is how steep the line is; how high it is at 1/N = 0 is wanted
most pictures | {LINE} -> y[max(range(len(sizes)), key=lambda i: sizes[i])]
most pictures | {LINE} -> y[-1]
    this is the distance of the largest number of pictures, which is still too large: follow the line
    on to 1/N = 0
mean of the distances | {LINE} -> y.mean()
    this is the mean of the distances, with all that few pictures have added to them
all at once | {LINE} -> torch.as_tensor(distance(real, fake), dtype=torch.float64)
    this is the distance of all the pictures that there are; follow the line on to infinitely many
smallest distance | {LINE} -> y.min()
    this is the smallest distance found, which is still too large
line against N | 1 / n for n in -> n for n in
    the line is drawn against N; the distance falls like 1/N, and against that it is straight
line against the root | 1 / n for n in -> n**-0.5 for n in
    the line is drawn against 1/√N, by which a mean is uncertain; what few pictures add on average
    falls like 1/N
line against the logarithm | torch.tensor([1 / n for n in sizes], dtype=torch.float64) -> torch.tensor(list(sizes), dtype=torch.float64).log()
    the line is drawn against log N; 1/N is wanted
logarithms | torch.tensor(found, dtype=torch.float64) -> torch.tensor(found, dtype=torch.float64).log() ;; {LINE} -> ({LINE}).exp()
logarithms | torch.tensor(found, dtype=torch.float64) -> torch.tensor(found, dtype=torch.float64).log()
    the line is drawn through the logarithms of the distances; take the distances themselves
axes exchanged | y.mean() - slope * x.mean() -> x.mean() - y.mean() * (slope * (x - x.mean()).square().sum() / (y - y.mean()).square().sum())
axes exchanged | y.mean() - slope * x.mean() -> y.mean() - x.mean() * ((y - y.mean()).square().sum() / ((x - x.mean()) * (y - y.mean())).sum())
    the axes are exchanged: this line gives 1/N from the distance
line through zero | ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum() -> (x * y).sum() / x.square().sum()
    the slope is that of a line through zero: take the means off first
added | {LINE} -> y.mean() + slope * x.mean()
    the line is followed the wrong way: at 1/N = 0 it is lower than in the middle
at N = 1 | {LINE} -> {LINE} + slope
    this is the height of the line at 1/N = 1, one single picture; 1/N = 0 is wanted
two points | {LINE} -> (y[0] * x[-1] - y[-1] * x[0]) / (x[-1] - x[0])
two points | {LINE} -> (y[x.argmax()] * x.min() - y[x.argmin()] * x.max()) / (x.min() - x.max())
    this line goes through two of the points; use them all: the line with the least squared distances
parabola | {LINE} -> polynomial(x, y, 2)[0]
    this is a parabola; a straight line is wanted
weighted | {LINE} -> polynomial(x, y, 1, 1 / x)[0]
weighted | {LINE} -> polynomial(x, y, 1, 1 / x**2)[0]
    the points are weighted; all should count the same
rooted | y = torch.tensor(found, dtype=torch.float64) -> y = torch.tensor(found, dtype=torch.float64).sqrt()
rooted | y = torch.tensor(found, dtype=torch.float64) -> y = torch.tensor(found, dtype=torch.float64).sqrt() ;; {LINE} -> ({LINE}) ** 2
    the root of the distances is taken; take them as they are
real and fake exchanged | distance(real, fake[rows]) -> distance(fake[rows], real)
    `distance` is called with the fake pictures first; the real ones come first
real ones drawn | distance(real, fake[rows]) -> distance(real[:n], fake[rows])
    only n of the real pictures are compared; all of them should be: they are what we measure against
too many
    `distance` is called more often than once a size
first ones
    the pictures are taken from the beginning of the crowd, where they may all be of one kind: draw
    them at random
with replacement
    pictures are drawn with replacement, so that some come twice: take part of a random order
one order
    the smaller draws are parts of the larger ones; make a new draw for each size
same draw
    two draws of one size have the same pictures; make a new one each time
changed pictures
    `distance` gets pictures that are none of the given ones
not handed on
    `real` is to be handed on to `distance` as it is
generator ignored
    use the generator that you are given, itself, in each draw: no copy, none of your own, and do not
    set it back
generator set back
    your code seeds the generator, or sets it back: each call would then draw the same pictures
""",
)


def by_size(bias: float, curve: float, limit: float = 2.0) -> Callable:
    """A stand-in for a distance, which looks at the numbers of pictures only."""

    def distance(real: Tensor, fake: Tensor) -> float:
        n, m = len(fake), len(real)
        return limit + bias / n + curve / n**2 + 0.02 * (n % 7) + 3 / m**0.5

    return distance


def crowd(n: int) -> Tensor:
    """(n, 2), each row with its number in it."""
    return torch.stack([torch.arange(float(n)), torch.arange(n) * -0.5], 1)


def draws_of(answer: Callable, sizes: list[int], generator: torch.Generator) -> list[list[int]]:
    """The numbers of the pictures that `distance` is given, call by call."""
    real, fake, seen = crowd(30) + 1000, crowd(80), []

    def distance(given: Tensor, drawn: Tensor) -> float:
        TABLE.demand(
            isinstance(given, Tensor) and torch.equal(given, real),
            "not handed on",
            f"`distance` got {kind(given)} as its real pictures; `real` is {kind(real)}.",
        )
        rows = drawn[:, 0].round().long()
        known = rows.min() >= 0 and rows.max() < 80 and torch.equal(fake[rows], drawn)
        TABLE.demand(
            known, "changed pictures", "`distance` got other pictures than the given ones."
        )
        seen.append(rows.tolist())
        return 1 + 5 / len(drawn)

    call(answer, distance, real.clone(), fake.clone(), list(sizes), generator, name="unlimited")
    return seen


def check_draws(answer: Callable) -> None:
    sizes = [10, 20, 20, 40, 60]
    seen = draws_of(answer, sizes, torch.Generator().manual_seed(1))
    reason = f"For {len(sizes)} sizes, `distance` was called {len(seen)} times."
    TABLE.demand(len(seen) <= len(sizes), "too many", reason)
    got = sorted(len(rows) for rows in seen)
    if got != sizes:
        raise unknown(f"For the sizes {sizes}, `distance` got {got} fake pictures.")
    for rows in seen:
        n, several = len(rows), len(rows) - len({*rows})
        reason = f"Of {n} pictures {several} had been drawn before in the same draw."
        TABLE.demand(several == 0, "with replacement", reason)
        reason = f"The {n} pictures that `distance` got are those from number {min(rows)} on."
        TABLE.demand(max(rows) - min(rows) >= n, "first ones", reason)
    small, twin = (set(rows) for rows in seen if len(rows) == 20)
    if small == twin:
        nested = all(set(seen[i]) <= set(seen[i + 1]) for i in range(4))
        raise TABLE.wrong(
            "one order" if nested else "same draw", "Two draws of 20 pictures have the same ones."
        )


def check_shares(answer: Callable) -> None:
    """Each picture is drawn about as often as any other."""
    counts = torch.zeros(80)
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        for rows in draws_of(answer, [10, 20, 20, 40, 60], generator):
            counts[rows] += 1 / len(rows)
    if (low := counts.min() / counts.mean()) < 0.3:
        i = int(counts.argmin())
        raise unknown(f"In 100 draws picture {i} came {low:.1f} times as often as others.")


@exercise(
    33,
    "Forty per cent better overnight",
    'notebook 12, "Is it any good?"',
    "d(N) ≈ d(∞) + b · (1/N):   the height at 1/N = 0 of the line through all (1/N, d(N))",
    "As good as with infinitely many pictures.",
)
def few_pictures(answer) -> None:
    """answer(distance, real, fake, sizes, generator) -> number."""
    cases = [
        (by_size(60, 900), crowd(50), crowd(400), [20, 40, 80, 160, 320]),
        (by_size(-9, 30, 7.0), crowd(20), crowd(90), (90, 15, 30, 15, 60)),
        (by_size(300, 0, 0.5), crowd(400), crowd(600), [300, 100, 500]),
    ]
    cases = [(*case, torch.Generator().manual_seed(33 + i)) for i, case in enumerate(cases)]
    inputs_of(answer, cases[0])
    judge(answer, cases, TABLE, "unlimited", 1e-4)
    check_draws(answer)
    drawn = lambda own: torch.tensor(sum(draws_of(answer, [10, 30], own), []))  # noqa: E731
    use = use_of_generator(drawn)
    TABLE.demand(
        use != "ignored", "generator ignored", "The generator is as it was after the call."
    )
    TABLE.demand(use != "set back", "generator set back", "Each call draws the same pictures.")
    reason = "The same generator, set to the same seed, draws other pictures."
    TABLE.demand(use != "mixed", "generator ignored", reason)
    check_shares(answer)
