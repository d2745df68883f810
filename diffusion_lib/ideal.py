"""The perfect denoiser of a finite data set: known in closed form, no training, and only a copyist."""

import torch
from torch import Tensor

from diffusion_lib.guards import floats
from diffusion_lib.schedules import Schedule


def posterior_mean(
    x: Tensor,
    alpha: Tensor | float,
    sigma: Tensor | float,
    data: Tensor,
    spread: Tensor | float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """E[x_0 | alpha x_0 + sigma eps = x], where x_0 is row k of `data` with probability weights[k],
    plus normal noise of standard deviation spread[k]: a mixture of Gaussians.

    x: (B, d); alpha, sigma: numbers, or (B, 1); data: (K, d); spread: a number, or (K,); weights:
    (K,), equal by default. Returns (B, d). sigma must be above 0 where spread is 0.

    Row k has weight w_k ∝ weights_k N(x; alpha mu_k, v_k) with v_k = alpha² spread_k² + sigma², and
    says mu_k + alpha spread_k² / v_k (x - alpha mu_k). (Notebook 02; Karras et al. 2022, eq. 57)
    """
    dtype = torch.promote_types(x.dtype, torch.float32)  # cdist knows no half precision
    x, same = x.to(dtype), dict(dtype=dtype, device=x.device)
    alpha, sigma = torch.as_tensor(alpha, **same), torch.as_tensor(sigma, **same)
    data, spread = data.to(x), torch.as_tensor(spread, **same).expand(len(data))  # (K, d), (K,)
    variance = alpha**2 * spread**2 + sigma**2  # (B or 1, K)
    scale = torch.where(alpha == 0, 1, alpha)
    exact = "donot_use_mm_for_euclid_dist"  # a matrix product would lose the small differences
    square = (scale * torch.cdist(x / scale, data, compute_mode=exact)).square()  # |x - alpha mu|²
    square = torch.where(alpha == 0, 0, square)  # then x says nothing of k
    logits = -square / (2 * variance) - x.shape[1] / 2 * variance.log()  # (B, K)
    if weights is not None:
        logits = logits + weights.to(x).log()
    w = logits.softmax(dim=1)
    pull = w * (alpha * spread**2 / variance)  # (B, K)
    return (w - alpha * pull) @ data + pull.sum(dim=1, keepdim=True) * x  # in float32 at least


class Ideal:
    """D(x, t) of a data set whose pictures are all there is: `data` (K, …), each with a `spread`.

    Whatever network has the lowest loss on just these pictures answers like this. spread, weights:
    as in `posterior_mean`. x: (B, …); t: as in `Denoiser`; cond is not listened to.
    """

    def __init__(
        self,
        data: Tensor,
        schedule: Schedule,
        spread: Tensor | float = 0.0,
        weights: Tensor | None = None,
    ) -> None:
        if weights is not None and not (weights.sum() > 0 and (weights >= 0).all()):
            raise ValueError("weights must not be negative, and not all 0")
        self.data = floats("data", data).reshape(len(data), -1)  # (K, d)
        self.schedule = schedule
        self.spread = spread
        self.weights = weights

    def __call__(self, x: Tensor, t: int | Tensor, cond: object = None) -> Tensor:
        flat = floats("x", x).reshape(len(x), -1)  # (B, d)
        alpha, sigma = self.schedule.at(t, like=flat)  # (B or 1, 1)
        clean = sigma == 0
        sigma = sigma.masked_fill(clean, 1)
        x0 = posterior_mean(flat, alpha, sigma, self.data, self.spread, self.weights)
        return torch.where(clean, flat, x0.to(x.dtype)).view(x.shape)
