from functools import partial

import torch

from diffusion_lib import Cond, guided


def two_calls(denoiser, cond, null, scale, interval):
    def denoise(x, t):
        told = denoiser(x, t, cond)
        if t < interval[0] or t > interval[1]:
            return told
        without = denoiser(x, t, null)
        return without + scale * (told - without)

    return denoise


def one_stacked_call(denoiser, cond, null, scale, interval):
    both = Cond.cat([cond, null])
    low, high = interval

    def denoise(x, t):
        if low <= t <= high:
            heard, unheard = denoiser(x.repeat(2, *[1] * (x.ndim - 1)), t, both).chunk(2)
            return (1 - scale) * unheard + scale * heard
        return denoiser(x, t, cond)

    return denoise


class ByLerp:
    def __init__(self, denoiser, cond, null, scale, interval):
        self.all = denoiser, cond, null, scale
        self.times = range(interval[0], interval[1] + 1)

    def __call__(self, x, t):
        denoiser, cond, null, scale = self.all
        if t not in self.times:
            return denoiser(x, t, cond)
        return torch.lerp(denoiser(x, t, null), denoiser(x, t, cond), scale)


def from_the_prompt(denoiser, cond, null, scale, interval):
    """The paper's form, with its w counted from here; outside it is 0."""

    @torch.no_grad()
    def denoise(x, t):
        w = scale - 1 if interval[0] <= t <= interval[1] else 0
        if w == 0:
            return denoiser(x, t, cond)
        return (1 + w) * denoiser(x, t, cond) - w * denoiser(x, t, null)

    return denoise


def picture_by_picture(denoiser, cond, null, scale, interval):
    def row(c, i):
        return Cond(*(None if part is None else part[i : i + 1] for part in c))

    def denoise(x, t):
        out = []
        for i in range(len(x)):
            c = n = denoiser(x[i : i + 1], t, row(cond, i))
            if not (t - interval[0]) * (t - interval[1]) > 0:
                n = denoiser(x[i : i + 1], t, row(null, i))
            out.append(n + scale * (c - n))
        return torch.cat(out)

    return denoise


RIGHT = [two_calls, one_stacked_call, ByLerp, from_the_prompt, picture_by_picture]


def mixed(formula, inside=lambda low, t, high: low <= t <= high, outside=lambda c, n: c):
    """formula(D(cond), D(null), scale, x) inside of the interval, outside(D(cond), D(null)) else."""

    def guidance(denoiser, cond, null, scale, interval):
        def denoise(x, t):
            c = denoiser(x, t, cond)
            if inside(interval[0], t, interval[1]):
                return formula(c, denoiser(x, t, null), scale, x)
            return c if outside(1, 2) == 1 else outside(c, denoiser(x, t, null))

        return denoise

    return guidance


def right(c, n, s, x):
    return n + s * (c - n)


def as_in_the_repository(denoiser, cond, null, scale, interval):
    """The unconditional branch is trained, and never used."""

    def denoise(x, t):
        return denoiser(x, t, cond)

    return denoise


def by_the_library(denoiser, cond, null, scale, interval):
    told, without = (partial(denoiser, cond=c) for c in (cond, null))
    both = guided(told, without, scale)
    return lambda x, t: both(x, t) if interval[0] <= t <= interval[1] else told(x, t)


def by_the_library_inside(denoiser, cond, null, scale, interval):
    def denoise(x, t):
        told, without = (partial(denoiser, cond=c) for c in (cond, null))
        outside = t < interval[0] or t > interval[1]
        return told(x, t) if outside else guided(told, without, scale)(x, t)

    return denoise


def keeps_the_null(denoiser, cond, null, scale, interval):
    memory = {}

    def denoise(x, t):
        if t < interval[0] or t > interval[1]:
            return denoiser(x, t, cond)
        if "null" not in memory:
            memory["null"] = denoiser(x, t, null)
        return memory["null"] + scale * (denoiser(x, t, cond) - memory["null"])

    return denoise


