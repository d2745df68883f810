import numpy as np
import torch

from diffusion_lib import crowds


def plain(real, fake):
    c, d = real.T.cov(), fake.T.cov()
    values, vectors = torch.linalg.eigh(c)
    half = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(half @ d @ half).clamp(min=0).sqrt().sum()
    return (real.mean(0) - fake.mean(0)).square().sum() + c.trace() + d.trace() - 2 * cross


def by_eigenvalues(real, fake):
    """Of the product itself, though it is not symmetric: its eigenvalues are real all the same."""
    product = real.double().T.cov() @ fake.double().T.cov()
    cross = torch.linalg.eigvals(product).sqrt().real.sum()
    return mean_part(real, fake) + real.var(0).sum() + fake.var(0).sum() - 2 * cross


def by_singular_values(real, fake):
    """Of the centred crowds, without a covariance: tr (C C')^½ is a sum of singular values."""
    a, b = (x.double() - x.double().mean(0) for x in (real, fake))
    a, b = a / (len(a) - 1) ** 0.5, b / (len(b) - 1) ** 0.5
    cross = torch.linalg.svdvals(a @ b.T).sum()
    return (mean_part(real, fake) + (a * a).sum() + (b * b).sum() - 2 * cross).item()


def by_numpy(real, fake):
    real, fake = real.double().numpy(), fake.double().numpy()
    c, d = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(c @ d).real, 0))
    means = np.linalg.norm(real.mean(axis=0) - fake.mean(axis=0)) ** 2
    return means + np.trace(c + d) - 2 * roots.sum()


def by_complex_roots(real, fake):
    """The whole root, from the eigenvectors of the product."""
    c, d = (x.double().T.cov() for x in (real, fake))
    values, vectors = torch.linalg.eig(c @ d)
    product_root = vectors @ values.sqrt().diag() @ torch.linalg.pinv(vectors)
    return mean_part(real, fake) + (c + d - 2 * product_root.real).trace()


RIGHT = [by_numpy, plain, by_eigenvalues, by_singular_values, by_complex_roots]


def mean_part(real, fake):
    return (real.mean(0) - fake.mean(0)).square().sum()


def cross_of(measure):
    def answer(real, fake):
        c, d = real.T.cov(), fake.T.cov()
        return mean_part(real, fake) + c.trace() + d.trace() - 2 * measure(c, d)

    return answer


def eigen_root(m):
    values, vectors = torch.linalg.eigh(m)
    return vectors @ values.clamp(min=0).sqrt().diag() @ vectors.mT


def cross(c, d):
    half = eigen_root(c)
    return eigen_root(half @ d @ half).trace()


def mixed(f):
    """f(means, c, d, cross)"""

    def answer(real, fake):
        c, d = real.T.cov(), fake.T.cov()
        return f(mean_part(real, fake), c, d, cross(c, d))

    return answer


def with_covariance(cov, middle=lambda x: x.mean(0)):
    def answer(real, fake):
        c, d = cov(real), cov(fake)
        apart = (middle(real) - middle(fake)).square().sum()
        return apart + c.trace() + d.trace() - 2 * cross(c, d)

    return answer


def with_means(f):
    def answer(real, fake):
        c, d = real.T.cov(), fake.T.cov()
        return f(real.mean(0) - fake.mean(0)) + c.trace() + d.trace() - 2 * cross(c, d)

    return answer


def as_reported(real, fake):
    c, d = real.T.cov(), fake.T.cov()
    root = torch.sqrt(c @ d)
    return (real.mean(0) - fake.mean(0)).square().sum() + c.trace() + d.trace() - 2 * root.trace()


def half_by_entries(c, d):
    half = c.abs() ** 0.5
    return torch.linalg.eigvalsh(half @ d @ half).clamp(min=0).sqrt().sum()


def deviations(real, fake):
    return mean_part(real, fake) + (real.std(0) - fake.std(0)).square().sum()


def complex_result(real, fake):
    return cross_of(lambda c, d: torch.linalg.eigvals(c @ d).sqrt().sum())(real, fake)


def not_cut_off(real, fake):
    c, d = real.double().T.cov(), fake.double().T.cov()
    values = torch.linalg.eigvalsh(eigen_root(c) @ d @ eigen_root(c))
    noisy = torch.where(values < 1e-8, -1e-9, values)  # what rounding may do, whatever the machine
    return mean_part(real, fake) + c.trace() + d.trace() - 2 * noisy.sqrt().sum()


