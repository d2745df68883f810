import math

import numpy as np
import torch


def plain(schedule, x0, strength, steps, eps):
    times = schedule.timesteps(steps)
    times = times[steps - max(1, round(strength * steps)) :]
    return schedule.add_noise(x0, times[0], eps), times


def from_the_end(schedule, x0, strength, steps, eps):
    """Counted from 0 upwards, then turned round."""
    upwards = schedule.timesteps(steps)[::-1]
    left = int(np.rint(strength * steps)) or 1
    t = upwards[left]
    return schedule.alpha[t] * x0 + schedule.sigma[t] * eps, upwards[left::-1]


def by_tensors(schedule, x0, strength, steps, eps):
    times = torch.tensor(schedule.timesteps(steps))
    skipped = min(steps - round(strength * steps), steps - 1)
    t = times[skipped].expand(len(x0))
    alpha, sigma = schedule.at(t, like=x0)
    return torch.addcmul(alpha * x0, sigma, eps), times[skipped:]


def step_by_step(schedule, x0, strength, steps, eps):
    rest = schedule.timesteps(steps)
    while len(rest) - 1 > max(1, strength * steps + 0.5):
        rest.pop(0)
    a, b = float(schedule.alpha[rest[0]]), float(schedule.sigma[rest[0]])
    return [a * x0 + b * eps, tuple(rest)]


RIGHT = [by_tensors, plain, from_the_end, step_by_step]


def left_of(strength, steps):
    return max(1, round(strength * steps))


def with_times(choose):
    """choose(whole, left, steps, strength, T): the times; x is noised to the first of them."""

    def answer(schedule, x0, strength, steps, eps):
        whole = schedule.timesteps(steps)
        times = choose(whole, left_of(strength, steps), steps, strength, schedule.T)
        return schedule.add_noise(x0, times[0], eps), times

    return answer


def noised_to(choose):
    """choose(whole, left, steps, strength, T): the time that x is noised to; the times are right."""

    def answer(schedule, x0, strength, steps, eps):
        whole, left = schedule.timesteps(steps), left_of(strength, steps)
        t = choose(whole, left, steps, strength, schedule.T)
        return schedule.add_noise(x0, t, eps), whole[steps - left :]

    return answer


def mixed_by(mix):
    """mix(alpha, sigma, x0, eps, strength) at the right time."""

    def answer(schedule, x0, strength, steps, eps):
        times = plain(schedule, x0, strength, steps, eps)[1]
        alpha, sigma = schedule.alpha[times[0]], schedule.sigma[times[0]]
        return mix(alpha, sigma, x0, eps, strength), times

    return answer


def as_reported(schedule, x0, strength, steps, eps):
    times = schedule.timesteps(steps)
    left = max(1, round(strength * steps))
    x = schedule.add_noise(x0, times[steps - left - 1], eps)
    return x, times[steps - left :]


def evenly(t, steps):
    return [math.floor(t * (steps - i) / steps + 0.5) for i in range(steps + 1)]


def no_least(schedule, x0, strength, steps, eps):
    times = schedule.timesteps(steps)[steps - round(strength * steps) :]
    return schedule.add_noise(x0, times[0], eps), times


def whole_walk(schedule, x0, strength, steps, eps):
    x, times = plain(schedule, x0, strength, steps, eps)
    return x, schedule.timesteps(steps)


def own_noise(schedule, x0, strength, steps, eps):
    return plain(schedule, x0, strength, steps, torch.randn_like(x0))


def in_place(schedule, x0, strength, steps, eps):
    x, times = plain(schedule, x0, strength, steps, eps)
    return x0.copy_(x), times


def cut_off(n):
    def answer(schedule, x0, strength, steps, eps):
        times = schedule.timesteps(steps)[steps - max(1, n(strength * steps)) :]
        return schedule.add_noise(x0, times[0], eps), times

    return answer


seen = []


def remembers(schedule, x0, strength, steps, eps):
    seen.append(0)
    x, times = plain(schedule, x0, strength, steps, eps)
    return x, times if len(seen) % 7 else times[1:]


def before_and_unscaled(schedule, x0, strength, steps, eps):
    whole, left = schedule.timesteps(steps), left_of(strength, steps)
    return x0 + schedule.sigma[whole[steps - left - 1]] * eps, whole[steps - left :]


