"""Exercise 27: a step of Muon."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.checks._compare import close, is_float
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge


def right(weight, gradient, mean, lr):
    mean = mean.lerp(gradient, 0.05)
    ahead = gradient.lerp(mean, 0.95)
    x = ahead.flatten(1)
    rows, columns = x.shape
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return weight - lr * max(1, rows / columns) ** 0.5 * x.reshape(weight.shape), mean


TABLE = Table(
    right,
    """
nothing | return weight - lr -> return weight - 0 * lr
    the weight that comes back is the old one
the move | return weight - lr -> return lr
    the first result is the move alone; wanted is the new weight
uphill | return weight - lr -> return weight + lr
    the weight moves along the gradient; it must go against it
not orthogonalised | range(5) -> range(0)
    the matrix is only divided by its norm: its singular values are as unequal as before
plain momentum | range(5) -> range(0) ;; x = x / (x.norm() + 1e-7) -> x = x
plain momentum | range(5) -> range(0) ;; x / (x.norm() + 1e-7) -> x ;; max(1, rows / columns) ** 0.5 -> 1
    this is SGD with momentum: the five rounds of the polynomial are missing
not normalised | x / (x.norm() + 1e-7) -> x
not normalised | x.norm() + -> x.norm(dim=1, keepdim=True) +
not normalised | x.norm() + -> x.norm(dim=0, keepdim=True) +
not normalised | x.norm() + -> x.abs().max() +
    divide the whole matrix by one number first, its Frobenius norm (the root of the sum of *all*
    squared entries): the polynomial runs away from singular values above 1
four rounds | range(5) -> range(4)
six rounds | range(5) -> range(6)
one round | range(5) -> range(1)
    there must be five rounds of the polynomial
exact | x = x / (x.norm() + 1e-7) -> u, _, v = torch.linalg.svd(x, full_matrices=False); x = u @ v ;; range(5) -> range(0)
    this makes all singular values exactly 1, by a decomposition; wanted are five rounds of the
    polynomial, which come near enough and cost only products of matrices
signs | range(5) -> range(0) ;; x = x / (x.norm() + 1e-7) -> x = x.sign()
    the signs of the entries are not the singular vectors: that is another optimiser
cubic term | -4.7750 * square + -> -4.7750 +
quintic term | 2.0315 * square @ square -> 2.0315 * square
linear term | 3.4445 * x + -> 3.4445 +
signs of the terms | -4.7750 * square -> 4.7750 * square
signs of the terms | 2.0315 * square @ -> -2.0315 * square @
    a term of the polynomial is not as written: 3.4445 x - 4.7750 (x xᵀ) x + 2.0315 (x xᵀ)² x
entry by entry | square = x @ x.T -> square = x * x ;; (-4.7750 * square + 2.0315 * square @ square) @ x -> (-4.7750 * square + 2.0315 * square * square) * x
    you multiply entry by entry; x xᵀ is a product of matrices, `x @ x.T`
no momentum | ahead = gradient.lerp(mean, 0.95) -> ahead = gradient
    the running mean is never used
no look ahead | gradient.lerp(mean, 0.95) -> mean
    the step takes the running mean itself; wanted is the mixture of 0.05 gradient and 0.95 mean
look ahead exchanged | gradient.lerp(mean, 0.95) -> gradient.lerp(mean, 0.05)
    0.05 and 0.95 have changed places where the step is made: most of it is the running mean
mean exchanged | mean.lerp(gradient, 0.05) -> mean.lerp(gradient, 0.95)
    0.05 and 0.95 have changed places in the running mean: it keeps most of itself
sum | mean.lerp(gradient, 0.05) -> 0.95 * mean + gradient
sum | mean.lerp(gradient, 0.05) -> 0.95 * mean + gradient ;; gradient.lerp(mean, 0.95) -> gradient + 0.95 * mean
    `mean` is a sum here, twenty times too large: 0.95 of itself and 0.05 of the gradient
