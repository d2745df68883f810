import torch

from diffusion_lib import Schedule, ddim


def plain(denoise, schedule, x, known, mask, steps, noise):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * eps
        old = schedule.alpha[s] * known + schedule.sigma[s] * noise
        x = mask * x + (1 - mask) * old
    return x


def by_where(denoise, schedule, x, known, mask, steps, noise):
    with torch.no_grad():
        times = schedule.timesteps(steps)
        for i in range(steps):
            a, b = schedule.at(times[i], like=x)
            c, d = schedule.at(times[i + 1], like=x)
            x0 = denoise(x, torch.full((len(x),), times[i]))
            x = torch.where(mask > 0.5, c * x0 + d / b * (x - a * x0), c * known + d * noise)
    return x


def by_indices(denoise, schedule, x, known, mask, steps, noise):
    x, t = x.double(), schedule.T
    old = (mask == 0).expand_as(x)
    for s in schedule.timesteps(steps)[1:]:
        x0 = denoise(x, t).double()
        ratio = (schedule.sigma[s] / schedule.sigma[t]).item()
        x = ratio * x + (schedule.alpha[s].item() - ratio * schedule.alpha[t].item()) * x0
        x[old] = schedule.add_noise(known, s, noise).double()[old]
        t = s
    return x


def by_the_library(denoise, schedule, x, known, mask, steps, noise):
    """One step of the library's sampler at a time, on a schedule that has no other times."""
    times = schedule.timesteps(steps)[::-1]
    few = Schedule(schedule.alpha[times], schedule.sigma[times])
    state = {"x": x}
    walk = ddim(lambda _, t: denoise(state["x"], times[t]), few, x, steps)
    for i, s in enumerate(range(steps - 1, -1, -1)):
        t = s + 1
        x0 = denoise(state["x"], times[t])
        eps = (state["x"] - few.alpha[t] * x0) / few.sigma[t]
        new = few.alpha[s] * x0 + few.sigma[s] * eps
        state["x"] = new.lerp(few.add_noise(known, s, noise), (1 - mask).expand_as(new))
    walk.close()
    return state["x"]


RIGHT = [plain, by_where, by_indices, by_the_library]


def painting(paste):
    def answer(denoise, schedule, x, known, mask, steps, noise):
        way = schedule.timesteps(steps)
        alpha, sigma = schedule.alpha, schedule.sigma
        for i in range(len(way) - 1):
            t, s = way[i], way[i + 1]
            x0 = denoise(x, t)
            x = alpha[s] * x0 + sigma[s] / sigma[t] * (x - alpha[t] * x0)
            old = paste(alpha, sigma, t, s, known, noise)
            if old is not None:
                x = x * mask + old * (1 - mask)
        return x

    answer.__name__ = paste.__name__
    return answer


@painting
def as_reported(alpha, sigma, t, s, known, noise):
    return known if s == 0 else None


def pasted_after_the_loop(denoise, schedule, x, known, mask, steps, noise):
    for step in ddim(denoise, schedule, x, steps):
        pass
    return mask * step.x + (1 - mask) * known


def forgotten(denoise, schedule, x, known, mask, steps, noise):
    *_, step = ddim(denoise, schedule, x, steps)
    return step.x


@painting
def clean(alpha, sigma, t, s, known, noise):
    return known


@painting
def at_t(alpha, sigma, t, s, known, noise):
    return alpha[t] * known + sigma[t] * noise


def asks_ahead(denoise, schedule, x, known, mask, steps, noise):
    few = schedule.timesteps(steps)
    after = dict(zip(few, few[1:]))
    return plain(lambda x, t: denoise(x, after[t]), schedule, x, known, mask, steps, noise)


def inverted(denoise, schedule, x, known, mask, steps, noise):
    return plain(denoise, schedule, x, known, 1 - mask, steps, noise)


@painting
def noisy_end(alpha, sigma, t, s, known, noise):
    s = s or t
    return alpha[s] * known + sigma[s] * noise


