import math

import torch

from diffusion_lib import Schedule, last
from diffusion_lib import sampling as library


def lam(schedule, t):
    a, s = schedule.alpha[t].item(), schedule.sigma[t].item()
    return -math.inf if a == 0 else math.inf if s == 0 else math.log(a / s)


def plain(denoise, schedule, x, times):
    before, h_before = None, None
    for i in range(len(times) - 1):
        t, s = times[i], times[i + 1]
        h = lam(schedule, s) - lam(schedule, t)
        x0 = denoise(x, t)
        d = x0
        if before is not None and h < math.inf and h_before < math.inf:
            d = x0 + h / h_before / 2 * (x0 - before)
        x = schedule.sigma[s] / schedule.sigma[t] * x + schedule.alpha[s] * (1 - math.exp(-h)) * d
        before, h_before = x0, h
    return x


def in_y(denoise, schedule, x, times):
    """In y = x / sigma, with the ratio r of both steps, as the paper writes it."""
    history = []
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
    return y * schedule.sigma[times[-1]]


def in_double(denoise, schedule, x, times):
    return plain(denoise, schedule, x.double(), times)


def from_library(denoise, schedule, x, times):
    few = Schedule(schedule.alpha[times[::-1]], schedule.sigma[times[::-1]])
    back = dict(enumerate(times[::-1]))
    return last(library.dpm_solver(lambda x, t: denoise(x, back[t]), few, x, len(times) - 1))


RIGHT = [plain, in_y, in_double]


def solver(correct, move=None):
    def sampler(denoise, schedule, x, times):
        memory, h_before = None, math.inf
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


def ddim(denoise, schedule, x, times):
    return solver(lambda x0, before, r: x0)(denoise, schedule, x, times)


def forgets_to_remember(denoise, schedule, x, times):
    first = None
    for t, s in zip(times, times[1:]):
        h, x0 = lam(schedule, s) - lam(schedule, t), denoise(x, t)
        first = first or (x0, h)
        d = x0
        if x0 is not first[0] and h < math.inf:
            d = x0 + h / (2 * first[1]) * (x0 - first[0])
        x = schedule.sigma[s] / schedule.sigma[t] * x + schedule.alpha[s] * (1 - math.exp(-h)) * d
    return x


def infinite_at_the_end(denoise, schedule, x, times):
    log = (schedule.alpha / schedule.sigma).log()
    before = None
    for t, s in zip(times, times[1:]):
        h, x0 = log[s] - log[t], denoise(x, t)
        d = x0 if before is None else x0 + h / (2 * before[1]) * (x0 - before[0])
        x = schedule.sigma[s] / schedule.sigma[t] * x - schedule.alpha[s] * torch.expm1(-h) * d
        before = x0, h
    return x * 0 + x  # infinities become NaN


def heun(denoise, schedule, x, times):
    for t, s in zip(times, times[1:]):
        a, b, c, d = schedule.alpha[t], schedule.sigma[t], schedule.alpha[s], schedule.sigma[s]
        x0 = denoise(x, t)
        if s > 0:
            x0 = (x0 + denoise(d / b * x + (c - d / b * a) * x0, s)) / 2
        x = d / b * x + (c - d / b * a) * x0
    return x


def asks_again(denoise, schedule, x, times):
    denoise(x, schedule.T)
    return plain(denoise, schedule, x, times)


def old_length(denoise, schedule, x, times):
    before, h_before = None, None
    for t, s in zip(times, times[1:]):
        h, x0 = lam(schedule, s) - lam(schedule, t), denoise(x, t)
        d = x0
        if before is not None and h < math.inf and h_before < math.inf:
            d = x0 + h / h_before / 2 * (x0 - before)
        x = schedule.sigma[s] / schedule.sigma[t] * x + schedule.alpha[s] * (1 - math.exp(-h)) * d
        before, h_before = x0, h_before or h
    return x


def remembers_the_corrected(denoise, schedule, x, times):
    """Keeps d where the answer x0 is to be kept."""
    before, h_before = None, math.inf
    for t, s in zip(times, times[1:]):
        h, d = lam(schedule, s) - lam(schedule, t), denoise(x, t)
        if h < math.inf and h_before < math.inf:
            d = d + h / (2 * h_before) * (d - before)
        x = schedule.sigma[s] / schedule.sigma[t] * x + schedule.alpha[s] * (1 - math.exp(-h)) * d
        before, h_before = d, h
    return x


def tiny(of):
    """The logarithms are kept from being infinite; nothing else guards the ends."""

    def sampler(denoise, schedule, x, times):
        lam, before, h_before = of(schedule.alpha, schedule.sigma).log().tolist(), None, None
        for t, s in zip(times, times[1:]):
            h, x0 = lam[s] - lam[t], denoise(x, t)
            d = x0 if before is None else x0 + h / (2 * h_before) * (x0 - before)
            ratio = schedule.sigma[s] / schedule.sigma[t]
            x = ratio * x + schedule.alpha[s] * (1 - math.exp(-h)) * d
            before, h_before = x0, h
        return x

    return sampler