def keeps_all(denoiser, cond, null, scale, interval):
    memory = {}

    def ask(x, t, c, name):
        if (t, name) not in memory:
            memory[t, name] = denoiser(x, t, c)
        return memory[t, name]

    def denoise(x, t):
        told = ask(x, t, cond, "cond")
        if t < interval[0] or t > interval[1]:
            return told
        without = ask(x, t, null, "null")
        return without + scale * (told - without)

    return denoise


def keeps_whole_answers(denoiser, cond, null, scale, interval):
    inner, memory = two_calls(denoiser, cond, null, scale, interval), {}

    def denoise(x, t):
        if t not in memory:
            memory[t] = inner(x, t)
        return memory[t]

    return denoise


def stacked_by_interleaving(denoiser, cond, null, scale, interval):
    both = Cond.cat([cond, null])

    def denoise(x, t):
        if t < interval[0] or t > interval[1]:
            return denoiser(x, t, cond)
        heard, unheard = denoiser(x.repeat_interleave(2, dim=0), t, both).chunk(2)
        return unheard + scale * (heard - unheard)

    return denoise


def stacked_the_other_way(denoiser, cond, null, scale, interval):
    both = Cond.cat([null, cond])

    def denoise(x, t):
        if t < interval[0] or t > interval[1]:
            return denoiser(x, t, cond)
        answers = denoiser(x.repeat_interleave(2, dim=0), t, both).unflatten(0, (-1, 2))
        return answers[:, 0] + scale * (answers[:, 1] - answers[:, 0])

    return denoise


def one_after_a_time_outside(denoiser, cond, null, scale, interval):
    def denoise(x, t):
        nonlocal scale
        if not interval[0] <= t <= interval[1]:
            scale = 1
        return two_calls(denoiser, cond, null, scale, interval)(x, t)

    return denoise


def of_the_words(denoiser, cond, null, scale, interval):
    louder = Cond(null.context + scale * (cond.context - null.context), cond.mask)
    return lambda x, t: denoiser(x, t, louder if interval[0] <= t <= interval[1] else cond)


def with_another_null(other):
    return lambda denoiser, cond, null, *rest: two_calls(denoiser, cond, other(cond, null), *rest)


def with_another_scale(other):
    return lambda denoiser, cond, null, scale, interval: two_calls(
        denoiser, cond, null, other(scale), interval
    )


def another_x(denoiser, cond, null, scale, interval):
    def denoise(x, t):
        if interval[0] <= t <= interval[1]:
            x = denoiser(x, t, null)
            return x + scale * (denoiser(x, t, cond) - x)
        return denoiser(x, t, cond)

    return denoise


def one_mask_for_both(denoiser, cond, null, scale, interval):
    """Where one mask is missing, the other is left out as well."""
    if cond.mask is None or null.mask is None:
        cond, null = Cond(cond.context), Cond(null.context)
    return two_calls(denoiser, cond, null, scale, interval)


def three_calls(denoiser, cond, null, scale, interval):
    def denoise(x, t):
        if t < interval[0] or t > interval[1]:
            return denoiser(x, t, cond)
        return denoiser(x, t, null) + scale * (denoiser(x, t, cond) - denoiser(x, t, null))

    return denoise


def two_calls_always(denoiser, cond, null, scale, interval):
    def denoise(x, t):
        told, without = denoiser(x, t, cond), denoiser(x, t, null)
        w = scale if interval[0] <= t <= interval[1] else 1
        return without + w * (told - without)

    return denoise


def in_place(denoiser, cond, null, scale, interval):
    def denoise(x, t):
        return x.copy_(two_calls(denoiser, cond, null, scale, interval)(x, t))

    return denoise


def nothing(denoiser, cond, null, scale, interval):
    def denoise(x, t):
        two_calls(denoiser, cond, null, scale, interval)(x, t)

    return denoise


def no_function(denoiser, cond, null, scale, interval):
    two_calls(denoiser, cond, null, scale, interval)


def a_number(denoiser, cond, null, scale, interval):
    return scale


def without_an_interval(denoiser, cond, null, scale):
    return two_calls(denoiser, cond, null, scale, (0, 1000))


def on_the_cpu(denoiser, cond, null, scale, interval):
    inner = two_calls(denoiser, cond, null, scale, interval)
    return lambda x, t: torch.zeros(x.shape, dtype=x.dtype) + inner(x, t)


