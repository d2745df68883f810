import numpy as np
import torch


def broadcast(x0, t, eps, schedule):
    alpha, sigma = schedule.at(t, like=x0)
    return alpha * x0 + sigma * eps


def picture_by_picture(x0, t, eps, schedule):
    return torch.stack(
        [schedule.alpha[i] * x + schedule.sigma[i] * e for x, i, e in zip(x0, t.tolist(), eps)]
    )


def by_lerp_of_einsum(x0, t, eps, schedule):
    a, s = schedule.alpha.double()[t], schedule.sigma.double()[t]
    x = torch.einsum("b,b...->b...", a, x0.double()) + torch.einsum("b,b...->b...", s, eps.double())
    return x.to(x0.dtype)


def in_numpy(x0, t, eps, schedule):
    shape = [-1] + [1] * (x0.dim() - 1)
    a = np.sqrt(schedule.alpha.numpy()[t] ** 2).reshape(shape)
    return torch.from_numpy(a * x0.numpy() + schedule.sigma.numpy()[t].reshape(shape) * eps.numpy())


RIGHT = [broadcast, picture_by_picture, by_lerp_of_einsum, in_numpy]


def parts(x, t, schedule):
    shape = [len(x)] + [1] * (x.dim() - 1)
    return schedule.alpha[t].reshape(shape), schedule.sigma[t].reshape(shape)


def as_in_the_repository(x0, t, eps, schedule):
    a, s = parts(x0, t, schedule)
    return torch.sqrt(a**2) * eps + x0


def plus_noise(x0, t, eps, schedule):
    return x0 + parts(x0, t, schedule)[1] * eps


def as_in_the_lab(x0, t, eps, schedule):
    a, s = parts(x0, t, schedule)
    return (
        a * x0 + (1 - a**2) * eps if (a**2 + s**2 - 1).abs().max() < 1e-4 else a * x0 + s**2 * eps
    )


def squared_picture(x0, t, eps, schedule):
    a, s = parts(x0, t, schedule)
    return a * a * x0 + s * eps


def no_roots(x0, t, eps, schedule):
    a, s = parts(x0, t, schedule)
    return a * a * x0 + s * s * eps


def swapped(x0, t, eps, schedule):
    s, a = parts(x0, t, schedule)
    return a * x0 + s * eps


def late(x0, t, eps, schedule):
    a, s = parts(x0, (t + 1).clamp(max=schedule.T), schedule)
    return a * x0 + s * eps


def early(x0, t, eps, schedule):
    a, s = parts(x0, t - 1, schedule)
    return a * x0 + s * eps


def minus(x0, t, eps, schedule):
    a, s = parts(x0, t, schedule)
    return a * x0 - s * eps


def first_for_all(x0, t, eps, schedule):
    return schedule.alpha[t[0]] * x0 + schedule.sigma[t[0]] * eps


def in_place(x0, t, eps, schedule):
    a, s = parts(x0, t, schedule)
    return x0.mul_(a).add_(s * eps)


def nothing(x0, t, eps, schedule):
    broadcast(x0, t, eps, schedule)


def a_list(x0, t, eps, schedule):
    return broadcast(x0, t, eps, schedule).tolist()


def for_ever(x0, t, eps, schedule):
    while True:
        x0 = x0 + 0


def seeds(x0, t, eps, schedule):
    torch.manual_seed(0)
    return broadcast(x0, t, eps, schedule)


def default_dtype(x0, t, eps, schedule):
    torch.set_default_dtype(torch.float64)
    return broadcast(x0, t, eps, schedule)


def sigma_from_alpha(x0, t, eps, schedule):
    a, _ = parts(x0, t, schedule)
    return a * x0 + (1 - a * a).clamp(min=0) ** 0.5 * eps


def lerp(x0, t, eps, schedule):
    return torch.lerp(x0, eps, parts(x0, t, schedule)[1])


def brackets(x0, t, eps, schedule):
    a, s = parts(x0, t, schedule)
    return a * (x0 + s * eps)


def turned_round(x0, t, eps, schedule):
    return broadcast(x0, schedule.T - t, eps, schedule)


def clips(x0, t, eps, schedule):
    return broadcast(x0, t, eps, schedule).clip(-1, 1)


WRONG = {
    "root of one minus alpha²": [sigma_from_alpha],
    "straight line": [lerp],
    "alpha for both": [brackets],
    "time turned round": [turned_round],
    "clamped": [clips],
    "untouched picture": [as_in_the_repository],
    "picture does not fade": [plus_noise],
    "variance": [as_in_the_lab],
    "alpha squared": [squared_picture],
    "both squared": [no_roots],
    "exchanged": [swapped],
    "one step late": [late],
    "one step early": [early],
    "sign": [minus],
    "one time for all": [first_for_all],
    "in place": [in_place],
    "none": [nothing],
    "type": [a_list],
    "endless": [for_ever],
    "global seed": [seeds],
    "default dtype": [default_dtype],
}


def half_the_noise(x0, t, eps, schedule):
    a, s = parts(x0, t, schedule)
    return a * x0 + s * eps / 2


def nan(x0, t, eps, schedule):
    return broadcast(x0, t, eps, schedule) * float("nan")


def integers(x0, t, eps, schedule):
    return broadcast(x0, t, eps, schedule).int()


def raises(x0, t, eps, schedule):
    return schedule.alpha[10**6] * x0


def wrong_shape(x0, t, eps, schedule):
    return broadcast(x0, t, eps, schedule).flatten(1)


UNKNOWN = [half_the_noise, nan, integers, raises, wrong_shape]
