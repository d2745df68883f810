"""Muon: an optimiser whose steps turn every direction of a matrix by the same amount."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor


def orthogonalised(matrices: Tensor, rounds: int = 5) -> Tensor:
    """(N, r, c) -> the same singular vectors, all singular values near 1 (between 0.7 and 1.2).

    Newton-Schulz: x <- a x + b (x x') x + c (x x')^2 x is an odd polynomial of each singular value,
    and leaves the vectors alone. These a, b, c pull values from 0.01 up in five rounds, for the
    price of fifteen matrix products. (Jordan et al. 2024)
    """
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)  # none above 1 now
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x  # the smaller product
    for _ in range(rounds):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x.mT if tall else x


class Muon(torch.optim.AdamW):
    """AdamW for vectors and scales; for weights of two or more axes, orthogonalised momentum.

    The gradient of a matrix is large along few directions; here all move alike, by `gain` times the
    learning rate. A convolution (out, in, k, k) is the matrix (out, in k k). (Jordan et al. 2024)
    """

    def __init__(
        self,
        params,
        lr: float = 4e-3,
        gain: float = 5.0,
        momentum: float = 0.95,
        rounds: int = 5,
        map: Callable[..., Iterable] = map,
        precision: torch.dtype = torch.float32,
        **adamw,
    ) -> None:
        """rounds: of Newton-Schulz, whose products are of that precision (bfloat16 is enough);
        map: Python's, or that of a pool of threads, to share the work."""
        super().__init__(params, lr=lr, **adamw)
        self.gain, self.momentum, self.rounds, self.map = gain, momentum, rounds, map
        self.precision = precision

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure() if closure else None
        overflow = getattr(self, "found_inf", None)  # told by a GradScaler (float16)
        for group in self.param_groups if overflow is None or not overflow.any() else ():
            alike = defaultdict(list)  # (r, c) -> matrices of that size, to be multiplied at once
            for weight in group["params"]:
                if weight.grad is not None and weight.ndim >= 2:
                    alike[len(weight), weight[0].numel()].append(weight)
            for _ in self.map(partial(self.turn, group), alike.values()):
                pass
        super().step()  # passes over weights whose gradient is gone
        return loss

    @torch.no_grad()
    def turn(self, group: dict, weights: list[Tensor]) -> None:
        """One step of matrices of one size."""
        ahead = torch.stack([self.ahead(w).flatten(1) for w in weights])
        rows, columns = ahead.shape[1:]
        length = self.gain * group["lr"] * max(1, rows / columns) ** 0.5
        moves = orthogonalised(ahead.to(self.precision), self.rounds).to(ahead.dtype)
        for weight, move in zip(weights, moves):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(move.view(weight.shape), alpha=length)
            weight.grad = None

    def ahead(self, weight: Tensor) -> Tensor:
        """The running mean of the gradient, with a look ahead (Nesterov)."""
        kept = self.state[weight]  # named as AdamW's, so that it is saved and loaded as they are
        if not kept:
            kept |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight)}
        kept["step"] += 1
        mean = kept["exp_avg"].lerp_(weight.grad, 1 - self.momentum)
        return weight.grad.lerp(mean, self.momentum)
