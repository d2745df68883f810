import math

import torch

from diffusion_lib import Schedule, last
from diffusion_lib import sampling as library


def plain(denoise, schedule, x, times):
    for t, s in zip(times[:-1], times[1:]):
        x0 = denoise(x, t)
        eps = torch.zeros_like(x)
        if schedule.sigma[t] > 0:
            eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * eps
    return x


def rescaled(denoise, schedule, x, times):
    for i in range(len(times) - 1):
        a, b = schedule.alpha[times[i]].item(), schedule.sigma[times[i]].item()
        c, d = schedule.alpha[times[i + 1]].item(), schedule.sigma[times[i + 1]].item()
        ratio = d / b if b else 0.0
        x = ratio * x + (c - ratio * a) * denoise(x, times[i])
    return x


def in_double(denoise, schedule, x, times):
    x, times = x.double(), iter(times)
    alpha, sigma = schedule.alpha.double(), schedule.sigma.double()
    t = next(times)
    for s in times:
        guess = denoise(x, t)
        seen = x - alpha[t] * guess
        x, t = alpha[s] * guess + (seen * sigma[s] / sigma[t] if t else 0), s
    return x


def with_nan_to_num(denoise, schedule, x, times):
    """What is infinite for an instant becomes 0."""
    at = {t: schedule.at(torch.tensor([t]), like=x) for t in times}
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        eps = torch.where(at[t][1] > 0, (x - at[t][0] * x0) / at[t][1], torch.zeros(()))
        x = at[s][0] * x0 + at[s][1] * eps
    return x


RIGHT = [plain, rescaled, in_double, with_nan_to_num]


def from_library(denoise, schedule, x, times):
    """On a schedule that has these times alone."""
    few = Schedule(schedule.alpha[times[::-1]], schedule.sigma[times[::-1]])
    back = dict(enumerate(times[::-1]))
    return last(library.ddim(lambda x, t: denoise(x, back[t]), few, x, len(times) - 1))


def stepping(new, of=None):
    """The walk whose x is new(x, x0, alpha_t, sigma_t, alpha_s, sigma_s)."""

    def sampler(denoise, schedule, x, times):
        way = times if of is None else of(schedule, times)
        for i in range(len(way) - 1):
            t, s = way[i], way[i + 1]
            numbers = schedule.alpha[t], schedule.sigma[t], schedule.alpha[s], schedule.sigma[s]
            x = new(x, denoise(x, t), *numbers)
        return x

    return sampler


def step(x, x0, a, b, c, d):
    return c * x0 + (d / b * (x - a * x0) if b > 0 else 0)


def as_in_the_notebook(denoise, schedule, x, times):
    return stepping(lambda x, x0, a, b, c, d: c * x0 + d * (x - a * x0) / b)(
        denoise, schedule, x, times
    )


def fresh(denoise, schedule, x, times):
    for t, s in zip(times, times[1:]):
        x = schedule.add_noise(denoise(x, t), s, torch.randn_like(x))
    return x


def as_in_the_repository(denoise, schedule, x, times):
    """DDPM, whatever times were asked for."""
    for t in range(schedule.T, 0, -1):
        beta = 1 - (schedule.alpha[t] / schedule.alpha[t - 1]) ** 2
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x = (x - beta / schedule.sigma[t] * eps) / (1 - beta).sqrt()
        if t > 1:
            x = x + beta.sqrt() * torch.randn_like(x)
    return x


def asks_twice(denoise, schedule, x, times):
    for t, s in zip(times, times[1:]):
        x = step(
            x,
            (denoise(x, t) + denoise(x, t)) / 2,
            schedule.alpha[t],
            schedule.sigma[t],
            schedule.alpha[s],
            schedule.sigma[s],
        )
    return x


def in_place(denoise, schedule, x, times):
    x.copy_(plain(denoise, schedule, x, times))
    return x


def times_in_place(denoise, schedule, x, times):
    result = plain(denoise, schedule, x, times)
    times.reverse()
    return result


def a_generator(denoise, schedule, x, times):
    yield plain(denoise, schedule, x, times)


