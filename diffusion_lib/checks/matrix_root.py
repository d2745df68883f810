"""Exercise 32: the Fréchet distance, with the root of a matrix in it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffusion_lib import crowds
from diffusion_lib.checks._call import call, describe, inputs_of
from diffusion_lib.checks._compare import as_tensor, close, copy_of, difference
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._own import own
from diffusion_lib.checks._wrong import unknown

root, chol = crowds.root, torch.linalg.cholesky  # for the mistakes


def right(real, fake):
    real, fake = real.double(), fake.double()
    c, d = real.T.cov(), fake.T.cov()  # (D, D)
    half = crowds.root(c)
    cross = torch.linalg.eigvalsh(half @ d @ half).clamp(min=0).sqrt().sum()
    apart = (real.mean(0) - fake.mean(0)).square().sum()
    return apart + c.trace() + d.trace() - 2 * cross


CROSS = "torch.linalg.eigvalsh(half @ d @ half).clamp(min=0).sqrt().sum()"
TABLE = Table(
    right,
    f"""
entry by entry | {CROSS} -> (c @ d).sqrt().trace()
entry by entry | {CROSS} -> (c @ d).clamp(min=0).sqrt().trace()
entry by entry | {CROSS} -> (c @ d).abs().sqrt().trace()
entry by entry | {CROSS} -> (c.sqrt() @ d.sqrt()).trace()
entry by entry | {CROSS} -> (c.abs().sqrt() @ d.abs().sqrt()).trace()
entry by entry | crowds.root(c) -> c.abs().sqrt()
    the root is taken of each entry by itself. The root of a matrix M is a matrix R whose product
    with itself is M: R @ R = M
correlations left out | {CROSS} -> (c.diagonal() * d.diagonal()).sqrt().sum()
    only the variances are compared, feature by feature, and what the features have to do with each
    other is left out
root of the sum | {CROSS} -> torch.linalg.eigvalsh(c + d).clamp(min=0).sqrt().sum()
    this is the root of C + C'; that of the product C C' is wanted
no root | {CROSS} -> (c @ d).trace()
    no root is taken of C C'
root of the trace | {CROSS} -> (c @ d).trace().sqrt()
    this is the root of the trace; the trace of the root is wanted
product of the roots | {CROSS} -> (half @ root(d)).trace()
    each covariance has its root taken, and then they are multiplied. That is the root of the product
    only if it does not matter which of the two comes first
not symmetric | {CROSS} -> torch.linalg.eigvalsh(c @ d).sqrt().sum()
not symmetric | {CROSS} -> torch.linalg.eigvalsh(c @ d).clamp(min=0).sqrt().sum()
not symmetric | {CROSS} -> torch.linalg.eigvalsh(c @ d).abs().sqrt().sum()
not symmetric | {CROSS} -> torch.linalg.eigvalsh(d @ c).sqrt().sum()
not symmetric | {CROSS} -> torch.linalg.eigvalsh(d @ c).clamp(min=0).sqrt().sum()
not symmetric | {CROSS} -> torch.linalg.eigvalsh(d @ c).abs().sqrt().sum()
    `eigh` and `eigvalsh` read only half of the matrix, and take the other half for its mirror image.
    C C' is not symmetric, though C and C' are
made symmetric | {CROSS} -> torch.linalg.eigvalsh(c @ d + d @ c).clamp(min=0).div(2).sqrt().sum()
made symmetric | {CROSS} -> torch.linalg.eigvalsh(c @ d + d @ c).abs().div(2).sqrt().sum()
    C C' is replaced by the mean of itself and its mirror image, which has other eigenvalues
singular values | {CROSS} -> torch.linalg.svdvals(c @ d).sqrt().sum()
    these are the roots of the singular values; of C C', which is not symmetric, they are not the
    eigenvalues
Cholesky factor | {CROSS} -> (chol(c) @ chol(d)).trace()
Cholesky factor | {CROSS} -> (chol(c) @ chol(d).T).trace()
Cholesky factor | {CROSS} -> chol(half @ d @ half).trace()
Cholesky factor | crowds.root(c) -> chol(c)
    a Cholesky factor L is no root: L @ L.T is the matrix, L @ L is not
