"""Crowds of pictures compared: is one drawn as the other is? Over features that the caller supplies.

A feature vector a picture, (N, D): pixels, latents, what a judge sees, a sentence encoder's vectors.
With Inception's features `frechet_distance` would be FID and `kernel_distance` KID; with others the
numbers are others, and comparable only among themselves.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.guards import whole


def features(name: str, x: Tensor, few: int = 2) -> Tensor:
    """`x` in float64, if it is (N, D), finite and N at least `few`; else ValueError."""
    if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] == 0:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be features (N, D), a vector a picture, not {got}")
    if len(x) < few:
        raise ValueError(f"{name}: {len(x)} pictures are too few, at least {few} are needed")
    if not x.isfinite().all():
        bad = int((~x.isfinite()).any(dim=1).sum())
        raise ValueError(f"{name}: the features of {bad} pictures are NaN or infinite")
    return x.detach().double()


def both(real: Tensor, fake: Tensor, few: int = 2) -> tuple[Tensor, Tensor]:
    real, fake = features("real", real, few), features("fake", fake, few)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"real has {real.shape[1]} features a picture, fake {fake.shape[1]}")
    return real, fake


def root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a covariance: its eigenvalues' roots, its own eigenvectors."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """|m - m'|² + tr(C + C' - 2 (C C')^½) of normal distributions with the crowds' moments.

    real: (N, D), fake: (M, D). Squared Wasserstein distance of those two; estimated from few
    pictures it comes out too large. Raises ValueError for fewer pictures than features, whose
    covariance has directions that nobody has measured. (Dowson & Landau 1982; Heusel et al. 2017)
    """
    real, fake = both(real, fake)
    few = min(len(real), len(fake))
    if few <= real.shape[1]:
        raise ValueError(
            f"{few} pictures have no full covariance of {real.shape[1]} features: take more "
            "pictures, or fewer features (their first principal components, say)"
        )
    c, d = (torch.atleast_2d(x.T.cov()) for x in (real, fake))  # of one feature it is a number
    half = root(c)
    cross = torch.linalg.eigvalsh(half @ d @ half).clamp(min=0).sqrt().sum()  # tr (C C')^½
    apart = (real.mean(0) - fake.mean(0)).square().sum()
    return float(apart + c.trace() + d.trace() - 2 * cross)


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """The squared distance of the crowds' means, seen by the kernel k = (x·y / D + 1)³.

    real: (N, D), fake: (M, D). No picture is compared with itself, so that the estimate is right on
    average however few there are, and may be below 0. (Gretton et al. 2012, eq. 3; with this kernel
    Binkowski et al. 2018)
    """
    real, fake = both(real, fake)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.trace()) / (len(a) * (len(a) - 1))

    return float(within(real) + within(fake) - 2 * kernel(real, fake).mean())


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean, (N, D) and (M, D) to (N, M), exact also where they are small."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


class Overlap(NamedTuple):
    """How far the fake crowd lies within the real one, and the real one within the fake."""

    precision: float  # of the fakes, the share near a real picture: fidelity
    recall: float  # of the real ones, the share near a fake: variety
    density: float  # how many real neighbourhoods a fake lies in, over k: unshaken by one outlier
    coverage: float  # of the real ones, the share with a fake in their neighbourhood


def overlap(real: Tensor, fake: Tensor, k: int = 5) -> Overlap:
    """Four shares that a single distance mixes up. real: (N, D), fake: (M, D).

    A picture's neighbourhood reaches to the k-th nearest of its own crowd. (Precision and recall:
    Kynkäänniemi et al. 2019, eq. 1; density and coverage: Naeem et al. 2020, eq. 3 and 4)
    """
    k = whole("k", k, 1)
    real, fake = both(real, fake, few=k + 1)
    reach, fake_reach = (distances(x, x).kthvalue(k + 1).values for x in (real, fake))  # 1: itself
    apart = distances(real, fake)  # (N, M)
    near = apart <= reach[:, None]  # is fake j in the neighbourhood of real i?
    return Overlap(
        precision=near.any(dim=0).double().mean().item(),
        recall=(apart <= fake_reach).any(dim=1).double().mean().item(),
        density=near.double().sum(dim=0).mean().item() / k,
        coverage=near.any(dim=1).double().mean().item(),
    )