@painting
def no_last_paste(alpha, sigma, t, s, known, noise):
    return alpha[s] * known + sigma[s] * noise if s > 0 else None


def early(denoise, schedule, x, known, mask, steps, noise, last=False):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        x = mask * x + (1 - mask) * schedule.add_noise(known, t, noise)
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * eps
    return mask * x + (1 - mask) * known if last else x


def early_and_last(denoise, schedule, x, known, mask, steps, noise):
    return early(denoise, schedule, x, known, mask, steps, noise, last=True)


@painting
def swapped(alpha, sigma, t, s, known, noise):
    return sigma[s] * known + alpha[s] * noise


@painting
def does_not_fade(alpha, sigma, t, s, known, noise):
    return known + sigma[s] * noise


@painting
def squared(alpha, sigma, t, s, known, noise):
    return alpha[s] * known + sigma[s] ** 2 * noise


@painting
def only_faded(alpha, sigma, t, s, known, noise):
    return alpha[s] * known


def own_eps(denoise, schedule, x, known, mask, steps, noise):
    times = schedule.timesteps(steps)
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x0 = mask * x0 + (1 - mask) * known
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * eps
    return x


def in_the_estimate(denoise, schedule, x, known, mask, steps, noise):
    *_, step = ddim(lambda x, t: mask * denoise(x, t) + (1 - mask) * known, schedule, x, steps)
    return step.x


def fresh(denoise, schedule, x, known, mask, steps, noise):
    return plain(denoise, schedule, x, known, mask, steps, torch.randn_like(known))


def in_place(denoise, schedule, x, known, mask, steps, noise):
    x.copy_(plain(denoise, schedule, x, known, mask, steps, noise))
    return x


def noise_in_place(denoise, schedule, x, known, mask, steps, noise):
    result = plain(denoise, schedule, x, known, mask, steps, noise)
    noise *= 0
    return result


def nothing(denoise, schedule, x, known, mask, steps, noise):
    plain(denoise, schedule, x, known, mask, steps, noise)


def a_pair(denoise, schedule, x, known, mask, steps, noise):
    return plain(denoise, schedule, x, known, mask, steps, noise), mask


WRONG = {
    "only at the end": [as_reported, pasted_after_the_loop],
    "nothing pasted": [forgotten],
    "clean at each step": [clean],
    "asked at s": [asks_ahead],
    "noised at t": [at_t],
    "mask inverted": [inverted],
    "left noisy at the end": [noisy_end],
    "not pasted at the end": [no_last_paste],
    "pasted before the update": [early, early_and_last],
    "exchanged": [swapped],
    "picture does not fade": [does_not_fade],
    "variance": [squared],
    "no noise": [only_faded],
    "noise of the sampler": [own_eps],
    "into the estimate": [in_the_estimate],
    "draws its own noise": [fresh],
    "in place": [in_place, noise_in_place],
    "none": [nothing],
    "type": [a_pair],
}


@painting
def minus(alpha, sigma, t, s, known, noise):
    return alpha[s] * known - sigma[s] * noise


@painting
def one_time_late(alpha, sigma, t, s, known, noise):
    return alpha[s + 1] * known + sigma[s + 1] * noise


def a_step_too_few(denoise, schedule, x, known, mask, steps, noise):
    return plain(denoise, schedule, x, known, mask, max(steps - 1, 1), noise)


def sums_up(denoise, schedule, x, known, mask, steps, noise):
    return plain(denoise, schedule, x, known, mask, steps, noise) + (1 - mask) * known


def half_precision(denoise, schedule, x, known, mask, steps, noise):
    return plain(denoise, schedule, x, known, mask, steps, noise).half()


def clipped(denoise, schedule, x, known, mask, steps, noise):
    return plain(denoise, schedule, x, known, mask, steps, noise).clamp(-0.5, 0.5)


UNKNOWN = [minus, one_time_late, a_step_too_few, sums_up, half_precision, clipped]
