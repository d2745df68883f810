"""What the answers that return alpha and sigma have in common."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks._compare import as_tensor
from diffusion_lib.checks._own import own
from diffusion_lib.checks._wrong import Wrong

ROWS = "sigma", "alpha"  # in this order: while alpha is still nearly 1, sigma shows a fault
ROOTS = """
no roots | share.sqrt(), (1 - share).sqrt() -> share, 1 - share
    these are alpha² and sigma², the shares of the *variance*; alpha and sigma are their roots
alpha squared | = share.sqrt(), -> = share,
alpha squared | = share.sqrt(), (1 - share).sqrt() -> = share, (1 - share**2).sqrt()
    the product is alpha²; alpha is its root
root too many | share.sqrt(), (1 - share).sqrt() -> share**0.25, (1 - share) ** 0.25
root too many | = share.sqrt(), (1 - share).sqrt() -> = share**0.25, (1 - share.sqrt()).sqrt()
root too many | = share.sqrt(), -> = share**0.25,
root too many | (1 - share).sqrt() -> (1 - share) ** 0.25
    a root is taken once too often: the product is alpha², and one root of it is alpha
sigma squared | (1 - share).sqrt() -> 1 - share
one minus alpha | (1 - share).sqrt() -> 1 - share.sqrt()
alpha not squared | (1 - share).sqrt() -> (1 - share.sqrt()).sqrt()
    sigma is the root of 1 - alpha²: it is the *squares* that add up to 1
sigma of beta | (1 - share).sqrt() -> torch.cat([torch.zeros(1), beta.sqrt()])
    sigma is the root of 1 - alpha², the noise of all steps so far, not the root of beta
exchanged | alpha, sigma = -> sigma, alpha =
    alpha and sigma have changed places
no clean index | return alpha, sigma -> return alpha[1:], sigma[1:]
    your first entry is already noisy: put alpha = 1, sigma = 0 in front, for t = 0
not cumulated | (1 - beta).cumprod(0) -> 1 - beta
    alpha_t² is the *product* of all (1 - beta) up to t, not the last of them
"""


def alpha_and_sigma(name: str, *library: Callable) -> Callable:
    """An `observe` of judge: (2, T+1), by ROWS, of an answer that may not call the library's."""

    def observe(answer: Callable) -> Callable[..., Tensor | None]:
        def stacked(*case: Any) -> Tensor | None:
            pair = own(answer, *library)(*case)
            if pair is None:
                return None
            if not isinstance(pair, tuple | list | Tensor) or len(pair) != 2:
                raise Wrong(f"`{name}` should return two tensors: return alpha, sigma", "type")
            alpha, sigma = (as_tensor(one, name, "two tensors, alpha and sigma") for one in pair)
            if alpha.shape != sigma.shape:
                raise Wrong(
                    f"`{name}` returned alpha of shape {tuple(alpha.shape)} and sigma of shape "
                    f"{tuple(sigma.shape)}: both have one number for each time, 0 included."
                )
            if alpha.ndim == 0:
                raise Wrong(
                    f"`{name}` returned a single alpha and a single sigma, not one for each time.",
                    "one number",
                    "a sum or a product over *all* steps leaves one number; each step needs its own, "
                    "of those up to it",
                )
            return torch.stack([sigma, alpha])

        return stacked

    return observe
