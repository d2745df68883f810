import math

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.linalg import sqrtm
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import maximum_mean_discrepancy

from diffusion_lib.crowds import distances, frechet_distance, kernel_distance, overlap, root


def crowds(n=500, m=400, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    real = torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix
    return real, 0.8 * torch.randn(m, d, generator=generator, dtype=torch.float64) @ mix + 0.3


def test_frechet_distance_equals_scipys_and_torchmetrics():
    real, fake = crowds()
    c, d = (np.cov(x.numpy(), rowvar=False) for x in (real, fake))
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(c + d - 2 * sqrtm(c @ d).real)
    found = frechet_distance(real, fake)
    assert abs(found / float(expected) - 1) < 1e-6
    moments = [f(x) for x in (real, fake) for f in (lambda x: x.mean(0), lambda x: x.T.cov())]
    assert abs(found / float(_compute_fid(*moments)) - 1) < 1e-6


def test_frechet_distance_of_normal_distributions_in_closed_form():
    """Independent axes: the sum of (m - m')² + (s - s')²."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 200_000, 3, generator=generator, dtype=torch.float64)
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    a, b = z[0] * torch.tensor([1.0, 2.0, 0.5]), z[1] * torch.tensor([2.0, 2.0, 1.5]) + 1
    assert abs(frechet_distance(a, b) - (3 + 1 + 0 + 1)) < 1e-2
    assert abs(frechet_distance(a, a)) < 1e-9
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert abs(frechet_distance(a[:, :1], b[:, :1]) - 2) < 1e-2  # of one feature, too


def test_the_root_is_a_matrix_root():
    c = crowds()[0].T.cov()
    assert (root(c) @ root(c) - c).abs().max() < 1e-9 and (root(c) - root(c).T).abs().max() < 1e-9


def test_few_pictures_make_frechet_large_and_leave_kernel_alone():
    generator = torch.Generator().manual_seed(0)
    sets = [torch.randn(2, 40, 8, generator=generator) for _ in range(200)]
    frechet = [frechet_distance(a, b) for a, b in sets]
    kernel = torch.tensor([kernel_distance(a, b) for a, b in sets])
    assert min(frechet) > 0.5  # of equal distributions
    assert kernel.mean().abs() < 3 * kernel.std() / math.sqrt(200)


def test_kernel_distance_equals_torchmetrics_and_the_double_loop():
    real, fake = crowds(40, 40)
    k = [[(a @ b / 6 + 1) ** 3 for b in (*real, *fake)] for a in (*real, *fake)]
    within = [sum(k[i][j] for i in s for j in s if i != j) for s in (range(40), range(40, 80))]
    across = sum(k[i][j] for i in range(40) for j in range(40, 80))
    expected = float(sum(within) / (40 * 39) - 2 * across / 1600)
    assert kernel_distance(real, fake) == pytest.approx(expected, rel=1e-9)
    gamma = [(a @ b.T / 6 + 1) ** 3 for a, b in ((real, real), (real, fake), (fake, fake))]
    assert kernel_distance(real, fake) == pytest.approx(
        float(maximum_mean_discrepancy(*gamma)), rel=1e-6
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_overlap_equals_prdc(k):
    real, fake = crowds(300, 250)
    expected = compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
    assert overlap(real, fake, k)._asdict() == pytest.approx(expected, abs=1e-9)


def test_what_overlap_tells_apart():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(500, 2, generator=generator)
    same = overlap(real, torch.randn(500, 2, generator=generator))
    assert min(same) > 0.85
    few_kinds = overlap(real, real[real[:, 0] > 1].repeat(8, 1)[:500])
    assert few_kinds.precision == 1 and few_kinds.coverage < 0.4
    blurred = overlap(real, 4 * torch.randn(500, 2, generator=generator))
    assert blurred.precision < 0.5 and blurred.recall > 0.9


def test_distances_are_exact_where_they_are_small():
    x = torch.rand(5, 100, dtype=torch.float32) + 100
    assert distances(x, x).diagonal().abs().max() == 0


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, overlap])
def test_what_is_no_crowd(measure):
    real, fake = crowds()
    for a, b, said in (
        (real[:, :, None], fake, "real must be features"),
        (real, "a picture", "fake must be features .* not str"),
        (real, fake[:, :5], "real has 6 features a picture, fake 5"),
        (real, fake[:1], "fake: 1 pictures are too few"),
        (real * math.nan, fake, "real: the features of 500 pictures are NaN"),
    ):
        with pytest.raises(ValueError, match=said):
            measure(a, b)


def test_fewer_pictures_than_features():
    real, fake = crowds()
    with pytest.raises(ValueError, match="6 pictures have no full covariance of 6 features"):
        frechet_distance(real, fake[:6])
    with pytest.raises(ValueError, match="at least 6"):
        overlap(real, fake[:5], k=5)
    with pytest.raises(ValueError, match="k must be at least 1"):
        overlap(real, fake, k=0)