def of_the_library(real, fake):
    return crowds.frechet_distance(real, fake)


def in_place(real, fake):
    real -= real.mean(0)
    return plain(real, fake)


def all_entries(means, c, d, cross):
    values, vectors = torch.linalg.eig(c @ d)
    product_root = (vectors @ values.sqrt().diag() @ torch.linalg.inv(vectors)).real
    return means + (c + d - 2 * product_root).sum()


def entrywise_and_means_left_out(real, fake):
    return as_reported(real, fake) - mean_part(real, fake)


WRONG = {
    "entry by entry": [
        as_reported,
        cross_of(lambda c, d: (c @ d).clamp(min=0).sqrt().trace()),
        cross_of(lambda c, d: (c.sqrt() @ d.sqrt()).trace()),
        cross_of(half_by_entries),
    ],
    "correlations left out": [deviations],
    "root of the sum": [cross_of(lambda c, d: eigen_root(c + d).trace())],
    "no root": [cross_of(lambda c, d: (c @ d).trace()), cross_of(lambda c, d: (c * d).sum())],
    "root of the trace": [cross_of(lambda c, d: (c @ d).trace() ** 0.5)],
    "product of the roots": [cross_of(lambda c, d: (eigen_root(c) @ eigen_root(d)).trace())],
    "not symmetric": [
        cross_of(lambda c, d: torch.linalg.eigh(c @ d).eigenvalues.sqrt().sum()),
        cross_of(lambda c, d: eigen_root(c @ d).trace()),
    ],
    "made symmetric": [cross_of(lambda c, d: eigen_root((c @ d + (c @ d).T) / 2).trace())],
    "singular values": [cross_of(lambda c, d: torch.linalg.svd(c @ d).S.sqrt().sum())],
    "Cholesky factor": [
        cross_of(lambda c, d: (torch.linalg.cholesky(c) @ torch.linalg.cholesky(d)).trace()),
        cross_of(lambda c, d: (torch.linalg.cholesky(c) * torch.linalg.cholesky(d)).sum()),
    ],
    "factor 2 forgotten": [mixed(lambda means, c, d, cross: means + (c + d).trace() - cross)],
    "added": [mixed(lambda means, c, d, cross: means + (c + d).trace() + 2 * cross)],
    "means left out": [mixed(lambda means, c, d, cross: (c + d).trace() - 2 * cross)],
    "means not squared": [with_means(torch.linalg.vector_norm)],
    "means averaged": [with_means(lambda x: (x * x).mean())],
    "summed before squared": [with_means(lambda x: x.sum() ** 2)],
    "wrong axis": [with_covariance(torch.cov)],
    "second moment": [
        with_covariance(lambda x: x.T @ x / len(x)),
        with_covariance(lambda x: torch.einsum("ni,nj->ij", x, x) / (len(x) - 1)),
    ],
    "correlation": [with_covariance(lambda x: torch.corrcoef(x.T))],
    "divided by N": [
        with_covariance(lambda x: (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)),
        with_covariance(lambda x: x.T @ x / len(x) - x.mean(0).outer(x.mean(0))),
    ],
    "squares not divided": [with_covariance(lambda x: (x - x.mean(0)).T @ (x - x.mean(0)))],
    "all entries": [mixed(all_entries)],
    "root of all": [lambda real, fake: plain(real, fake).sqrt()],
    "imaginary part": [complex_result],
    "rounding below zero": [not_cut_off],
    "library": [of_the_library],
    "in place": [in_place],
    "none": [lambda real, fake: None],
    "type": [lambda real, fake: (plain(real, fake), real.mean(0))],
    "signature": [lambda real: plain(real, real)],
    "entry by entry + means left out": [entrywise_and_means_left_out],
}

UNKNOWN = [
    lambda real, fake: plain(real, fake) / real.shape[1],
    lambda real, fake: plain(fake, real) * 2,
    lambda real, fake: plain(real, fake).abs().half(),
    lambda real, fake: plain(real[:-1], fake),
    lambda real, fake: plain(real, fake)[None],
    with_covariance(lambda x: torch.cov(x.T), middle=lambda x: x.median(0).values),
    cross_of(lambda c, d: torch.linalg.matrix_norm(c @ d) ** 0.5),
    cross_of(lambda c, d: (c @ d).det().abs().sqrt()),
]
