import math

import torch

from diffusion_lib import last
from diffusion_lib import sampling as library


def plain(denoise, schedule, x, steps):
    times = schedule.timesteps(steps)
    for t, s in zip(times[:-1], times[1:]):
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * eps
    return x


def rescaled(denoise, schedule, x, steps):
    times = schedule.timesteps(steps)
    for i in range(steps):
        a, b = schedule.alpha[times[i]].item(), schedule.sigma[times[i]].item()
        c, d = schedule.alpha[times[i + 1]].item(), schedule.sigma[times[i + 1]].item()
        x = d / b * x + (c - d / b * a) * denoise(x, times[i])
    return x


def in_double(denoise, schedule, x, steps):
    x, times = x.double(), iter(schedule.timesteps(steps))
    alpha, sigma = schedule.alpha.double(), schedule.sigma.double()
    t = next(times)
    for s in times:
        guess = denoise(x, t)
        x, t = alpha[s] * guess + (x - alpha[t] * guess) * sigma[s] / sigma[t], s
    return x


def from_library(denoise, schedule, x, steps):
    return last(library.ddim(denoise, schedule, x, steps))


RIGHT = [plain, rescaled, in_double, from_library]


def stepping(new, times=None):
    def sampler(denoise, schedule, x, steps):
        way = schedule.timesteps(steps) if times is None else times(schedule, steps)
        for i in range(len(way) - 1):
            t, s = way[i], way[i + 1]
            numbers = schedule.alpha[t], schedule.sigma[t], schedule.alpha[s], schedule.sigma[s]
            x = new(x, denoise(x, t), *numbers)
        return x

    return sampler


def step(x, x0, a, b, c, d):
    return c * x0 + d / b * (x - a * x0)


def fresh(denoise, schedule, x, steps):
    for update in library.ddim(denoise, schedule, x, steps, eta=1.0):
        x = update.x
    return x


def as_in_the_repository(denoise, schedule, x, steps):
    """DDPM, whatever number of steps was asked for."""
    for t in range(schedule.T, 0, -1):
        beta = 1 - (schedule.alpha[t] / schedule.alpha[t - 1]) ** 2
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x = (x - beta / schedule.sigma[t] * eps) / (1 - beta).sqrt()
        if t > 1:
            x = x + beta.sqrt() * torch.randn_like(x)
    return x


def asks_twice(denoise, schedule, x, steps):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        eps = (x - schedule.alpha[t] * denoise(x, t)) / schedule.sigma[t]
        x = schedule.alpha[s] * denoise(x, t) + schedule.sigma[s] * eps
    return x


def in_place(denoise, schedule, x, steps):
    x.copy_(plain(denoise, schedule, x, steps))
    return x


def a_generator(denoise, schedule, x, steps):
    yield plain(denoise, schedule, x, steps)


def leading(schedule, steps):
    return [i * (schedule.T // steps) for i in reversed(range(steps))]


def with_the_first_noise(denoise, schedule, x, steps):
    times, noise = schedule.timesteps(steps), x
    for t, s in zip(times, times[1:]):
        x = schedule.alpha[s] * denoise(x, t) + schedule.sigma[s] * noise
    return x


def one_call_more(denoise, schedule, x, steps):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        x = schedule.alpha[s] * x0 + schedule.sigma[s] / schedule.sigma[t] * (
            x - schedule.alpha[t] * x0
        )
    return denoise(x, 0)


WRONG = {
    "the first noise": [with_the_first_noise],
    "number of calls": [one_call_more],
    "exchanged": [stepping(lambda x, x0, a, b, c, d: d * x0 + c * (x - a * x0) / b)],
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
    "all steps": [stepping(step, lambda schedule, steps: range(schedule.T, -1, -1))],
    "stops early": [stepping(step, lambda schedule, steps: schedule.timesteps(steps)[:steps])],
    "starts late": [stepping(step, leading)],
    "starts at the second time": [stepping(step, lambda s, steps: s.timesteps(steps)[1:])],
    "fresh noise": [fresh, as_in_the_repository],
    "too many calls": [asks_twice],
    "in place": [in_place],
    "type": [a_generator],
    "none": [lambda denoise, schedule, x, steps: None],
}


def half_way(denoise, schedule, x, steps):
    return (x + plain(denoise, schedule, x, steps)) / 2


def forwards(denoise, schedule, x, steps):
    times = schedule.timesteps(steps)[::-1]
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * (x - schedule.alpha[t] * x0)
    return x


def one_jump(denoise, schedule, x, steps):
    return denoise(x, schedule.T)


def cosine_only(denoise, schedule, x, steps):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        a, c = math.cos(t / schedule.T * math.pi / 2), math.cos(s / schedule.T * math.pi / 2)
        x = c * x0 + math.sqrt(1 - c * c) * (x - a * x0) / math.sqrt(1 - a * a)
    return x


def halves_of_time(denoise, schedule, x, steps):
    return plain(lambda x, t: denoise(x, t + 0.5), schedule, x, steps)


UNKNOWN = [halves_of_time, half_way, forwards, cosine_only]
WRONG["number of calls"].append(one_jump)
