import torch

from diffusion_lib import Cond


def two_calls(denoiser, cond, null, scale):
    def denoise(x, t):
        without = denoiser(x, t, null)
        return without + scale * (denoiser(x, t, cond) - without)

    return denoise


def one_stacked_call(denoiser, cond, null, scale):
    both = Cond(
        torch.cat([cond.context, null.context]),
        None if cond.mask is None else torch.cat([cond.mask, null.mask]),
    )

    def denoise(x, t):
        heard, unheard = denoiser(x.repeat(2, *[1] * (x.ndim - 1)), t, both).chunk(2)
        return (1 - scale) * unheard + scale * heard

    return denoise


class ByLerp:
    def __init__(self, denoiser, cond, null, scale):
        self.all = denoiser, cond, null, scale

    def __call__(self, x, t):
        denoiser, cond, null, scale = self.all
        return torch.lerp(denoiser(x, t, null), denoiser(x, t, cond), scale)


def from_the_prompt(denoiser, cond, null, scale):
    """The paper's form, with its w counted from here."""
    w = scale - 1

    @torch.no_grad()
    def denoise(x, t):
        if w == 0:
            return denoiser(x, t, cond)
        return (1 + w) * denoiser(x, t, cond) - w * denoiser(x, t, null)

    return denoise


def picture_by_picture(denoiser, cond, null, scale):
    def row(c, i):
        return Cond(*(None if part is None else part[i : i + 1] for part in c))

    def denoise(x, t):
        out = []
        for i in range(len(x)):
            c, n = (denoiser(x[i : i + 1], t, row(k, i)) for k in (cond, null))
            out.append(n + scale * (c - n))
        return torch.cat(out)

    return denoise


RIGHT = [two_calls, one_stacked_call, ByLerp, from_the_prompt, picture_by_picture]


def as_in_the_repository(denoiser, cond, null, scale):
    """The unconditional branch is trained, and never used."""

    def denoise(x, t):
        return denoiser(x, t, cond)

    return denoise


def mixed(formula):
    def guidance(denoiser, cond, null, scale):
        def denoise(x, t):
            return formula(denoiser(x, t, cond), denoiser(x, t, null), scale, x)

        return denoise

    return guidance


def keeps_the_null(denoiser, cond, null, scale):
    memory = {}

    def denoise(x, t):
        if "null" not in memory:
            memory["null"] = denoiser(x, t, null)
        return memory["null"] + scale * (denoiser(x, t, cond) - memory["null"])

    return denoise


def three_calls(denoiser, cond, null, scale):
    def denoise(x, t):
        return denoiser(x, t, null) + scale * (denoiser(x, t, cond) - denoiser(x, t, null))

    return denoise


def in_place(denoiser, cond, null, scale):
    def denoise(x, t):
        n = denoiser(x, t, null)
        c = denoiser(x, t, cond)
        return x.copy_(n + scale * (c - n))

    return denoise


def nothing(denoiser, cond, null, scale):
    def denoise(x, t):
        two_calls(denoiser, cond, null, scale)(x, t)

    return denoise


def no_function(denoiser, cond, null, scale):
    two_calls(denoiser, cond, null, scale)


def a_number(denoiser, cond, null, scale):
    return scale


def on_the_cpu(denoiser, cond, null, scale):
    def denoise(x, t):
        total = torch.zeros(x.shape, dtype=x.dtype)
        n = denoiser(x, t, null)
        return total + n + torch.ones(x.shape).to(x.dtype) * scale * (denoiser(x, t, cond) - n)

    return denoise


WRONG = {
    "not guided": [as_in_the_repository],
    "null alone": [mixed(lambda c, n, s, x: n)],
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
    "null remembered": [keeps_the_null],
    "too many calls": [three_calls],
    "in place": [in_place],
    "none": [nothing, no_function],
    "type": [a_number],
    "device": [on_the_cpu],
}


def words_and_null_mixed(denoiser, cond, null, scale):
    """Guides the words in place of the answers."""
    between = Cond(null.context + scale * (cond.context - null.context), cond.mask)
    return lambda x, t: denoiser(x, t, between)


def rescaled(denoiser, cond, null, scale):
    def denoise(x, t):
        c, n = denoiser(x, t, cond), denoiser(x, t, null)
        g = n + scale * (c - n)
        return g * c.std() / g.std()

    return denoise


def a_step_late(denoiser, cond, null, scale):
    return lambda x, t: two_calls(denoiser, cond, null, scale)(x, t - 1)


def opened(denoiser, cond, null, scale):
    return lambda x, t: two_calls(denoiser, cond.context, null.context, scale)(x, t)


UNKNOWN = [words_and_null_mixed, rescaled, a_step_late, opened]
