import math

import torch

from diffusion_lib import last
from diffusion_lib import sampling as library


def lam(schedule, t):
    a, s = schedule.alpha[t].item(), schedule.sigma[t].item()
    return -math.inf if a == 0 else math.inf if s == 0 else math.log(a / s)


def plain(denoise, schedule, x, steps):
    times, before, h_before = schedule.timesteps(steps), None, None
    for i in range(steps):
        t, s = times[i], times[i + 1]
        h = lam(schedule, s) - lam(schedule, t)
        x0 = denoise(x, t)
        d = x0
        if before is not None and h < math.inf and h_before < math.inf:
            d = x0 + h / h_before / 2 * (x0 - before)
        x = schedule.sigma[s] / schedule.sigma[t] * x + schedule.alpha[s] * (1 - math.exp(-h)) * d
        before, h_before = x0, h
    return x


def in_y(denoise, schedule, x, steps):
    """In y = x / sigma, with the ratio r of both steps, as the paper writes it."""
    times, history = schedule.timesteps(steps), []
    y = x / schedule.sigma[times[0]]
    for t, s in zip(times, times[1:]):
        x0 = denoise(y * schedule.sigma[t], t)
        history.append((lam(schedule, t), x0))
        if s == 0:
            return x0
        d = x0
        if len(history) > 1 and history[-2][0] > -math.inf:
            r = (history[-1][0] - history[-2][0]) / (lam(schedule, s) - history[-1][0])
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * history[-2][1]
        grow = schedule.alpha[s] / schedule.sigma[s] - schedule.alpha[t] / schedule.sigma[t]
        y = y + grow * d


def in_double(denoise, schedule, x, steps):
    return plain(denoise, schedule, x.double(), steps)


def from_library(denoise, schedule, x, steps):
    return last(library.dpm_solver(denoise, schedule, x, steps))


RIGHT = [plain, in_y, in_double, from_library]


def solver(correct, move=None):
    def sampler(denoise, schedule, x, steps):
        times, memory, h_before = schedule.timesteps(steps), None, math.inf
        for t, s in zip(times, times[1:]):
            h, x0 = lam(schedule, s) - lam(schedule, t), denoise(x, t)
            d = x0
            if memory is not None and max(h, h_before) < math.inf:
                d = correct(x0, memory, h / h_before)
            a_t, s_t = schedule.alpha[t], schedule.sigma[t]
            a_s, s_s = schedule.alpha[s], schedule.sigma[s]
            if move is None:
                x = s_s / s_t * x + a_s * (1 - math.exp(-h)) * d
            else:
                x = move(x, d, 1 - math.exp(-h), a_t, s_t, a_s, s_s)
            memory, h_before = x0, h
        return x

    return sampler


def right(x0, before, r):
    return x0 + r / 2 * (x0 - before)


def ddim(denoise, schedule, x, steps):
    return last(library.ddim(denoise, schedule, x, steps))


def forgets_to_remember(denoise, schedule, x, steps):
    times, first = schedule.timesteps(steps), None
    for t, s in zip(times, times[1:]):
        h, x0 = lam(schedule, s) - lam(schedule, t), denoise(x, t)
        first = first or (x0, h)
        d = x0
        if x0 is not first[0] and h < math.inf:
            d = x0 + h / (2 * first[1]) * (x0 - first[0])
        x = schedule.sigma[s] / schedule.sigma[t] * x + schedule.alpha[s] * (1 - math.exp(-h)) * d
    return x


def infinite_at_the_end(denoise, schedule, x, steps):
    log = (schedule.alpha / schedule.sigma).log()
    times, before = schedule.timesteps(steps), None
    for t, s in zip(times, times[1:]):
        h, x0 = log[s] - log[t], denoise(x, t)
        d = x0 if before is None else x0 + h / (2 * before[1]) * (x0 - before[0])
        x = schedule.sigma[s] / schedule.sigma[t] * x - schedule.alpha[s] * torch.expm1(-h) * d
        before = x0, h
    return x * 0 + x  # infinities become NaN


def heun(denoise, schedule, x, steps):
    return last(library.heun(denoise, schedule, x, steps))


def asks_again(denoise, schedule, x, steps):
    denoise(x, schedule.T)
    return plain(denoise, schedule, x, steps)


WRONG = {
    "first order": [ddim, solver(lambda x0, before, r: x0)],
    "ratio upside down": [solver(lambda x0, before, r: x0 + 1 / (2 * r) * (x0 - before))],
    "no half": [solver(lambda x0, before, r: x0 + r * (x0 - before))],
    "equal steps taken for granted": [solver(lambda x0, before, r: 1.5 * x0 - 0.5 * before)],
    "looks backwards": [solver(lambda x0, before, r: x0 - r / 2 * (x0 - before))],
    "mean of the two": [solver(lambda x0, before, r: 0.5 * x0 + 0.5 * before)],
    "old memory": [forgets_to_remember],
    "ratio of the alphas": [
        solver(right, lambda x, d, e, a, b, c, s: (c / a * x if a > 0 else 0 * x) + c * e * d)
    ],
    "sign of the picture": [solver(right, lambda x, d, e, a, b, c, s: s / b * x - c * e * d)],
    "sigma for alpha": [solver(right, lambda x, d, e, a, b, c, s: s / b * x + s * e * d)],
    "infinite": [infinite_at_the_end],
    "too many calls": [asks_again],
    "none": [lambda denoise, schedule, x, steps: None],
}


def noise_extrapolated(denoise, schedule, x, steps):
    times, before = schedule.timesteps(steps), None
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        use = eps if before is None else 1.5 * eps - 0.5 * before
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * use
        before = eps
    return x


def remembers_the_corrected(denoise, schedule, x, steps):
    """Keeps d where the answer x0 is to be kept."""
    times, before, h_before = schedule.timesteps(steps), None, math.inf
    alpha, sigma = schedule.alpha.tolist(), schedule.sigma.tolist()
    for t, s in zip(times, times[1:]):
        ends = alpha[t] == 0 or sigma[s] == 0
        h = math.inf if ends else math.log(alpha[s] * sigma[t] / (sigma[s] * alpha[t]))
        d = denoise(x, t)
        if math.isfinite(h) and math.isfinite(h_before):
            d = d + h / (2 * h_before) * (d - before)
        x = sigma[s] / sigma[t] * x + alpha[s] * (1 - math.exp(-h)) * d
        before, h_before = d, h
    return x


def half_the_answer(denoise, schedule, x, steps):
    return plain(lambda x, t: denoise(x, t) / 2, schedule, x, steps)


WRONG["number of calls"] = [heun, lambda denoise, schedule, x, steps: denoise(x, schedule.T)]
UNKNOWN = [noise_extrapolated, remembers_the_corrected, half_the_answer]
