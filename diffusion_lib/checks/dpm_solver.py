"""Exercise 24: DPM-Solver++(2M)."""

import math

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._walks import CAUSES, judge_walks, walk_of
from diffusion_lib.schedules import cosine_schedule, flow_schedule, linear_schedule


def right(denoise, schedule, x, times):
    alpha = schedule.alpha
    sigma = schedule.sigma
    before, h_before = None, math.inf
    for t, s in zip(times, times[1:]):
        ends = alpha[t] == 0 or sigma[s] == 0
        h = math.inf if ends else math.log(alpha[s] / sigma[s]) - math.log(alpha[t] / sigma[t])
        d = x0 = denoise(x, t)
        if max(h, h_before) < math.inf:
            d = x0 + h / (2 * h_before) * (x0 - before)
        x = sigma[s] / sigma[t] * x + alpha[s] * (1 - math.exp(-h)) * d
        before, h_before = x0, h
    return x


TABLE = Table(
    right,
    """
first order | x0 + h / (2 * h_before) * (x0 - before) -> x0
    this is DDIM, of first order: nothing of the step before is used
ratio upside down | h / (2 * h_before) -> h_before / (2 * h)
    the two step lengths in the factor have changed places
no half | (2 * h_before) -> h_before
    the factor of the correction lacks its 1/2: half a step ahead, not a whole one
multiplied by h_before | (2 * h_before) -> 2 * h_before
    h / 2 * h_before multiplies by h_before: put 2 * h_before in brackets
length in times | h / (2 * h_before) -> h / (2 * h_before) * 0 + ratio ;; ends = -> i = times.index(t); ratio = (t - s) / (2 * (times[i - 1] - t)) if i else 0; ends =
    the factor is of lengths in lambda, and not of differences of times
remembers lambda | before, h_before = x0, h -> before, h_before = x0, math.log(alpha[t] / sigma[t]) if alpha[t] > 0 else math.inf
    you keep the lambda of the step before; h_before is that step's length, a difference of two
lambda of the whole SNR | math.log(alpha[s] / sigma[s]) - math.log(alpha[t] / sigma[t]) -> 2 * (math.log(alpha[s] / sigma[s]) - math.log(alpha[t] / sigma[t]))
    lambda is log(alpha / sigma), half of the log of the signal-to-noise ratio alpha² / sigma²
from the answer before | x0 + h / -> before + h /
    the line starts at D_t, and goes on beyond it; yours starts at D_before
noise of the old guess | x = sigma[s] / sigma[t] * x + alpha[s] * (1 - math.exp(-h)) * d -> x = alpha[s] * d + sigma[s] * (x - alpha[t] * x0) / sigma[t]
    the step is made with d for the picture and D_t for the noise: it is one d for both
guess clamped | * (x0 - before) -> * (x0 - before); d = d.clamp(-1, 1)
    the guess is clamped to -1…1, which was not asked for: take it as it is
equal steps taken for granted | h / (2 * h_before) -> 0.5
    the factor is 1/2 only where both steps are equally long; here they are not
looks backwards | x0 + h / -> x0 - h /
    the correction has the wrong sign: it leads back, towards the answer before
mean of the two | x0 + h / (2 * h_before) * (x0 - before) -> (x0 + before) / 2
    you take the mean of the two answers: that lies behind, not ahead
old memory | before, h_before = x0, h -> before, h_before = (x0, h) if before is None else (before, h_before)
    the answer that you remember is never renewed: it is that of the first step
old length | before, h_before = x0, h -> before, h_before = x0, h if h_before == math.inf else h_before
old length | before, h_before = x0, h -> h_before = h if before is None else h_before; before = x0
    the length of the step before is never renewed: it is that of an early step
corrected memory | before, h_before = x0, h -> before, h_before = d, h
    you remember d, the corrected answer; D_before is the answer itself, as denoise gave it
ratio of the alphas | sigma[s] / sigma[t] * x -> (alpha[s] / alpha[t] if alpha[t] > 0 else 0) * x
    x is to be scaled by sigma_s / sigma_t, not by alpha_s / alpha_t
sign of the picture | + alpha[s] * (1 - math -> - alpha[s] * (1 - math
    the picture is subtracted: e^-h - 1 is negative, so mind the sign before it
sigma for alpha | + alpha[s] * (1 - math -> + sigma[s] * (1 - math
    the picture's share at time s is alpha_s, not sigma_s
lambda upside down | math.log(alpha[s] / sigma[s]) - math.log(alpha[t] / sigma[t]) -> math.log(alpha[t] / sigma[t]) - math.log(alpha[s] / sigma[s])
    lambda is log(alpha / sigma), not log(sigma / alpha), and h is that of s less that of t: it is
    positive on the way down
tiny number | ends = -> a, b = alpha + 1e-8, sigma + 1e-8; ends = False; old = ;; (alpha[s] / sigma[s]) -> (a[s] / b[s]) ;; (alpha[t] / sigma[t]) -> (a[t] / b[t])
tiny number | ends = -> a, b = alpha, sigma + 1e-8; ends = alpha[t] == 0; old = ;; (alpha[s] / sigma[s]) -> (a[s] / b[s]) ;; (alpha[t] / sigma[t]) -> (a[t] / b[t])
tiny number | ends = -> a, b = alpha.clamp(min=1e-8), sigma.clamp(min=1e-8); ends = False; old = ;; (alpha[s] / sigma[s]) -> (a[s] / b[s]) ;; (alpha[t] / sigma[t]) -> (a[t] / b[t])
    with a tiny number added, the step to t = 0 is very long in place of infinitely long, and its
    correction enormous: where h is infinite, d = D_t
"""
    + CAUSES,
)


@exercise(
    24,
    "Eight calls, spent where they count",
    'notebook 08, "DPM-Solver++(2M): remember, do not ask twice"',
    "d = D_t + h/(2 h_before) (D_t - D_before),   x_s = sigma_s/sigma_t x_t + alpha_s (1 - e^-h) d",
    "One answer remembered, and the same calls lead nearer.",
)
def dpm_solver(answer) -> None:
    """answer(denoise, schedule, x, times) -> x at the last of the times, by one call a step."""
    cosine, linear, flow = cosine_schedule(100), linear_schedule(60), flow_schedule(50)
    cases = [
        walk_of(cosine, 100, 71, 64, 30, 12, 5, 0),
        walk_of(linear, 60, 51, 20, 12, 7, 0, shape=(2, 3, 4, 4)),
        walk_of(flow, 50, 45, 38, 24, 11, 3, 0, shape=(5, 1)),
        walk_of(cosine, 90, 50, 31, 7),  # last: what it leaves behind, a second call would feel
    ]
    judge_walks(answer, cases, TABLE, "dpm_solver")
    ends = [walk_of(linear, 60, 0), walk_of(flow, 50, 20, 0)]
    judge_walks(answer, ends, TABLE, "dpm_solver")