def upside_down(denoise, schedule, x, times):
    before, h_before = None, None
    for t, s in zip(times, times[1:]):
        h, x0 = lam(schedule, t) - lam(schedule, s), denoise(x, t)
        d = x0
        if before is not None and math.isfinite(h) and math.isfinite(h_before):
            d = x0 + h / h_before / 2 * (x0 - before)
        e = 1 - math.exp(-h) if h > -50 else -math.inf
        x = schedule.sigma[s] / schedule.sigma[t] * x + schedule.alpha[s] * e * d
        before, h_before = x0, h
    return x


def asks_ahead(denoise, schedule, x, times):
    after = dict(zip(times, times[1:]))
    return plain(lambda x, t: denoise(x, after[t]), schedule, x, times)


def clamps(denoise, schedule, x, times):
    return plain(lambda x, t: denoise(x, t).clip(-1, 1), schedule, x, times)


def root_of_the_rest(denoise, schedule, x, times):
    alpha = schedule.alpha
    return plain(denoise, Schedule(alpha, (1 - alpha**2).sqrt()), x, times)


def even_times(denoise, schedule, x, times):
    return plain(denoise, schedule, x, schedule.timesteps(len(times) - 1))


def log_of_the_snr(denoise, schedule, x, times):
    """Twice the logarithm of alpha / sigma."""
    before, h_before = None, math.inf
    for t, s in zip(times, times[1:]):
        h, x0 = 2 * (lam(schedule, s) - lam(schedule, t)), denoise(x, t)
        d = x0
        if h < math.inf and h_before < math.inf:
            d = x0 + h / (2 * h_before) * (x0 - before)
        x = schedule.sigma[s] / schedule.sigma[t] * x + schedule.alpha[s] * (1 - math.exp(-h)) * d
        before, h_before = x0, h
    return x


def of_lengths(length, name):
    """The factor from lengths of its own kind."""

    def sampler(denoise, schedule, x, times):
        before, old = None, math.inf
        for t, s in zip(times, times[1:]):
            h, x0 = lam(schedule, s) - lam(schedule, t), denoise(x, t)
            d = x0
            if h < math.inf and before is not None and math.isfinite(old):
                d = x0 + name(h, t - s) / (2 * old) * (x0 - before)
            x = schedule.sigma[s] / schedule.sigma[t] * x
            x = x + schedule.alpha[s] * (1 - math.exp(-h)) * d
            first = lam(schedule, t) == -math.inf
            before, old = x0, math.inf if first else length(schedule, t, s)
        return x

    return sampler


def kept(denoise, schedule, x, times, memory=[None, math.inf]):  # noqa: B006
    for t, s in zip(times, times[1:]):
        h, x0 = lam(schedule, s) - lam(schedule, t), denoise(x, t)
        d = x0
        if h < math.inf and memory[1] < math.inf:
            d = x0 + h / memory[1] / 2 * (x0 - memory[0])
        x = schedule.sigma[s] / schedule.sigma[t] * x + schedule.alpha[s] * (1 - math.exp(-h)) * d
        memory[:] = x0, h
    return x


def two_guesses(denoise, schedule, x, times):
    """One for the picture and one for the noise."""
    before, h_before = None, math.inf
    for t, s in zip(times, times[1:]):
        h, x0 = lam(schedule, s) - lam(schedule, t), denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        d = x0
        if max(h, h_before) < math.inf:
            d = x0 + h / (2 * h_before) * (x0 - before)
        x = schedule.alpha[s] * d + schedule.sigma[s] * eps
        before, h_before = x0, h
    return x


WRONG = {
    "kept between calls": [kept],
    "multiplied by h_before": [
        of_lengths(lambda schedule, t, s: 1 / (lam(schedule, s) - lam(schedule, t)), lambda h, n: h)
    ],
    "length in times": [of_lengths(lambda schedule, t, s: t - s, lambda h, n: n)],
    "remembers lambda": [of_lengths(lambda schedule, t, s: lam(schedule, t), lambda h, n: h)],
    "lambda of the whole SNR": [log_of_the_snr],
    "from the answer before": [solver(lambda x0, before, r: before + r / 2 * (x0 - before))],
    "noise of the old guess": [two_guesses],
    "library": [from_library],
    "old length": [old_length],
    "corrected memory": [remembers_the_corrected],
    "tiny number": [
        tiny(lambda a, s: (a + 1e-8) / (s + 1e-8)),
        tiny(lambda a, s: a.clamp(min=1e-8) / s.clamp(min=1e-8)),
    ],
    "infinite": [upside_down, infinite_at_the_end],
    "asked at s": [asks_ahead],
    "guess clamped": [clamps, solver(lambda x0, before, r: right(x0, before, r).clamp(-1, 1))],
    "root of one minus alpha²": [root_of_the_rest],
    "own times": [even_times],
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
    "too many calls": [asks_again],
    "none": [lambda denoise, schedule, x, times: None],
}


def noise_extrapolated(denoise, schedule, x, times):
    before = None
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        use = eps if before is None else 1.5 * eps - 0.5 * before
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * use
        before = eps
    return x


def half_the_answer(denoise, schedule, x, times):
    return plain(lambda x, t: denoise(x, t) / 2, schedule, x, times)


def half_way(denoise, schedule, x, times):
    return (x + plain(denoise, schedule, x, times)) / 2


WRONG["number of calls"] = [heun, lambda denoise, schedule, x, times: denoise(x, schedule.T)]
UNKNOWN = [noise_extrapolated, half_the_answer, half_way]
