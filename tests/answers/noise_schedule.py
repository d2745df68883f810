import math

import numpy as np
import torch

from diffusion_lib import linear_schedule
from diffusion_lib.schedules import from_betas


def by_cumprod(T=1000, first=1e-4, last=0.02):
    beta = torch.linspace(first, last, T)
    alpha2 = torch.cat([torch.ones(1), (1 - beta).cumprod(0)])
    return alpha2.sqrt(), (1 - alpha2).sqrt()


def by_logarithms(T=1000, first=1e-4, last=0.02):
    beta = torch.cat([torch.zeros(1), torch.linspace(first, last, T)]).double()
    alpha2 = torch.log(1 - beta).cumsum(0).exp()
    return alpha2**0.5, (1 - alpha2) ** 0.5


def by_loop(T=1000, first=1e-4, last=0.02):
    alpha2 = [1.0]
    for i in range(T):
        alpha2.append(alpha2[-1] * (1 - first - (last - first) * i / (T - 1)))
    return torch.tensor([math.sqrt(a) for a in alpha2]), torch.tensor(
        [math.sqrt(1 - a) for a in alpha2]
    )


def by_numpy(T=1000, first=1e-4, last=0.02):
    alpha2 = np.append(1.0, np.cumprod(1 - np.linspace(first, last, T)))
    return [torch.from_numpy(np.sqrt(alpha2)), torch.from_numpy(np.sqrt(1 - alpha2))]


RIGHT = [by_cumprod, by_logarithms, by_loop, by_numpy]


def roots(alpha2):
    return alpha2.sqrt(), (1 - alpha2).sqrt()


def as_in_the_repository(T, first, last):
    beta = (last - first) * torch.linspace(0, 1, T + 1)
    return roots((1 - beta).log().sum().exp())


def summed(T, first, last):
    return roots(torch.linspace(first, last, T).mul(-1).log1p().sum().exp())


def from_zero(T, first, last):
    beta = (last - first) * torch.linspace(0, 1, T)
    return roots(torch.cat([torch.ones(1), (1 - beta).cumprod(0)]))


def variances(T, first, last):
    alpha, sigma = by_logarithms(T, first, last)
    return alpha**2, sigma**2


def sigma_variance(T, first, last):
    alpha, sigma = by_cumprod(T, first, last)
    return alpha, 1 - alpha**2


def no_clean(T, first, last):
    alpha, sigma = by_cumprod(T, first, last)
    return alpha[1:], sigma[1:]


def as_in_the_lab(T, first, last):
    beta = (last - first) * torch.linspace(0, 1, T + 1) + first
    alpha2 = torch.cumsum((1 - beta).log(), dim=0).exp()
    alpha2[0] = 1
    return roots(alpha2)


def noisy_start(T, first, last):
    return roots((1 - torch.linspace(first, last, T + 1)).cumprod(0))


def one_step(T, first, last):
    return roots(1 - torch.cat([torch.zeros(1), torch.linspace(first, last, T)]))


def alone(T, first, last):
    return by_cumprod(T, first, last)[0]


def nothing(T, first, last):
    by_cumprod(T, first, last)


def global_seed(T, first, last):
    torch.manual_seed(1)
    return by_cumprod(T, first, last)


def sigma_of_one_step(T, first, last):
    beta = torch.cat([torch.zeros(1), torch.linspace(first, last, T)])
    return (1 - beta).cumprod(0).sqrt(), beta.sqrt()


def exchanged(T, first, last):
    return by_cumprod(T, first, last)[::-1]


def by_the_library(T, first, last):
    schedule = linear_schedule(T, first, last)
    return schedule.alpha, schedule.sigma


def by_the_librarys_betas(T, first, last):
    schedule = from_betas(torch.linspace(first, last, T))
    return schedule.alpha, schedule.sigma


def one_minus_alpha(T, first, last):
    alpha, _ = by_cumprod(T, first, last)
    return alpha, 1 - alpha


def rooted_twice(T, first, last):
    alpha, sigma = by_cumprod(T, first, last)
    return alpha.sqrt(), sigma


def both_rooted_twice(T, first, last):
    alpha, sigma = by_cumprod(T, first, last)
    return alpha.sqrt(), sigma.sqrt()


def sigma_of_root(T, first, last):
    alpha, _ = by_cumprod(T, first, last)
    return alpha, (1 - alpha).sqrt()


WRONG = {
    "exchanged": [exchanged],
    "library": [by_the_library, by_the_librarys_betas],
    "one minus alpha": [one_minus_alpha],
    "root too many": [rooted_twice, both_rooted_twice],
    "alpha not squared": [sigma_of_root],
    "sigma of beta": [sigma_of_one_step],
    "type": [alone],
    "none": [nothing],
    "one number": [as_in_the_repository, summed],
    "smallest beta": [from_zero],
    "no roots": [variances],
    "sigma squared": [sigma_variance],
    "no clean index": [no_clean],
    "spread over T + 1": [as_in_the_lab],
    "index 0 is noisy": [noisy_start],
    "not cumulated": [one_step],
    "global seed": [global_seed],
}


def ignores_arguments(T, first, last):
    return by_cumprod()


def too_long(T, first, last):
    return by_cumprod(T + 1, first, last)


def halved(T, first, last):
    return tuple(part / 2 for part in by_cumprod(T, first, last))


UNKNOWN = [ignores_arguments, too_long, halved]
