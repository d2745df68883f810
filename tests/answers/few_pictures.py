import numpy as np
import torch


def plain(distance, real, fake, sizes, generator):
    found = []
    for n in sizes:
        rows = torch.randperm(len(fake), generator=generator)[:n]
        found.append(distance(real, fake[rows]))
    slope, height = np.polyfit([1 / n for n in sizes], found, 1)
    return height


def by_least_squares(distance, real, fake, sizes, generator):
    """torch.linalg.lstsq, with a column of ones."""
    draws = [torch.randperm(len(fake), generator=generator)[:n] for n in sizes]
    y = torch.tensor([[distance(real, fake[rows])] for rows in draws], dtype=torch.float64)
    x = torch.tensor([[1.0, 1 / n] for n in sizes], dtype=torch.float64)
    return torch.linalg.lstsq(x, y).solution[0, 0]


def by_sums(distance, real, fake, sizes, generator):
    """The largest first; the normal equations, summed in Python."""
    k = sx = sy = sxx = sxy = 0
    for n in sorted(sizes, reverse=True):
        keys = torch.rand(len(fake), generator=generator)
        d = float(distance(real, fake[keys.topk(n).indices]))
        k, sx, sy, sxx, sxy = k + 1, sx + 1 / n, sy + d, sxx + 1 / n**2, sxy + d / n
    return (sy * sxx - sx * sxy) / (k * sxx - sx**2)


def by_multinomial(distance, real, fake, sizes, generator):
    even = torch.ones(len(fake))
    y = [
        distance(real, fake[torch.multinomial(even, n, replacement=False, generator=generator)])
        for n in sizes
    ]
    x = 1 / torch.as_tensor(sizes).double()
    x, y = x, torch.as_tensor(y).double()
    joint = torch.cov(torch.stack([x, y]))
    return (y.mean() - x.mean() * joint[0, 1] / joint[0, 0]).item()


RIGHT = [plain, by_least_squares, by_sums, by_multinomial]


def measured(distance, real, fake, sizes, generator):
    draws = [torch.randperm(len(fake), generator=generator)[:n] for n in sizes]
    y = torch.tensor([float(distance(real, fake[rows])) for rows in draws], dtype=torch.float64)
    return 1 / torch.tensor(list(sizes), dtype=torch.float64), y


def fitted(x, y, degree=1, weights=None):
    return np.polyfit(x.numpy(), y.numpy(), degree, w=weights)[::-1]


def from_points(f):
    """f(x, y), of 1/N and the distances."""
    return lambda *given: f(*measured(*given))


def drawing(choose):
    """choose(len(fake), n, generator): the rows."""

    def answer(distance, real, fake, sizes, generator):
        y = [float(distance(real, fake[choose(len(fake), n, generator)])) for n in sizes]
        return np.polyfit([1 / n for n in sizes], y, 1)[1]

    return answer


def with_generator(other):
    return lambda distance, real, fake, sizes, generator: plain(
        distance, real, fake, sizes, other(generator)
    )


def with_distance(change):
    """change(distance): what is called instead."""
    return lambda distance, *rest: plain(change(distance), *rest)


def one_order(distance, real, fake, sizes, generator):
    order = torch.randperm(len(fake), generator=generator)
    y = [float(distance(real, fake[order[:n]])) for n in sizes]
    return np.polyfit([1 / n for n in sizes], y, 1)[1]


def once_a_size(distance, real, fake, sizes, generator):
    """Two draws of one size are the same."""
    draws = {n: torch.randperm(len(fake), generator=generator)[:n] for n in sizes}
    y = [float(distance(real, fake[draws[n]])) for n in sizes]
    return np.polyfit([1 / n for n in sizes], y, 1)[1]


def all_at_once(distance, real, fake, sizes, generator):
    return float(distance(real, fake))


def real_ones_too(distance, real, fake, sizes, generator):
    y = []
    for n in sizes:
        rows = torch.randperm(len(fake), generator=generator)[:n]
        some = torch.randperm(len(real), generator=generator)[:n]
        y.append(float(distance(real[some], fake[rows])))
    return np.polyfit([1 / n for n in sizes], y, 1)[1]


def twice_each(distance, real, fake, sizes, generator):
    def mean(real, some):
        return (distance(real, some) + distance(real, some)) / 2

    return plain(mean, real, fake, sizes, generator)


