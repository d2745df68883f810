from functools import reduce

import numpy as np
import torch
from torch import randn, zeros_like


def plain(step, x, T, generator):
    for t in range(T, 0, -1):
        z = randn(x.shape, generator=generator, dtype=x.dtype) if t > 1 else zeros_like(x)
        x = step(x, t, z)
    return x


def by_counting_down(step, x, T, generator):
    t = T
    while t > 0:
        noise = torch.empty_like(x).normal_(generator=generator)
        x = step(x, t, z=noise * (t != 1))
        t -= 1
    return x


def all_noise_at_once(step, x, T, generator):
    z = torch.cat([randn(T - 1, *x.shape, generator=generator), torch.zeros(1, *x.shape)])
    for i, t in enumerate(reversed(range(1, T + 1))):
        x = step(x, t, z[i].to(x.dtype))
    return x


def as_a_fold(step, x, T, generator):
    draw = lambda t: randn(x.shape, generator=generator) if t > 1 else 0  # noqa: E731
    return reduce(
        lambda x, t: step(x, torch.tensor(t), draw(t)), torch.arange(T, 0, -1).tolist(), x
    )


def last_step_apart(step, x, T, generator):
    for t in range(T, 1, -1):
        x = step(x, t, randn(x.shape, generator=generator))
    return step(x, 1, zeros_like(x))


def recursive(step, x, T, generator):
    if T == 0:
        return x
    z = randn(x.shape, generator=generator) if T > 1 else zeros_like(x)
    return recursive(step, step(x, T, z), T - 1, generator)


def in_numpys_integers(step, x, T, generator):
    for t in np.arange(T, 0, -1):
        x = step(x, t, (t > 1) * torch.randn(x.shape, generator=generator, dtype=x.dtype))
    return x


RIGHT = [
    in_numpys_integers,
    plain,
    by_counting_down,
    all_noise_at_once,
    as_a_fold,
    last_step_apart,
    recursive,
]


def loop(times, noisy):
    def answer(step, x, T, generator):
        for t in times(T):
            z = randn(x.shape, generator=generator) if noisy(t, T) else zeros_like(x)
            x = step(x, t, z)
        return x

    return answer


def down(T):
    return range(T, 0, -1)


def always(t, T):
    return True


def but_the_last(t, T):
    return t > 1


the_starter = loop(lambda T: range(1, T + 1), but_the_last)
as_in_the_repository = loop(range, but_the_last)
forwards_without_noise_at_the_end = loop(range, lambda t, T: t < T - 1)
zero_based = loop(lambda T: reversed(range(T)), lambda t, T: t > 0)
zero_based_and_noisy = loop(lambda T: reversed(range(T)), always)
begins_late = loop(lambda T: range(T - 1, 0, -1), but_the_last)
stops_short = loop(lambda T: range(T, 1, -1), but_the_last)
one_too_many = loop(lambda T: range(T, -1, -1), but_the_last)
noisy_end = loop(down, always)
index_of_zero_based_times = loop(down, lambda t, T: t > 0)
index_of_the_other_end = loop(down, lambda t, T: t < T)
quiet_at_two = loop(down, lambda t, T: t > 2)
never_noisy = loop(down, lambda t, T: False)


def forgets(step, x, T, generator):
    for t in down(T):
        out = step(x, t, randn(x.shape, generator=generator) if t > 1 else zeros_like(x))
    return out


def throws_the_end_away(step, x, T, generator):
    for t in down(T):
        before, x = x, step(x, t, randn(x.shape, generator=generator) if t > 1 else zeros_like(x))
    return before


def draws_once(step, x, T, generator):
    z = randn(x.shape, generator=generator)
    for t in down(T):
        x = step(x, t, z if t > 1 else 0 * z)
    return x


def sets_back(step, x, T, generator):
    for t in down(T):
        generator.manual_seed(0)
        x = step(x, t, randn(x.shape, generator=generator) if t > 1 else 0)
    return x


def own_generator(step, x, T, generator):
    return plain(step, x, T, torch.Generator().manual_seed(3))


def ignores_the_generator(step, x, T, generator):
    return plain(step, x, T, None)


def seeds_everything(step, x, T, generator):
    torch.manual_seed(0)
    return plain(step, x, T, generator)


def evenly_spread(step, x, T, generator):
    for t in down(T):
        x = step(x, t, torch.rand(x.shape, generator=generator) if t > 1 else 0)
    return x