mean too late | mean = mean.lerp(gradient, 0.05) -> old = mean; mean = mean.lerp(gradient, 0.05) ;; gradient.lerp(mean, 0.95) -> gradient.lerp(old, 0.95)
    the step is made with the running mean of the step before: renew it first
old mean returned | .reshape(weight.shape), mean -> .reshape(weight.shape), (mean - 0.05 * gradient) / 0.95
    the running mean that comes back is the old one: the next step knows nothing of this one
mixture returned | .reshape(weight.shape), mean -> .reshape(weight.shape), ahead
    the running mean that comes back already has the look ahead in it: return `mean` itself
no size | max(1, rows / columns) ** 0.5 -> 1
    the factor √max(1, rows / columns) is missing
no root | max(1, rows / columns) ** 0.5 -> max(1, rows / columns)
    the root is missing: √max(1, rows / columns)
upside down | rows / columns -> columns / rows
    rows and columns have changed places in √max(1, rows / columns)
no maximum | max(1, rows / columns) -> (rows / columns)
    √max(1, rows / columns) is never below 1
all numbers | max(1, rows / columns) ** 0.5 -> 0.2 * max(rows, columns) ** 0.5
    this is another convention for the length of a step; wanted is √max(1, rows / columns)
no rate | lr * max -> max
    `lr` is not used
kernels | x = ahead.flatten(1) -> x = ahead.flatten(0, -2)
by filter | x = ahead.flatten(1) -> x = ahead.flatten(0, 1)
    a convolution's weight (out, in, k, k) is the matrix (out, in · k · k): `flatten(1)`
exchanged
    the two results have changed places: the new weight first, then the running mean
not two
    wanted are two tensors, each of the weight's shape: the new weight and the new running mean
""",
)


def observed(step: Callable) -> Callable[..., Tensor]:
    def after(weight: Tensor, gradients: Tensor, lr: float) -> Tensor:
        """The weight, then the running mean, after a step for each of the gradients: (2, …)"""
        mean = torch.zeros_like(weight)
        for i, gradient in enumerate(gradients):
            pair = step(weight, gradient, mean, lr)
            good = isinstance(pair, tuple | list) and len(pair) == 2
            reason = f"`muon_step` returns one {type(pair).__name__}."
            TABLE.demand(good and all(map(is_float, pair)), "not two", reason)
            shapes = [tuple(v.shape) for v in pair]
            reason = (
                f"`muon_step` returns tensors of {shapes}; the weight is {tuple(weight.shape)}."
            )
            TABLE.demand(shapes == 2 * [tuple(weight.shape)], "not two", reason)
            if i == 0:  # the mean after one step is known
                reason = "The first result is the running mean."
                same = close(pair[0], 0.05 * gradient, 1e-5)
                TABLE.demand(not same, "exchanged", reason)
            weight, mean = pair
        return torch.stack([weight, mean])

    return after


@exercise(
    27,
    "Beat the record",
    'notebook 04, "A step in every direction"',
    "x ← 3.4445 x - 4.7750 (x xᵀ) x + 2.0315 (x xᵀ)² x, five times, from x / ‖x‖",
    "Every direction moves alike.",
)
def beat_the_record(answer) -> None:
    """answer(weight, gradient, mean, lr) -> weight and running mean after one step of Muon."""
    draws = torch.Generator().manual_seed(27)

    def case(*shape: int) -> tuple:
        scale = torch.logspace(0, -1, shape[0]).view(-1, *[1] * (len(shape) - 1))
        gradients = 3 * scale * torch.randn(3, *shape, generator=draws)
        return torch.randn(shape, generator=draws), gradients, 0.1

    cases = [case(6, 9), case(9, 4), case(4, 3, 3, 3)]
    judge(answer, cases, TABLE, "muon_step", 1e-4, ("weight", "mean"), observed)
