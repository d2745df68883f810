"""Exercise 01: the noise schedule."""

import torch

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._schedule import ROOTS, ROWS, alpha_and_sigma
from diffusion_lib.schedules import from_betas, linear_schedule


def right(T, first, last):
    beta = torch.linspace(first, last, T, dtype=torch.float64)
    share = torch.cat([torch.ones(1), (1 - beta).cumprod(0)])
    alpha, sigma = share.sqrt(), (1 - share).sqrt()
    return alpha, sigma


TABLE = Table(
    right,
    """
smallest beta | linspace(first, last, -> linspace(0, last - first,
    the betas begin at 0 and end at last - first: the smallest beta is never added
spread over T + 1 | , T, -> , T + 1, ;; .cumprod(0)] -> .cumprod(0)[1:]]
    you spread T + 1 betas from first to last and lose the first of them to the clean index; spread T
index 0 is noisy | , T, -> , T + 1, ;; torch.ones(1), ->
    you spread T + 1 betas, so that index 0 is noisy: it must be clean, and beta_1 be `first`
exponential missing | (1 - beta).cumprod(0) -> (1 - beta).log().cumsum(0)
    a running sum of logarithms is the logarithm of the product: take its exponential
"""
    + ROOTS,
)


@exercise(
    1,
    "The schedule is a single number",
    'notebook 01, "All steps at once"',
    "alpha_t² = (1 - beta_1)(1 - beta_2) … (1 - beta_t),   sigma_t² = 1 - alpha_t²",
    "Every step has its own share of picture and noise.",
)
def noise_schedule(answer) -> None:
    """answer(T, first, last) -> (alpha, sigma), each (T+1,), of betas 1…T from first to last."""
    cases = [(1000, 1e-4, 0.02), (10, 0.01, 0.3), (37, 0.005, 0.1)]
    observe = alpha_and_sigma("noise_schedule", linear_schedule, from_betas)
    judge(answer, cases, TABLE, "noise_schedule", rows=ROWS, observe=observe)