def in_place(step, x, T, generator):
    for t in down(T):
        z = randn(x.shape, generator=generator) if t > 1 else zeros_like(x)
        x.copy_(step(x, t, z))
    return x


def nothing(step, x, T, generator):
    plain(step, x, T, generator)


def a_film(step, x, T, generator):
    film = []
    for t in down(T):
        x = step(x, t, randn(x.shape, generator=generator) if t > 1 else 0)
        film.append(x)
    return film


def own_start(step, x, T, generator):
    return plain(step, torch.randn(x.shape, generator=generator).to(x), T, generator)


def counts_up_from_the_top(step, x, T, generator):
    for t in range(T, 0):
        x = step(x, t, torch.randn(x.shape, generator=generator))
    return x


def with_noise(draw):
    def answer(step, x, T, generator):
        memory = {}
        for t in range(T, 0, -1):
            x = step(x, t, draw(x, generator, memory) if t > 1 else torch.zeros_like(x))
        return x

    return answer


def turned(x, generator, memory):
    memory["z"] = -memory["z"] if memory else torch.randn(x.shape, generator=generator).to(x)
    return memory["z"]


def for_all_pictures(x, generator, memory):
    return torch.randn(x.shape[1:], generator=generator).to(x).expand_as(x)


def grey(x, generator, memory):
    if x.ndim == 2:
        return torch.randn(x.shape, generator=generator).to(x)
    return torch.randn(x[:, :1].shape, generator=generator).to(x).expand_as(x)


def flat(x, generator, memory):
    return (torch.rand(x.shape, generator=generator).to(x) - 0.5) * 12**0.5


def scaled_time(step, x, T, generator):
    return plain(lambda x, t, z: step(x, t / T, z), x, T, generator)


def times_of_the_batch(step, x, T, generator):
    return plain(lambda x, t, z: step(x, torch.full((len(x),), t), z), x, T, generator)


def one_picture(step, x, T, generator):
    for t in down(T):
        z = randn(x.shape, generator=generator)
        x = step(x[:1], t, z[:1] if t > 1 else z[:1] * 0)
    return x


def time_last(step, x, T, generator):
    return plain(lambda x, t, z: step(x, z, t), x, T, generator)


def time_first(step, x, T, generator):
    return plain(lambda x, t, z: step(t, x, z), x, T, generator)


def noise_first(step, x, T, generator):
    return plain(lambda x, t, z: step(z, t, x), x, T, generator)


WRONG = {
    "arguments exchanged": [time_last, time_first, noise_first],
    "one noise for all": [with_noise(for_all_pictures), with_noise(grey)],
    "not normal": [with_noise(flat)],
    "own start": [own_start],
    "no step": [counts_up_from_the_top],
    "forwards": [the_starter, as_in_the_repository, forwards_without_noise_at_the_end],
    "counts from T - 1": [zero_based, zero_based_and_noisy],
    "begins late": [begins_late],
    "stops short": [stops_short],
    "a step from 0": [one_too_many],
    "noise at the end": [noisy_end, index_of_zero_based_times],
    "wrong end": [index_of_the_other_end],
    "quiet early": [quiet_at_two],
    "no noise": [never_noisy],
    "not handed on": [forgets],
    "last result lost": [throws_the_end_away],
    "the same noise": [with_noise(turned), draws_once, sets_back],
    "own generator": [own_generator],
    "global random": [ignores_the_generator],
    "global seed": [seeds_everything],
    "uniform noise": [evenly_spread],
    "in place": [in_place],
    "none": [nothing],
    "type": [a_film, scaled_time, times_of_the_batch],
}


def every_other(step, x, T, generator):
    for t in range(T, 0, -2):
        x = step(x, t, randn(x.shape, generator=generator) if t > 2 else zeros_like(x))
    return x


def half_noise(step, x, T, generator):
    for t in down(T):
        x = step(x, t, randn(x.shape, generator=generator) / 2 if t > 1 else zeros_like(x))
    return x


def quiet_at_odd_times(step, x, T, generator):
    return loop(down, lambda t, T: t % 2 == 0)(step, x, T, generator)


def one_noise_for_the_batch(step, x, T, generator):
    for t in down(T):
        x = step(x, t, randn(x.shape[1:], generator=generator) if t > 1 else zeros_like(x))
    return x


def clamps(step, x, T, generator):
    return plain(lambda x, t, z: step(x.clamp(-1, 1), t, z), x, T, generator)


UNKNOWN = [
    one_picture,
    every_other,
    half_noise,
    quiet_at_odd_times,
    one_noise_for_the_batch,
    clamps,
]