def in_place(distance, real, fake, sizes, generator):
    fake.copy_(fake[torch.randperm(len(fake), generator=generator)])
    return plain(distance, real, fake, sizes, generator)


def set_back(distance, real, fake, sizes, generator):
    state = generator.get_state()
    result = plain(distance, real, fake, sizes, generator)
    generator.set_state(state)
    return result


def seeded_within(distance, real, fake, sizes, generator):
    return plain(distance, real, fake, sizes, generator.manual_seed(0))


def few_are_left_out(n_all, n, generator):
    return torch.randperm(n_all - 5, generator=generator)[:n]


def slope_and_root(distance, real, fake, sizes, generator):
    x, y = measured(distance, real, fake, sizes, generator)
    return fitted(x.sqrt(), y)[1]


WRONG = {
    "slope": [from_points(lambda x, y: fitted(x, y)[1])],
    "most pictures": [from_points(lambda x, y: y[x.argmin()])],
    "mean of the distances": [from_points(lambda x, y: y.mean())],
    "smallest distance": [from_points(lambda x, y: y.amin())],
    "all at once": [all_at_once, drawing(lambda n_all, n, generator: torch.arange(n_all))],
    "line against N": [from_points(lambda x, y: fitted(1 / x, y)[0])],
    "line against the root": [from_points(lambda x, y: fitted(x.sqrt(), y)[0])],
    "line against the logarithm": [from_points(lambda x, y: fitted(x.log().neg(), y)[0])],
    "logarithms": [from_points(lambda x, y: np.exp(fitted(x, y.log())[0]))],
    "axes exchanged": [
        from_points(lambda x, y: fitted(y, x)[0]),
        from_points(lambda x, y: -fitted(y, x)[0] / fitted(y, x)[1]),
    ],
    "line through zero": [
        from_points(lambda x, y: y.mean() - x.mean() * (x @ y) / (x @ x)),
    ],
    "added": [from_points(lambda x, y: 2 * y.mean() - fitted(x, y)[0])],
    "at N = 1": [from_points(lambda x, y: fitted(x, y).sum())],
    "two points": [
        from_points(lambda x, y: fitted(x[[0, -1]], y[[0, -1]])[0]),
        from_points(lambda x, y: fitted(*(v[x.argsort()[[0, -1]]] for v in (x, y)))[0]),
    ],
    "parabola": [from_points(lambda x, y: fitted(x, y, 2)[0])],
    "weighted": [from_points(lambda x, y: fitted(x, y, 1, (1 / x).sqrt().numpy())[0])],
    "rooted": [from_points(lambda x, y: fitted(x, y.sqrt())[0] ** 2)],
    "real and fake exchanged": [with_distance(lambda distance: lambda a, b: distance(b, a))],
    "real ones drawn": [real_ones_too],
    "too many": [twice_each],
    "first ones": [drawing(lambda n_all, n, generator: slice(n))],
    "with replacement": [
        drawing(lambda n_all, n, generator: torch.randint(n_all, (n,), generator=generator)),
    ],
    "one order": [one_order],
    "same draw": [once_a_size],
    "changed pictures": [with_distance(lambda distance: lambda a, b: distance(a, b + 1))],
    "not handed on": [with_distance(lambda distance: lambda a, b: distance(a.flip(0), b))],
    "generator ignored": [
        with_generator(lambda generator: torch.Generator().manual_seed(0)),
        with_generator(lambda generator: generator.clone_state()),
        set_back,
    ],
    "generator set back": [seeded_within],
    "global random": [with_generator(lambda generator: None)],
    "in place": [in_place],
    "none": [lambda distance, real, fake, sizes, generator: None],
    "type": [from_points(lambda x, y: fitted(x, y).tolist())],
    "signature": [lambda distance, real, fake, sizes: 0.0],
    "slope + line against the root": [slope_and_root],
}

UNKNOWN = [
    from_points(lambda x, y: y.median()),
    from_points(lambda x, y: fitted(x**2, y)[0]),
    from_points(lambda x, y: fitted(1 / (1 / x - 1), y)[0]),
    from_points(lambda x, y: fitted(x[1:], y[1:])[0]),
    from_points(lambda x, y: max(fitted(x, y)[0], 1.0)),
    drawing(few_are_left_out),
    drawing(lambda n_all, n, generator: torch.randperm(n_all, generator=generator)[: n + 1]),
]
