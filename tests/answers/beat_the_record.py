import torch
from torch import nn


def polynomial(x, rounds=5):
    for _ in range(rounds):
        a = x @ x.transpose(-1, -2)
        x = 3.4445 * x - 4.7750 * (a @ x) + 2.0315 * (a @ (a @ x))
    return x


def smaller_side(weight, gradient, mean, lr):
    """Turned round if it is tall, so that x xᵀ is the smaller product."""
    mean = 0.95 * mean + 0.05 * gradient
    ahead = 0.05 * gradient + 0.95 * mean
    x = ahead.reshape(len(ahead), -1)
    rows, columns = x.shape
    x = x / torch.linalg.norm(x)
    x = polynomial(x.T).T if rows > columns else polynomial(x)
    factor = (rows / columns) ** 0.5 if rows > columns else 1.0
    return weight - lr * factor * x.view_as(weight), mean


def by_singular_values(weight, gradient, mean, lr):
    """The same polynomial, on the singular values themselves."""
    mean = mean + 0.05 * (gradient - mean)
    x = (gradient + 0.95 * (mean - gradient)).flatten(1).double()
    u, s, v = torch.linalg.svd(x / x.square().sum().sqrt(), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    move = u * s @ v * max(1.0, x.shape[0] / x.shape[1]) ** 0.5
    return [weight.add(move.view(weight.shape).to(weight), alpha=-lr), mean]


def by_einsum(weight, gradient, mean, lr):
    new = torch.einsum("...,->...", mean, torch.tensor(0.95)) + 0.05 * gradient
    x = (0.05 * gradient + 0.95 * new).view(weight.size(0), -1)
    x = nn.functional.normalize(x.flatten(), dim=0).view_as(x)
    for _ in range(5):
        square = torch.einsum("ik,jk->ij", x, x)
        inner = -4.7750 * square + 2.0315 * torch.einsum("ij,jk->ik", square, square)
        x = 3.4445 * x + torch.einsum("ij,jk->ik", inner, x)
    return weight - max(len(x) / x[0].numel(), 1) ** 0.5 * lr * x.reshape_as(weight), new


RIGHT = [smaller_side, by_singular_values, by_einsum]


def step(
    keep=0.95,
    ahead=lambda g, m: 0.05 * g + 0.95 * m,
    matrix=lambda a: a.flatten(1),
    norm=lambda x: x / x.norm(),
    made=polynomial,
    size=lambda r, c: max(1, r / c) ** 0.5,
    sign=-1,
):
    def muon_step(weight, gradient, mean, lr):
        mean = keep * mean + (1 - keep) * gradient
        x = matrix(ahead(gradient, mean))
        x = made(norm(x)) * size(*x.shape)
        return weight + sign * lr * x.reshape(weight.shape), mean

    return muon_step


def svd(x):
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    return u @ v


def sgd(weight, gradient, mean, lr):
    """What the exercise begins with."""
    mean = mean.lerp(gradient, 0.05)
    return weight - lr * gradient.lerp(mean, 0.95), mean


def forgets(weight, gradient, mean, lr):
    return smaller_side(weight, gradient, mean, lr)[0], mean


def exchanged(weight, gradient, mean, lr):
    return smaller_side(weight, gradient, mean, lr)[::-1]


def weight_only(weight, gradient, mean, lr):
    return smaller_side(weight, gradient, mean, lr)[0]


def as_matrices(weight, gradient, mean, lr):
    weight, mean = smaller_side(weight, gradient, mean, lr)
    return weight.flatten(1), mean.flatten(1)


def move_alone(weight, gradient, mean, lr):
    new, mean = smaller_side(weight, gradient, mean, lr)
    return weight - new, mean


def sums(weight, gradient, mean, lr):
    mean = 0.95 * mean + gradient
    x = gradient.add(mean, alpha=0.95).flatten(1)
    size = max(1, len(x) / x.shape[1]) ** 0.5
    return weight - lr * size * polynomial(x / x.norm()).view(weight.shape), mean


def mixture(weight, gradient, mean, lr):
    new, mean = smaller_side(weight, gradient, mean, lr)
    return new, 0.05 * gradient + 0.95 * mean


WRONG = {
    "nothing": [lambda weight, g, mean, lr: (weight, 0.95 * mean + 0.05 * g)],
    "the move": [move_alone],
    "exchanged": [exchanged],
    "not two": [weight_only, as_matrices],
    "plain momentum": [sgd],
    "uphill": [step(sign=1)],
    "not orthogonalised": [step(made=lambda x: x)],
    "not normalised": [
        step(norm=lambda x: x),
        step(norm=lambda x: nn.functional.normalize(x, dim=1)),
        step(norm=lambda x: x / x.abs().max()),
    ],
    "four rounds": [step(made=lambda x: polynomial(x, 4))],
    "six rounds": [step(made=lambda x: polynomial(x, 6))],
    "exact": [step(made=svd)],
    "signs": [step(made=torch.sign)],
    "no momentum": [step(ahead=lambda g, m: g)],
    "no look ahead": [step(ahead=lambda g, m: m)],
    "mean exchanged": [step(keep=0.05)],
    "sum": [sums],
    "old mean returned": [forgets],
    "mixture returned": [mixture],
    "no size": [step(size=lambda r, c: 1)],
    "no root": [step(size=lambda r, c: max(1, r / c))],
    "upside down": [step(size=lambda r, c: max(1, c / r) ** 0.5)],
    "no maximum": [step(size=lambda r, c: (r / c) ** 0.5)],
    "all numbers": [step(size=lambda r, c: 0.2 * max(r, c) ** 0.5)],
    "kernels": [step(matrix=lambda a: a.flatten(0, -2))],
}


def other_coefficients(x):
    for _ in range(5):
        x = 1.5 * x - 0.5 * (x @ x.T) @ x
    return x


def clipped(x):
    return polynomial(x).clamp(-0.3, 0.3)


def shrinks(weight, gradient, mean, lr):
    return smaller_side((1 - 0.1 * lr) * weight, gradient, mean, lr)


def whole_vector(weight, gradient, mean, lr):
    mean = mean.lerp(gradient, 0.05)
    x = gradient.lerp(mean, 0.95).flatten()[None]
    return weight - lr * polynomial(x / x.norm()).view(weight.shape), mean


UNKNOWN = [step(made=other_coefficients), step(made=clipped), step(keep=0.9), shrinks, whole_vector]