factor 2 forgotten | - 2 * cross -> - cross
    the root counts twice: -2 tr (C C')^½
added | - 2 * cross -> + 2 * cross
    the root is to be subtracted
means left out | apart + ->
    the means are not compared
means not squared | .square().sum() -> .norm()
    the distance of the means is to be squared
means averaged | .square().sum() -> .square().mean()
    of the squared differences of the means the sum is wanted, and this is their mean
summed before squared | .square().sum() -> .sum().square()
    the differences of the means are summed first, so that they cancel, and squared then
wrong axis | real.T.cov(), fake.T.cov() -> real.cov(), fake.cov()
    `cov` takes a feature in each row, and these crowds have a picture in each row: this is a
    covariance (N, N) of pictures; that of features is (D, D)
second moment | real.T.cov(), fake.T.cov() -> real.T @ real / len(real), fake.T @ fake / len(fake)
second moment | real.T.cov(), fake.T.cov() -> real.T @ real / (len(real) - 1), fake.T @ fake / (len(fake) - 1)
    the mean is not taken off before squaring: this is the second moment, not the covariance
correlation | real.T.cov(), fake.T.cov() -> real.T.corrcoef(), fake.T.corrcoef()
    these are correlations, in which each feature has variance 1; covariances are wanted
divided by N | .T.cov() -> .T.cov(correction=0)
    the covariance is divided by N; divide by N - 1, as `torch.cov` does
squares not divided | .T.cov(), -> .T.cov() * (len(real) - 1), ;; fake.T.cov() -> fake.T.cov() * (len(fake) - 1)
    the covariances are sums; divide them by N - 1
all entries | c.trace() + d.trace() - 2 * cross -> (c + d - 2 * half @ root(half @ d @ half) @ torch.linalg.inv(half)).sum()
    all entries of the matrix are summed; the trace is the sum of its diagonal
root of all | apart + c.trace() + d.trace() - 2 * cross -> (apart + c.trace() + d.trace() - 2 * cross).clamp(min=0).sqrt()
    the formula gives the squared distance: take no root of it
imaginary part
    the eigenvalues of C C' are real and not below 0. What is imaginary comes of rounding: drop it
    (`.real`)
rounding below zero
    an eigenvalue that should be 0 may come out as -0.0000001, and has no root: cut it off at 0
    (`clamp(min=0)`)
""",
)


def number(answer: Callable) -> Callable[..., Tensor]:
    """The answer, with numpy's numbers taken as well, and no complex ones."""

    def observed(real: Tensor, fake: Tensor) -> Tensor:
        out = answer(real, fake)
        if isinstance(out, np.generic | np.ndarray):
            out = torch.as_tensor(out)
        if isinstance(out, complex) or isinstance(out, Tensor) and out.is_complex():
            raise TABLE.wrong("imaginary part", "`frechet_distance` returned a complex number.")
        return as_tensor(out, "frechet_distance")

    return observed


@exercise(
    32,
    "A distance below zero",
    'notebook 12, "Is it any good?"',
    "|m - m'|² + tr(C + C' - 2 (C C')^½),   (C C')^½ (C C')^½ = C C'",
    "A root of the matrix, not of its numbers.",
)
def matrix_root(answer) -> None:
    """answer(real, fake) -> number. real: (N, D), fake: (M, D)."""
    generator = torch.Generator().manual_seed(32)

    def crowd(n: int, mix: list[list[float]], mean: float = 0.0) -> Tensor:
        mix = torch.tensor(mix)
        shift = mean * torch.arange(1.0, len(mix) + 1) * (-1) ** torch.arange(len(mix))
        return torch.randn(n, len(mix), generator=generator) @ mix + shift

    def pair(n: int, m: int, d: int) -> tuple[Tensor, Tensor]:
        mixes = torch.randn(2, d, d, generator=generator) + torch.eye(d)
        return crowd(n, mixes[0].tolist(), 0.3), crowd(m, (1.5 * mixes[1]).tolist(), -0.4)

    positive, tilted = [[1.0, 0.8], [0.0, 0.7]], [[1.0, 3.0], [0.0, 1.0]]
    mirrored = [[1.0, -3.0], [0.0, 1.0]]
    as_many = [
        (crowd(40, positive, 0.5), crowd(40, [[0.8, 0.2], [0.1, 1.2]])),
        pair(30, 30, 4),
        (crowd(50, tilted), crowd(50, mirrored, 1.0)),
    ]
    inputs_of(answer, as_many[0])
    watched = own(answer, crowds.frechet_distance)
    judge(watched, as_many, TABLE, "frechet_distance", 2e-3, observe=number)
    cases = [pair(30, 50, 4), (crowd(25, tilted, 0.5), crowd(12, positive))]
    judge(watched, cases, TABLE, "frechet_distance", 2e-3, observe=number, guards="double view")

    # of five features one is the same in all pictures, and one the sum of two others
    real, fake = pair(40, 50, 5)
    real[:, 3], fake[:, 3] = 0.5, 0.5
    real[:, 4], fake[:, 4] = real[:, 0] + real[:, 1], fake[:, 0] + fake[:, 1]
    case = (real, fake)
    got = number(lambda *given: call(watched, *given, name="frechet_distance"))(*copy_of(case))
    said = f"\n    It was called with {describe(inputs_of(answer, case))}."
    reason = "One feature is the same in all pictures, and one the sum of two others: "
    if got.isnan().any():
        raise TABLE.wrong("rounding below zero", f"{reason}the result is not a number (NaN).{said}")
    want = right(*case)
    if not close(got, want, 1e-2):
        raise unknown(f"{reason}{difference(got, want, 1e-2, 'frechet_distance')}{said}")