WRONG = {
    "noise of the time before": [
        as_reported,
        noised_to(lambda whole, left, steps, strength, T: whole[max(0, steps - left - 1)]),
    ],
    "noise of the next time": [noised_to(lambda w, left, steps, s, T: w[steps - left + 1])],
    "noise of T": [noised_to(lambda whole, left, steps, strength, T: T)],
    "noise by the strength": [noised_to(lambda w, left, steps, strength, T: round(strength * T))],
    "one time beside": [noised_to(lambda w, left, steps, s, T: w[steps - left] - 1)],
    "steps for time": [noised_to(lambda whole, left, steps, strength, T: left)],
    "upside down": [
        with_times(lambda whole, left, steps, s, T: whole[left:]),
        lambda schedule, x0, s, steps, eps: plain(schedule, x0, 1 - s, steps, eps),
    ],
    "rounded down": [cut_off(int)],
    "rounded up": [cut_off(math.ceil)],
    "no step left": [no_least],
    "whole walk": [whole_walk, with_times(lambda whole, left, steps, s, T: whole)],
    "all steps in the rest": [
        with_times(lambda whole, left, steps, s, T: evenly(whole[steps - left], steps)),
        with_times(lambda whole, left, steps, strength, T: evenly(round(strength * T), steps)),
    ],
    "times spread anew": [
        with_times(lambda whole, left, steps, strength, T: evenly(round(strength * T), left)),
    ],
    "first steps": [with_times(lambda whole, left, steps, s, T: whole[: left + 1])],
    "0 missing": [with_times(lambda whole, left, steps, s, T: whole[steps - left : steps])],
    "one step too few": [with_times(lambda whole, left, steps, s, T: whole[-left:])],
    "one step too many": [with_times(lambda w, left, steps, s, T: w[max(steps - left - 1, 0) :])],
    "upwards": [
        lambda schedule, x0, s, steps, eps: (
            (pair := plain(schedule, x0, s, steps, eps))[0],
            sorted(pair[1]),
        )
    ],
    "no noise": [mixed_by(lambda a, b, x0, eps, s: a * x0)],
    "picture not scaled": [mixed_by(lambda a, b, x0, eps, s: x0 + b * eps)],
    "variance": [mixed_by(lambda a, b, x0, eps, s: a * x0 + b.square() * eps)],
    "exchanged": [mixed_by(lambda a, b, x0, eps, s: b * x0 + a * eps)],
    "root of one minus alpha²": [
        mixed_by(lambda a, b, x0, eps, s: a * x0 + (1 - a * a) ** 0.5 * eps)
    ],
    "root taken again": [mixed_by(lambda a, b, x0, eps, s: a**0.5 * x0 + (1 - a) ** 0.5 * eps)],
    "strength as noise": [
        mixed_by(lambda a, b, x0, eps, s: (1 - s) * x0 + s * eps),
        mixed_by(lambda a, b, x0, eps, s: x0 + s * eps),
    ],
    "noise of one picture": [mixed_by(lambda a, b, x0, eps, s: a * x0 + b * eps[0])],
    "own noise": [own_noise],
    "called again": [remembers],
    "in place": [in_place],
    "none": [lambda schedule, x0, strength, steps, eps: None],
    "type": [
        lambda *given: plain(*given)[0],
        lambda *given: (plain(*given)[0], plain(*given)[1][0]),
    ],
    "signature": [lambda schedule, x0, strength: x0],
    "noise of the time before + picture not scaled": [before_and_unscaled],
}

UNKNOWN = [
    mixed_by(lambda a, b, x0, eps, s: a * x0 - b * eps),
    mixed_by(lambda a, b, x0, eps, s: (a * x0 + b * eps).clamp(-1, 1)),
    mixed_by(lambda a, b, x0, eps, s: (a * x0 + b * eps).half()),
    noised_to(lambda whole, left, steps, strength, T: T // 2),
    with_times(lambda whole, left, steps, s, T: whole[steps - left :: 2]),
    lambda *given: (plain(*given)[0], [t - 1 for t in plain(*given)[1]]),
]
