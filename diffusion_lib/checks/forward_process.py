"""Exercise 02: the forward process."""

import torch

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.schedules import cosine_schedule, flow_schedule, linear_schedule


def right(x0, t, eps, schedule):
    alpha, sigma = schedule.at(t, like=x0)
    return alpha * x0 + sigma * eps


TABLE = Table(
    right,
    """
untouched picture | alpha * x0 + sigma -> x0 + alpha
    the noise is scaled, by alpha, and the picture is not: it must fade as the noise grows
picture does not fade | alpha * x0 -> x0
    the picture is not scaled: it must fade by alpha
variance | sigma * eps -> sigma**2 * eps
    you scaled the noise by its variance, sigma², not by its standard deviation, sigma
alpha squared | alpha * x0 -> alpha**2 * x0
    you scaled the picture by alpha², not by alpha
both squared | alpha * x0 + sigma -> alpha**2 * x0 + sigma**2
    these are the squares of alpha and sigma; take the roots
exchanged | alpha, sigma = -> sigma, alpha =
    alpha and sigma have changed places
one step late | at(t, -> at((t + 1).clamp(max=schedule.T),
    you look up t + 1 in the schedule: index t is step t
one step early | at(t, -> at((t - 1).clamp(min=0),
    you look up t - 1 in the schedule: index t is step t
sign | + sigma -> - sigma
    the noise is subtracted
one time for all | at(t, -> at(t[:1].expand_as(t),
    each picture has a time of its own: t has one entry a picture
roots | alpha * x0 + sigma -> alpha.sqrt() * x0 + sigma.sqrt()
    alpha and sigma are standard deviations already: no roots of them
root of one minus alpha² | return alpha * x0 + sigma * eps -> return alpha * x0 + (1 - alpha**2).clamp(min=0).sqrt() * eps
    √(1 - alpha²) is sigma on some schedules only; take schedule.sigma
straight line | alpha * x0 -> (1 - sigma) * x0
    the picture's share is alpha; it is 1 - sigma on the straight line of flow matching only
alpha for both | alpha * x0 + sigma * eps -> alpha * (x0 + sigma * eps)
    the brackets let alpha scale the noise, too
time turned round | at(t, -> at(schedule.T - t,
    you look up T - t in the schedule: index 0 is clean, index T is noise
clamped | alpha * x0 + sigma * eps -> (alpha * x0 + sigma * eps).clamp(-1, 1)
    noisy pictures reach far beyond [-1, 1]; clamped, the noise has lost its tails
noise not scaled | sigma * eps -> eps
    the noise is not scaled: it must grow by sigma
""",
)


@exercise(
    2,
    "The noisy picture is the picture plus noise",
    'notebook 01, "All steps at once"',
    "x_t = alpha_t · x_0 + sigma_t · eps",
    "The picture fades as the noise grows, and the sum keeps its size.",
)
def forward_process(answer) -> None:
    """answer(x0, t, eps, schedule) -> x_t. x0, eps: (B, …); t: (B,) integers in 0…T."""
    generator = torch.Generator().manual_seed(2)

    def case(schedule, times, *shape):
        x0 = torch.rand((len(times), *shape), generator=generator) * 2 - 1
        eps = torch.randn(x0.shape, generator=generator)
        return x0, torch.tensor(times), eps, schedule

    linear, cosine, flow = linear_schedule(50), cosine_schedule(100), flow_schedule(20)
    cases = [
        case(linear, [7, 31, 48, 25], 3, 8, 8),
        case(cosine, [88, 3, 12, 61, 50], 2),
        case(flow, [4, 17, 10], 4, 6),
    ]
    judge(answer, cases, TABLE, "forward_process", guards="row double view")
    ends = [case(s, [0, s.T, 1, s.T, 0], 3, 2) for s in (linear, cosine, flow)]
    judge(answer, ends, TABLE, "forward_process", guards="double")
