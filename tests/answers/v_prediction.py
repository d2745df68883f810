import numpy as np
import torch


def v(x0, eps, alpha, sigma):
    return alpha * eps - sigma * x0


def v_by_row(x0, eps, alpha, sigma):
    return torch.stack([a * e - s * x for x, e, a, s in zip(x0, eps, alpha, sigma)])


def v_by_difference(x0, eps, alpha, sigma):
    """The speed of x_t as the angle grows."""
    return -torch.addcmul(sigma * x0, alpha, eps, value=-1)


def x0(v, x, alpha, sigma):
    return (alpha * x - sigma * v) / (alpha**2 + sigma**2)


def x0_in_numpy(v, x, alpha, sigma):
    v, x, alpha, sigma = (np.asarray(part, dtype=np.float64) for part in (v, x, alpha, sigma))
    return torch.from_numpy((alpha * x - sigma * v) / np.hypot(alpha, sigma) ** 2)


def x0_by_cosine(v, x, alpha, sigma):
    size = torch.hypot(alpha, sigma)
    return (alpha / size * x - sigma / size * v) / size


def stretch(alpha):
    new = (alpha - alpha[-1]) * alpha[1] / (alpha[1] - alpha[-1])
    new[0] = 1
    return new, (1 - new**2).sqrt()


def stretch_by_loop(alpha):
    first, last = alpha[1].item(), alpha[-1].item()
    new = [1.0] + [(a - last) * first / (first - last) for a in alpha[1:].tolist()]
    return torch.tensor(new), torch.tensor([max(0.0, 1 - a * a) ** 0.5 for a in new])


def stretch_by_weights(alpha):
    share = (alpha[1:] - alpha[-1]) / (alpha[1] - alpha[-1])  # 1 … 0
    new = torch.cat([torch.ones(1), torch.lerp(torch.zeros(1).to(alpha), alpha[1], share)])
    return [new, torch.sqrt((1 - new) * (1 + new))]


RIGHT = [
    (v, x0, stretch),
    (v_by_row, x0_in_numpy, stretch_by_loop),
    (v_by_difference, x0_by_cosine, stretch_by_weights),
]


def target(formula):
    return (formula, x0, stretch)


def back(formula):
    return (v, formula, stretch)


def schedule(formula):
    return (v, x0, formula)


def roots(alpha):
    return alpha, (1 - alpha**2).clamp(min=0).sqrt()


def as_reported(alpha):
    return roots(alpha)


def shifted(alpha):
    new = alpha - alpha[-1]
    new[0] = 1
    return roots(new)


def shifted_all(alpha):
    return roots(alpha - alpha[-1])


def cliff(alpha):
    new = alpha.clone()
    new[-1] = 0
    return roots(new)


def from_clean(alpha):
    return roots((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1]))


def clean_stretched(alpha):
    new = (alpha - alpha[-1]) * alpha[1] / (alpha[1] - alpha[-1])
    return new, (1 - new**2).sqrt()


def clean_stretched_and_clamped(alpha):
    return roots(clean_stretched(alpha)[0])


def sigma_kept(alpha):
    return stretch(alpha)[0], roots(alpha)[1]


def no_root(alpha):
    new = stretch(alpha)[0]
    return new, 1 - new**2


def on_the_squares(alpha):
    square = alpha**2
    square = (square - square[-1]) * square[1] / (square[1] - square[-1])
    square[0] = 1
    return roots(square.sqrt())


def upside_down(alpha):
    new = (alpha - alpha[-1]) * (alpha[1] - alpha[-1]) / alpha[1]
    new[0] = 1
    return roots(new)


def changes_alpha(alpha):
    alpha[1:] = stretch(alpha)[0][1:]
    return roots(alpha)


def changes_v(v, x, alpha, sigma):
    return v.mul_(-sigma).add_(alpha * x).div_(alpha**2 + sigma**2)


def nothing(x0, eps, alpha, sigma):
    v(x0, eps, alpha, sigma)


def no_schedule(alpha):
    stretch(alpha)


def exchanged_ends(alpha):
    return stretch(alpha)[::-1]


def one_minus_alpha(alpha):
    new, _ = stretch(alpha)
    return new, 1 - new


WRONG = {
    "stretch: unchanged": [schedule(as_reported)],
    "stretch: no root": [schedule(no_root)],
    "stretch: upside down": [schedule(upside_down)],
    "stretch: exchanged": [schedule(exchanged_ends)],
    "stretch: one minus alpha": [schedule(one_minus_alpha)],
    "x0: divided by alpha": [
        back(lambda v, x, a, s: (x - s * (a * v + s * x) / (a * a + s * s)) / a)
    ],
    "x0: brackets": [back(lambda v, x, a, s: a * x - s * v / (a * a + s * s))],
    "target: eps": [
        (lambda x0, eps, alpha, sigma: eps, lambda v, x, a, s: (x - s * v) / a, as_reported)
    ],
    "target: x0": [target(lambda x0, eps, alpha, sigma: x0)],
    "target: flow": [target(lambda x0, eps, alpha, sigma: eps - x0)],
    "target: reversed": [target(lambda x0, eps, alpha, sigma: -v(x0, eps, alpha, sigma))],
    "target: exchanged": [target(lambda x0, eps, alpha, sigma: sigma * eps - alpha * x0)],
    "target: sign": [target(lambda x0, eps, alpha, sigma: alpha * eps + sigma * x0)],
    "target: x_t": [target(lambda x0, eps, alpha, sigma: alpha * x0 + sigma * eps)],
    "x0: variance-preserving only": [back(lambda v, x, a, s: a * x - s * v)],
    "x0: read as eps": [back(lambda v, x, a, s: (x - s * v) / a)],
    "x0: sign": [back(lambda v, x, a, s: (a * x + s * v) / (a * a + s * s))],
    "x0: exchanged": [back(lambda v, x, a, s: (s * x - a * v) / (a * a + s * s))],
    "x0: this is eps": [back(lambda v, x, a, s: (s * x + a * v) / (a * a + s * s))],
    "x0: divided by a root": [back(lambda v, x, a, s: (a * x - s * v) / torch.hypot(a, s))],
    "stretch: only shifted": [schedule(shifted), schedule(shifted_all)],
    "stretch: only the last": [schedule(cliff)],
    "stretch: keeps index 0": [schedule(from_clean)],
    "stretch: old sigma": [schedule(sigma_kept)],
    "stretch: in squares": [schedule(on_the_squares)],
    "stretch: not clean": [schedule(clean_stretched_and_clamped), schedule(clean_stretched)],
    "in place": [schedule(changes_alpha), back(changes_v)],
    "none": [target(nothing), schedule(no_schedule)],
    "type": [schedule(lambda alpha: stretch(alpha)[0])],
}

UNKNOWN = [
    back(lambda v, x, a, s: (x - s * v) / (a + s)),
    back(lambda v, x, a, s: x - s / a * v),
    target(lambda x0, eps, alpha, sigma: (alpha * eps - sigma * x0) / 2),
    back(lambda v, x, a, s: (a * x - s * v) / (a**2 + s**2 + 0.1)),
    back(lambda v, x, a, s: x0(v, x, a, s).flatten()),
    schedule(lambda alpha: tuple(part[1:] for part in stretch(alpha))),
    schedule(lambda alpha: stretch(alpha.half())),
]
