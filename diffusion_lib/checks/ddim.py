"""Exercise 22: DDIM, down and up."""

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._walks import CAUSES, judge_walks, walk_of
from diffusion_lib.schedules import cosine_schedule, flow_schedule, linear_schedule


def right(denoise, schedule, x, times):
    start = x
    alpha = schedule.alpha
    sigma = schedule.sigma
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        seen = x - alpha[t] * x0
        eps = seen / sigma[t] if sigma[t] > 0 else 0 * start
        x = alpha[s] * x0 + sigma[s] * eps
    return x


TABLE = Table(
    right,
    """
the first noise | eps = seen / sigma[t] if sigma[t] > 0 else 0 * start -> eps = start
    you put the noise back that the walk began with; it must be found anew from x at each step
answer taken for noise | x0 = denoise(x, t) -> x0 = (x - sigma[t] * denoise(x, t)) / alpha[t].clamp(min=1e-9)
    denoise gives an estimate of the picture, x0, not of the noise
exchanged | alpha[s] * x0 + sigma[s] * eps -> sigma[s] * x0 + alpha[s] * eps
    alpha_s belongs to the picture and sigma_s to the noise; here they have changed places
noise of the wrong time | alpha[t] * x0 -> alpha[s] * x0 ;; seen / sigma[t] if sigma[t] > 0 -> seen / sigma[s] if sigma[s] > 0
    the noise in x is that of the time where you are, t: take alpha_t and sigma_t to find it
divided by the variance | seen / sigma[t] -> seen / sigma[t] ** 2
    eps = (x - alpha_t x0) / sigma_t: you divide by sigma_t², the variance
not divided | seen / sigma[t] -> seen
    what is left of x without the picture is sigma_t · eps: divide it by sigma_t
variance of the new noise | sigma[s] * eps -> sigma[s] ** 2 * eps
    the new noise has standard deviation sigma_s, not sigma_s²
picture not scaled | alpha[s] * x0 + -> x0 +
    at time s the picture is there in the share alpha_s
sign | + sigma[s] * eps -> - sigma[s] * eps
    the noise is subtracted where it should be added, or the other way round
picture not removed | x - alpha[t] * x0 -> x - x0
    to find the noise in x, take the picture out first: x - alpha_t x0
stays at the old level | + sigma[s] * eps -> + sigma[t] * eps
    you put the *old* amount of noise back: the step leads to time s
stands still at 0 | x = alpha[s] * x0 + sigma[s] * eps -> x = alpha[s] * x0 + sigma[s] * eps if sigma[t] > 0 else x
    a step up from a clean x leads to alpha_s · x0, too: only its noise is unknown, and taken as 0
sorted | alpha = -> times = sorted(times, reverse=True); alpha =
    the times are sorted; walk through them in the order in which they are given
"""
    + CAUSES,
)


@exercise(
    22,
    "A thousand calls for one picture",
    'notebook 05, "The noise is a choice"',
    "x_s = alpha_s x0 + sigma_s eps,   eps = (x_t - alpha_t x0) / sigma_t",
    "The same picture from the same noise, in as few steps as you like, and the way back up.",
)
def ddim(answer) -> None:
    """answer(denoise, schedule, x, times) -> x at the last of the times, by one call a step."""
    cosine, linear, flow = cosine_schedule(100), linear_schedule(60), flow_schedule(50)
    down = [
        walk_of(cosine, 100, 71, 64, 30, 12, 5, 0),
        walk_of(linear, 60, 51, 20, 7, 0, shape=(2, 3, 4, 4)),
        walk_of(flow, 50, 41, 30, 12, 3, 0, shape=(5, 1)),
    ]
    judge_walks(answer, down, TABLE, "ddim")
    up = [
        walk_of(cosine, 3, 8, 40, 77, 100),
        walk_of(linear, 40, 22, 9, shape=(2, 1, 3, 3)),
        walk_of(flow, 20, 44, 35, 1, shape=(4, 1)),
    ]
    judge_walks(answer, up, TABLE, "ddim")
    ends = [walk_of(linear, 0, 4, 33, 60), walk_of(cosine, 0, 50, 0), walk_of(flow, 50, 0)]
    judge_walks(answer, ends, TABLE, "ddim")
