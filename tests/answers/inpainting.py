import torch

from diffusion_lib import ddim


def plain(denoise, schedule, x, known, mask, steps, generator):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        x0 = mask * denoise(x, t) + (1 - mask) * known
        z = torch.randn(x.shape, generator=generator)
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * z
    return x


def by_add_noise(denoise, schedule, x, known, mask, steps, generator):
    with torch.no_grad():
        times = schedule.timesteps(steps)
        for i in range(steps):
            t = torch.full((len(x),), times[i])
            x0 = torch.where(mask > 0.5, denoise(x, t), known)
            z = torch.randn(x.shape, generator=generator)
            x = schedule.add_noise(x0, times[i + 1], z)
    return x


def by_indices(denoise, schedule, x, known, mask, steps, generator):
    t, old = schedule.T, (mask == 0).expand_as(x)
    for s in schedule.timesteps(steps)[1:]:
        x0 = denoise(x, t).clone()
        x0[old] = known[old]
        if s == 0:
            return x0
        a, b = schedule.at(s, like=x)
        x, t = a * x0 + b * torch.randn(x.shape, generator=generator), s


def known_and_new_apart(denoise, schedule, x, known, mask, steps, generator):
    """Both parts are noised by themselves, with one noise, and mixed then."""
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        noise = torch.empty_like(x).normal_(generator=generator)
        new = schedule.add_noise(denoise(x, t), s, noise)
        x = new.lerp(schedule.add_noise(known, s, noise), (1 - mask).expand_as(x))
    return x


def backwards(denoise, schedule, x, known, mask, steps, generator):
    """From the ends of the lists, by recursion."""
    times = schedule.timesteps(steps)[::-1]

    def down(i, x):
        if i == 0:
            return x
        x0 = known + mask * (denoise(x, times[i]) - known)
        z = torch.randn(x.shape, generator=generator)
        return down(i - 1, schedule.alpha[times[i - 1]] * x0 + schedule.sigma[times[i - 1]] * z)

    return down(steps, x)


RIGHT = [plain, by_add_noise, by_indices, known_and_new_apart, backwards]


def painting(step):
    """The walk whose x is step(alpha, sigma, t, s, x, guess, known, mask, z)."""

    def answer(denoise, schedule, x, known, mask, steps, generator):
        way = schedule.timesteps(steps)
        for t, s in zip(way, way[1:]):
            z = torch.randn(x.shape, generator=generator)
            guess = denoise(x, t)
            x = step(schedule.alpha, schedule.sigma, t, s, x, guess, known, mask, z)
        return x

    answer.__name__ = step.__name__
    return answer


def mixed(mask, new, known):
    return mask * new + (1 - mask) * known


def by_ddim(alpha, sigma, t, s, x, guess):
    return alpha[s] * guess + sigma[s] / sigma[t] * (x - alpha[t] * guess)


def pasted_after_the_loop(denoise, schedule, x, known, mask, steps, generator):
    for step in ddim(denoise, schedule, x, steps):
        pass
    return mixed(mask, step.x, known)


@painting
def pasted_in_the_last_step(alpha, sigma, t, s, x, guess, known, mask, z):
    x = by_ddim(alpha, sigma, t, s, x, guess)
    return x if s else mixed(mask, x, known)