def in_numpy(denoiser, cond, null, scale, interval):
    inner = two_calls(denoiser, cond, null, scale, interval)
    return lambda x, t: torch.from_numpy(inner(x, t).numpy() + 0)


WRONG = {
    "library": [by_the_library, by_the_library_inside],
    "not guided": [as_in_the_repository],
    "null alone": [
        mixed(lambda c, n, s, x: n),
        mixed(lambda c, n, s, x: n, outside=lambda c, n: n),
    ],
    "counts from zero": [
        mixed(lambda c, n, s, x: (1 + s) * c - s * n),
        mixed(lambda c, n, s, x: c + s * (c - n)),
    ],
    "counts from two": [mixed(lambda c, n, s, x: n + (s - 1) * (c - n))],
    "sign": [mixed(lambda c, n, s, x: n + s * (n - c))],
    "exchanged": [mixed(lambda c, n, s, x: s * n + (1 - s) * c)],
    "null scaled": [mixed(lambda c, n, s, x: c + (s - 1) * n)],
    "all scaled": [mixed(lambda c, n, s, x: s * c)],
    "no difference": [mixed(lambda c, n, s, x: s * c + n)],
    "difference alone": [mixed(lambda c, n, s, x: s * c - s * n)],
    "added to x": [mixed(lambda c, n, s, x: x + s * (c - n))],
    "clamped": [mixed(lambda c, n, s, x: torch.clip(n + s * (c - n), -1, 1))],
    "scale fixed": [mixed(lambda c, n, s, x: n + 3 * (c - n))],
    "null remembered": [keeps_the_null],
    "answers remembered": [keeps_all, keeps_whole_answers],
    "halves mixed up": [stacked_by_interleaving, stacked_the_other_way],
    "scale lost": [one_after_a_time_outside],
    "scale 0 ignored": [with_another_scale(lambda s: s or 1)],
    "scale bounded": [with_another_scale(lambda s: max(s, 0.0))],
    "words guided": [of_the_words],
    "first null for all": [
        with_another_null(
            lambda c, n: Cond(*(None if p is None else p[:1].expand_as(p) for p in n))
        )
    ],
    "cond's mask twice": [with_another_null(lambda c, n: Cond(n.context, c.mask))],
    "x overwritten": [another_x],
    "ends alone": [mixed(right, lambda low, t, high: t in (low, high))],
    "second sign": [mixed(lambda c, n, s, x: s * c - (1 - s) * n)],
    "always guided": [mixed(right, lambda low, t, high: True)],
    "outside guided": [mixed(right, lambda low, t, high: not low <= t <= high)],
    "without the ends": [
        mixed(right, lambda low, t, high: low < t < high),
        mixed(right, lambda low, t, high: t in range(low, high)),
    ],
    "null outside": [mixed(right, outside=lambda c, n: n)],
    "too many calls": [three_calls, two_calls_always],
    "in place": [in_place],
    "none": [nothing, no_function],
    "type": [a_number],
    "signature": [without_an_interval],
    "device": [on_the_cpu, in_numpy],
    "sign + always guided": [
        mixed(lambda c, n, s, x: n + s * (n - c), lambda low, t, high: True),
    ],
}


def rescaled(denoiser, cond, null, scale, interval):
    def denoise(x, t):
        c, n = denoiser(x, t, cond), denoiser(x, t, null)
        g = n + scale * (c - n)
        return g * c.std() / g.std()

    return denoise


def a_step_late(denoiser, cond, null, scale, interval):
    return lambda x, t: two_calls(denoiser, cond, null, scale, interval)(x, t - 1)


def opened(denoiser, cond, null, scale, interval):
    return lambda x, t: two_calls(denoiser, cond.context, null.context, scale, interval)(x, t)


def scale_grows(denoiser, cond, null, scale, interval):
    """Linear in the interval, as some do."""

    def denoise(x, t):
        w = 1 + (scale - 1) * (t - interval[0]) / (interval[1] - interval[0])
        return two_calls(denoiser, cond, null, w, interval)(x, t)

    return denoise


UNKNOWN = [one_mask_for_both, rescaled, a_step_late, opened, scale_grows]
