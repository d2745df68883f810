"""Exercise 23: inpainting."""

from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._stages import use_of_generator
from diffusion_lib.schedules import Schedule, cosine_schedule, flow_schedule, linear_schedule


def right(denoise, schedule, x, known, mask, steps, generator):
    times = schedule.timesteps(steps)
    alpha, sigma = schedule.alpha, schedule.sigma
    for t, s in zip(times, times[1:]):
        guess = denoise(x, t)
        x0 = mask * guess + (1 - mask) * known
        z = torch.randn(x.shape, generator=generator)
        x = alpha[s] * x0 + sigma[s] * z
    return x


DDIM = "x = alpha[s] * guess + sigma[s] * (x - alpha[t] * guess) / sigma[t]"
NOISED = "(1 - mask) * (alpha[s] * known + sigma[s] * z)"
TABLE = Table(
    right,
    f"""
only at the end | mask * guess + (1 - mask) * known -> guess if s else mask * guess + (1 - mask) * known
only at the end | x = alpha[s] * x0 + sigma[s] * z -> {DDIM} ;; return x -> return mask * x + (1 - mask) * known
    the known picture is put in at the end alone: while painting, the network never saw it, so what it
    painted does not fit
nothing pasted | mask * guess + (1 - mask) * known -> guess
nothing pasted | x = alpha[s] * x0 + sigma[s] * z -> {DDIM}
    the known picture is not put in anywhere
not pasted at the end | mask * guess + (1 - mask) * known -> mask * guess + (1 - mask) * known if s else guess
    the last guess is returned as it is: put the known picture into that one, too
noise of the sampler | z = torch.randn(x.shape, generator=generator) -> z = (x - alpha[t] * x0) / sigma[t]
noise of the sampler | z = torch.randn(x.shape, generator=generator) -> z = (x - alpha[t] * guess) / sigma[t]
    you keep the noise that is in x, as DDIM does, and with it all that was decided before the halves
    agreed: draw it anew
noised into x | x = alpha[s] * x0 + sigma[s] * z -> {DDIM}; x = mask * x + {NOISED}
noised into x | x = alpha[s] * x0 + sigma[s] * z -> {DDIM} if s else guess; x = mask * x + {NOISED}
    this is the way of the report: only the known half gets new noise, and what is painted keeps its own
old noise in what is known | sigma[s] * z -> sigma[s] * (mask * z + (1 - mask) * (x - alpha[t] * x0) / sigma[t])
    only what is painted gets new noise; all of x needs it
noise drawn once | times = -> once = torch.randn(x.shape, generator=generator); times = ;; z = torch.randn(x.shape, generator=generator) -> z = once
    one noise is drawn for the whole walk: draw a new one in each step
one noise for all | torch.randn(x.shape, -> torch.randn(x.shape[1:],
    all pictures get the same noise: draw it in the shape of x
clean at each step | x = alpha[s] * x0 + sigma[s] * z -> x = mask * (alpha[s] * x0 + sigma[s] * z) + (1 - mask) * known
clean at each step | x = alpha[s] * x0 + sigma[s] * z -> {DDIM}; x = mask * x + (1 - mask) * known
    the known picture is put clean into the noisy x: put it into the guess, which is clean, and noise
    all of that
asked at s | denoise(x, t) -> denoise(x, s)
    the network is asked at time s, where x is still as noisy as at t: ask at t, then step to s
noised at t | x = alpha[s] * x0 + sigma[s] * z -> x = alpha[t] * x0 + sigma[t] * z
    the guess gets the noise of time t, where the step began; it must get that of s
mask inverted | mask * guess + (1 - mask) * known -> (1 - mask) * guess + mask * known
    the mask is the wrong way round: 1 is where something new is painted
left noisy at the end | x = alpha[s] * -> r = s or t; x = alpha[r] * ;; sigma[s] * z -> sigma[r] * z
    the last picture has noise in it: at time 0 there is none
exchanged | alpha[s] * x0 + sigma[s] * z -> sigma[s] * x0 + alpha[s] * z
    alpha and sigma have changed places: the picture is scaled by alpha_s, the noise by sigma_s
picture does not fade | alpha[s] * x0 -> x0
    the picture is not scaled: it must fade by alpha_s
variance | sigma[s] * z -> sigma[s] ** 2 * z
    the noise is scaled by its variance, sigma², not by its standard deviation
no noise | + sigma[s] * z ->
    the guess fades by alpha_s, but no noise is added to it
root of one minus alpha² | sigma[s] * z -> (1 - alpha[s] ** 2).sqrt() * z
    √(1 - alpha²) is sigma on some schedules only; take schedule.sigma
guess clamped | guess = denoise(x, t) -> guess = denoise(x, t).clamp(-1, 1)
guess clamped | mask * guess + (1 - mask) * known -> (mask * guess + (1 - mask) * known).clamp(-1, 1)
    the guess is clamped to -1…1, which was not asked for: take it as it is
generator set back
    the generator is set back by your code, so that it paints the same picture again and again: draw
    from it, and leave it where it is then
""",
)


def guess_of(T: int) -> Any:
    """A stand-in for a network, which looks at the neighbours, so that a paste is felt next door."""

    def denoise(x: Tensor, t: Any) -> Tensor:
        t = torch.as_tensor(t).reshape(-1, 1, 1, 1) / T
        near = x.roll(1, -1) + x.roll(1, -2) - 0.5 * x.roll(2, -1) + 0.3 * x.flip(-1)
        return 1.3 * torch.tanh((0.4 + 0.6 * (1 - t)) * x + 0.5 * near + 0.2 * t)

    return denoise


@exercise(
    23,
    "The new half does not know the old one",
    'notebook 05, "The noise is a choice"',
    "x_s = alpha_s · (mask · D(x_t, t) + (1 - mask) · known) + sigma_s · z,   z ~ N(0, 1) anew in each step",
    "What is painted fits what was there.",
)
def inpainting(answer) -> None:
    """answer(denoise, schedule, x, known, mask, steps, generator) -> (B, C, H, W). mask: 1 = new."""
    generator = torch.Generator().manual_seed(23)

    def case(schedule: Schedule, steps: int, *shape: int) -> tuple:
        x = torch.randn(shape, generator=generator)
        known = torch.rand(shape, generator=generator) * 3 - 1.5
        mask = (torch.rand(shape[0], 1, *shape[2:], generator=generator) < 0.5).float()
        own = torch.Generator().manual_seed(steps)
        return guess_of(schedule.T), schedule, x, known, mask, steps, own

    cases = [
        case(linear_schedule(60, 0.002, 0.1), 6, 2, 3, 8, 8),
        case(cosine_schedule(100), 9, 3, 1, 4, 10),
        case(flow_schedule(20), 4, 1, 4, 6, 6),
        case(cosine_schedule(40), 1, 2, 3, 4, 4),
        case(flow_schedule(7), 7, 2, 2, 3, 3),
    ]
    judge(answer, cases, TABLE, "inpainting")
    used = use_of_generator(lambda own: answer(*cases[0][:-1], own))
    TABLE.demand(used == "drawn from", "generator set back", "`inpainting` is right once.")