@painting
def put_into_the_last_guess(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * (guess if s else mixed(mask, guess, known)) + sigma[s] * z


def forgotten(denoise, schedule, x, known, mask, steps, generator):
    *_, step = ddim(denoise, schedule, x, steps)
    return step.x


@painting
def never_put_in(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * guess + sigma[s] * z


@painting
def not_into_the_last(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * (mixed(mask, guess, known) if s else guess) + sigma[s] * z


@painting
def noise_of_the_guess(alpha, sigma, t, s, x, guess, known, mask, z):
    eps = (x - alpha[t] * guess) / sigma[t]
    return alpha[s] * mixed(mask, guess, known) + sigma[s] * eps


@painting
def noise_of_the_mixture(alpha, sigma, t, s, x, guess, known, mask, z):
    return by_ddim(alpha, sigma, t, s, x, mixed(mask, guess, known))


def in_the_estimate(denoise, schedule, x, known, mask, steps, generator):
    *_, step = ddim(lambda x, t: mixed(mask, denoise(x, t), known), schedule, x, steps)
    return step.x


@painting
def as_reported(alpha, sigma, t, s, x, guess, known, mask, z):
    return mixed(mask, by_ddim(alpha, sigma, t, s, x, guess), alpha[s] * known + sigma[s] * z)


@painting
def new_noise_in_the_new_half(alpha, sigma, t, s, x, guess, known, mask, z):
    x0 = mixed(mask, guess, known)
    return alpha[s] * x0 + sigma[s] * mixed(mask, z, (x - alpha[t] * x0) / sigma[t])


def noise_before_the_loop(denoise, schedule, x, known, mask, steps, generator):
    noise = torch.randn(x.shape, generator=generator)
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        x = schedule.add_noise(mixed(mask, denoise(x, t), known), s, noise)
    return x


def noise_of_one_picture(denoise, schedule, x, known, mask, steps, generator):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        z = torch.randn(x.shape[1:], generator=generator)
        x = schedule.add_noise(mixed(mask, denoise(x, t), known), s, z)
    return x


@painting
def clean(alpha, sigma, t, s, x, guess, known, mask, z):
    return mixed(mask, alpha[s] * guess + sigma[s] * z, known)


@painting
def clean_after_ddim(alpha, sigma, t, s, x, guess, known, mask, z):
    return mixed(mask, by_ddim(alpha, sigma, t, s, x, guess), known)


def asks_ahead(denoise, schedule, x, known, mask, steps, generator):
    few = schedule.timesteps(steps)
    after = dict(zip(few, few[1:]))
    return plain(lambda x, t: denoise(x, after[t]), schedule, x, known, mask, steps, generator)


@painting
def at_t(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[t] * mixed(mask, guess, known) + sigma[t] * z


def inverted(denoise, schedule, x, known, mask, steps, generator):
    return plain(denoise, schedule, x, known, 1 - mask, steps, generator)


@painting
def noisy_end(alpha, sigma, t, s, x, guess, known, mask, z):
    s = s or t
    return alpha[s] * mixed(mask, guess, known) + sigma[s] * z


@painting
def swapped(alpha, sigma, t, s, x, guess, known, mask, z):
    return sigma[s] * mixed(mask, guess, known) + alpha[s] * z


@painting
def does_not_fade(alpha, sigma, t, s, x, guess, known, mask, z):
    return mixed(mask, guess, known) + sigma[s] * z


@painting
def squared(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * mixed(mask, guess, known) + sigma[s] ** 2 * z


@painting
def only_faded(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * mixed(mask, guess, known)


@painting
def root_of_the_rest(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * mixed(mask, guess, known) + (1 - alpha[s] ** 2).sqrt() * z


@painting
def clamped(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * mixed(mask, guess.clamp(-1, 1), known) + sigma[s] * z


@painting
def clamped_too_late(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * mixed(mask, guess, known).clamp(-1, 1) + sigma[s] * z


def global_noise(denoise, schedule, x, known, mask, steps, generator):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        x0 = mixed(mask, denoise(x, t), known)
        x = schedule.add_noise(x0, s, torch.randn_like(x))
    return x


def seeds_everybody(denoise, schedule, x, known, mask, steps, generator):
    torch.manual_seed(0)
    return plain(denoise, schedule, x, known, mask, steps, generator)


def puts_it_back(denoise, schedule, x, known, mask, steps, generator):
    start = generator.get_state()
    picture = plain(denoise, schedule, x, known, mask, steps, generator)
    generator.set_state(start)
    return picture


def in_place(denoise, schedule, x, known, mask, steps, generator):
    x.copy_(plain(denoise, schedule, x, known, mask, steps, generator))
    return x


def known_in_place(denoise, schedule, x, known, mask, steps, generator):
    result = plain(denoise, schedule, x, known, mask, steps, generator)
    known *= 1 - mask
    return result


def nothing(denoise, schedule, x, known, mask, steps, generator):
    plain(denoise, schedule, x, known, mask, steps, generator)


def a_pair(denoise, schedule, x, known, mask, steps, generator):
    return plain(denoise, schedule, x, known, mask, steps, generator), mask


def with_the_old_arguments(denoise, schedule, x, known, mask, steps):
    return plain(denoise, schedule, x, known, mask, steps, None)


@painting
def inverted_and_squared(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * mixed(1 - mask, guess, known) + sigma[s] ** 2 * z


WRONG = {
    "only at the end": [
        pasted_after_the_loop,
        pasted_in_the_last_step,
        put_into_the_last_guess,
    ],
    "nothing pasted": [forgotten, never_put_in],
    "not pasted at the end": [not_into_the_last],
    "noise of the sampler": [noise_of_the_guess, noise_of_the_mixture, in_the_estimate],
    "noised into x": [as_reported],
    "old noise in what is known": [new_noise_in_the_new_half],
    "noise drawn once": [noise_before_the_loop],
    "one noise for all": [noise_of_one_picture],
    "clean at each step": [clean, clean_after_ddim],
    "asked at s": [asks_ahead],
    "noised at t": [at_t],
    "mask inverted": [inverted],
    "left noisy at the end": [noisy_end],
    "exchanged": [swapped],
    "picture does not fade": [does_not_fade],
    "variance": [squared],
    "no noise": [only_faded],
    "root of one minus alpha²": [root_of_the_rest],
    "guess clamped": [clamped, clamped_too_late],
    "generator set back": [puts_it_back],
    "global random": [global_noise],
    "global seed": [seeds_everybody],
    "in place": [in_place, known_in_place],
    "none": [nothing],
    "type": [a_pair],
    "signature": [with_the_old_arguments],
    "mask inverted + variance": [inverted_and_squared],
}


@painting
def minus(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s] * mixed(mask, guess, known) - sigma[s] * z


@painting
def one_time_late(alpha, sigma, t, s, x, guess, known, mask, z):
    return alpha[s + 1] * mixed(mask, guess, known) + sigma[s + 1] * z


def a_step_too_few(denoise, schedule, x, known, mask, steps, generator):
    return plain(denoise, schedule, x, known, mask, max(steps - 1, 1), generator)


def sums_up(denoise, schedule, x, known, mask, steps, generator):
    return plain(denoise, schedule, x, known, mask, steps, generator) + (1 - mask) * known


def half_precision(denoise, schedule, x, known, mask, steps, generator):
    return plain(denoise, schedule, x, known, mask, steps, generator).half()


def clipped_at_the_end(denoise, schedule, x, known, mask, steps, generator):
    return plain(denoise, schedule, x, known, mask, steps, generator).clamp(-0.5, 0.5)


def uniform_noise(denoise, schedule, x, known, mask, steps, generator):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        z = torch.rand(x.shape, generator=generator)
        x = schedule.add_noise(mixed(mask, denoise(x, t), known), s, z)
    return x


UNKNOWN = [
    minus,
    one_time_late,
    a_step_too_few,
    sums_up,
    half_precision,
    clipped_at_the_end,
    uniform_noise,
]
