import math

import numpy as np
import torch

from diffusion_lib import cosine_schedule


def roots(alpha2):
    return alpha2.sqrt(), (1 - alpha2).sqrt()


def by_betas(T=1000, s=0.008, cap=0.999):
    f = torch.cos((torch.arange(T + 1).double() / T + s) / (1 + s) * math.pi / 2) ** 2
    beta = torch.minimum(1 - f[1:] / f[:-1], torch.tensor(cap))
    return roots(torch.cat([torch.ones(1), (1 - beta).cumprod(0)]))


def by_loop(T=1000, s=0.008, cap=0.999):
    def f(t):
        return math.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2

    alpha2 = [1.0]
    for t in range(1, T + 1):
        alpha2.append(alpha2[-1] * (1 - min(1 - f(t) / f(t - 1), cap)))
    return torch.tensor(alpha2) ** 0.5, (1 - torch.tensor(alpha2, dtype=torch.float64)) ** 0.5


def by_numpy(T=1000, s=0.008, cap=0.999):
    f = np.cos((np.linspace(0, 1, T + 1) + s) / (1 + s) * np.pi / 2) ** 2
    alpha2 = np.concatenate([[1.0], np.cumprod(np.maximum(f[1:] / f[:-1], 1 - cap))])
    return torch.from_numpy(np.sqrt(alpha2)).float(), torch.from_numpy(np.sqrt(1 - alpha2)).float()


def by_library(T=1000, s=0.008, cap=0.999):
    schedule = cosine_schedule(T, s, cap)
    return [schedule.alpha, schedule.sigma]


RIGHT = [by_betas, by_loop, by_numpy]


def bar(T, s, quarter=math.pi / 2, power=2):
    return (
        torch.cos((torch.linspace(0, 1, T + 1, dtype=torch.float64) + s) / (1 + s) * quarter).abs()
        ** power
    )


def from_bar(f, cap):
    return roots(torch.cat([torch.ones(1), (1 - (1 - f[1:] / f[:-1]).clip(max=cap)).cumprod(0)]))


def uncapped(T, s, cap):
    return roots((bar(T, s) / bar(T, s)[0]).clamp(0, 1))


def raw(T, s, cap):
    return roots(bar(T, s).clamp(0, 1))


def no_offset(T, s, cap):
    return by_betas(T, 0, cap)


def not_divided(T, s, cap):
    t = torch.arange(T + 1, dtype=torch.float64) / T
    return from_bar(torch.cos((t + s) * math.pi / 2) ** 2, cap)


def plain_cosine(T, s, cap):
    return from_bar(bar(T, s, power=1), cap)


def fourth_power(T, s, cap):
    return from_bar(bar(T, s) ** 2, cap)


def variances(T, s, cap):
    alpha, sigma = by_betas(T, s, cap)
    return alpha**2, sigma**2


def floor_of_alpha(T, s, cap):
    return roots((bar(T, s) / bar(T, s)[0]).clip(min=1 - cap))


def capped_below(T, s, cap):
    f = bar(T, s)
    return roots(
        torch.cat([torch.ones(1), (1 - (1 - f[1:] / f[:-1]).clip(min=1 - cap)).cumprod(0)])
    )


def no_clean(T, s, cap):
    alpha, sigma = by_betas(T, s, cap)
    return alpha[1:], sigma[1:]


def half_turn(T, s, cap):
    return from_bar(bar(T, s, math.pi), cap)


def own_cap(T, s, cap):
    return by_betas(T, s, 0.999)


def own_offset(T, s, cap):
    return by_betas(T, 0.008, cap)


def last_noise_only(T, s, cap):
    alpha, _ = by_betas(T, s, cap)
    beta = 1 - (alpha[1:] / alpha[:-1]) ** 2
    return alpha, torch.cat([torch.zeros(1), beta.sqrt()])


def sine(T, s, cap):
    alpha, sigma = by_betas(T, s, cap)
    return sigma, alpha


def fixed(T, s, cap):
    return by_betas(T)


def caps_the_last(T, s, cap):
    f = bar(T, s)
    beta = 1 - f[1:] / f[:-1]
    beta[-1] = cap
    return roots(torch.cat([torch.ones(1), (1 - beta).cumprod(0)]))


def one_minus_alpha(T, s, cap):
    alpha, _ = by_betas(T, s, cap)
    return alpha, 1 - alpha


def other_ratio(T, s, cap):
    f = bar(T, s)
    return roots(torch.cat([torch.ones(1), (1 - (1 - f[:-1] / f[1:]).clamp(max=cap)).cumprod(0)]))


WRONG = {
    "library": [by_library],
    "ratio upside down": [other_ratio],
    "exchanged": [sine],
    "cap fixed + offset fixed": [fixed],
    "only the last capped": [caps_the_last],
    "one minus alpha": [one_minus_alpha],
    "cap fixed": [own_cap],
    "offset fixed": [own_offset],
    "sigma of beta": [last_noise_only],
    "no cap": [uncapped],
    "not normalised": [raw],
    "no offset": [no_offset],
    "offset not divided": [not_divided],
    "not squared": [plain_cosine],
    "squared twice": [fourth_power],
    "no roots": [variances],
    "cap on alpha": [floor_of_alpha],
    "cap from below": [capped_below],
    "no clean index": [no_clean],
    "half a turn": [half_turn],
}


def unwritten(T, s, cap):
    raise NotImplementedError("your code here")


def offset_twice(T, s, cap):
    return by_betas(T, 2 * s, cap)


UNKNOWN = [offset_twice, unwritten]