def leading(schedule, times):
    steps = len(times) - 1
    return [i * (schedule.T // steps) for i in reversed(range(steps))]


def with_the_first_noise(denoise, schedule, x, times):
    noise = x
    for t, s in zip(times, times[1:]):
        x = schedule.alpha[s] * denoise(x, t) + schedule.sigma[s] * noise
    return x


def one_call_more(denoise, schedule, x, times):
    return denoise(plain(denoise, schedule, x, times), times[-1])


def one_jump(denoise, schedule, x, times):
    return denoise(x, times[0])


def asks_ahead(denoise, schedule, x, times):
    after = dict(zip(times, times[1:]))
    return plain(lambda x, t: denoise(x, after[t]), schedule, x, times)


def clamps(denoise, schedule, x, times):
    return plain(lambda x, t: denoise(x, t).clip(-1, 1), schedule, x, times)


def root_of_the_rest(denoise, schedule, x, times):
    alpha = schedule.alpha
    return plain(denoise, Schedule(alpha, (1 - alpha**2).sqrt()), x, times)


def waits_at_0(x, x0, a, b, c, d):
    return c * x0 + d / b * (x - a * x0) if b > 0 else x


def two_at_once(x, x0, a, b, c, d):
    return d * x0 + c * ((x - a * x0) / b**2 if b > 0 else 0)


WRONG = {
    "library": [from_library],
    "infinite": [as_in_the_notebook],
    "stands still at 0": [stepping(waits_at_0)],
    "asked at s": [asks_ahead],
    "guess clamped": [clamps],
    "root of one minus alpha²": [root_of_the_rest],
    "the first noise": [with_the_first_noise],
    "number of calls": [one_call_more, one_jump],
    "exchanged": [stepping(lambda x, x0, a, b, c, d: d * x0 + (c * (x - a * x0) / b if b else 0))],
    "noise of the wrong time": [
        stepping(lambda x, x0, a, b, c, d: c * x0 + (d * (x - c * x0) / d if d > 0 else 0))
    ],
    "divided by the variance": [
        stepping(lambda x, x0, a, b, c, d: c * x0 + d * (x - a * x0) / b**2)
    ],
    "not divided": [stepping(lambda x, x0, a, b, c, d: c * x0 + d * (x - a * x0))],
    "variance of the new noise": [
        stepping(lambda x, x0, a, b, c, d: c * x0 + d * d / b * (x - a * x0))
    ],
    "picture not scaled": [stepping(lambda x, x0, a, b, c, d: x0 + d / b * (x - a * x0))],
    "sign": [stepping(lambda x, x0, a, b, c, d: c * x0 - d / b * (x - a * x0))],
    "picture not removed": [stepping(lambda x, x0, a, b, c, d: c * x0 + d / b * (x - x0))],
    "stays at the old level": [stepping(lambda x, x0, a, b, c, d: c * x0 + x - a * x0)],
    "all steps": [stepping(step, lambda schedule, times: range(times[0], times[-1] - 1, -1))],
    "own times": [stepping(step, lambda schedule, times: schedule.timesteps(len(times) - 1))],
    "stops early": [stepping(step, lambda schedule, times: times[:-1])],
    "starts late": [stepping(step, leading)],
    "starts at the second time": [stepping(step, lambda schedule, times: times[1:])],
    "sorted": [stepping(step, lambda schedule, times: sorted(times)[::-1])],
    "fresh noise": [fresh, as_in_the_repository],
    "too many calls": [asks_twice],
    "in place": [in_place, times_in_place],
    "type": [a_generator],
    "none": [lambda denoise, schedule, x, times: None],
    "exchanged + divided by the variance": [stepping(two_at_once)],
}


def half_way(denoise, schedule, x, times):
    return (x + plain(denoise, schedule, x, times)) / 2


def forwards(denoise, schedule, x, times):
    return plain(denoise, schedule, x, times[::-1])


def cosine_only(denoise, schedule, x, times):
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        a, c = math.cos(t / schedule.T * math.pi / 2), math.cos(s / schedule.T * math.pi / 2)
        x = c * x0 + math.sqrt(1 - c * c) * (x - a * x0) / math.sqrt(1 - a * a)
    return x


def halves_of_time(denoise, schedule, x, times):
    return plain(lambda x, t: denoise(x, t + 0.5), schedule, x, times)


def a_tiny_sigma(denoise, schedule, x, times):
    """Nearly nothing is divided by nearly nothing."""
    return plain(denoise, Schedule(schedule.alpha, schedule.sigma.clamp(min=1e-4)), x, times)


UNKNOWN = [halves_of_time, half_way, forwards, cosine_only, a_tiny_sigma]
