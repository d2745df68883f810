"""Exercise 03: one step of the way back."""

import torch

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.schedules import cosine_schedule, linear_schedule


def right(xt, t, eps, z, schedule):
    alpha, sigma = schedule.alpha.double(), schedule.sigma.double()
    beta = 1 - (alpha[t] / alpha[t - 1]) ** 2
    std = beta.sqrt() * sigma[t - 1] / sigma[t]
    mean = (xt - beta / sigma[t] * eps) / (1 - beta).sqrt()
    return (mean + std * z).to(xt.dtype)


TABLE = Table(
    right,
    """
multiplied by the prediction | (xt - beta / sigma[t] * eps) / (1 - beta).sqrt() -> (xt - beta / sigma[t] * z) * eps
multiplied by the prediction | (xt - beta / sigma[t] * eps) / (1 - beta).sqrt() -> (xt - beta.sqrt() * z) * eps
multiplied by the prediction | (xt - beta / sigma[t] * eps) / (1 - beta).sqrt() -> (xt - beta / sigma[t] * beta.sqrt() * z) * eps
    the mean subtracts the *fresh* noise, and is then multiplied by the predicted one: the two have
    changed places, and the predicted noise stands where a factor made of beta should
noises exchanged | sigma[t] * eps) -> sigma[t] * z) ;; std * z -> std * eps
    fresh and predicted noise have changed places: the one you know is to be taken out
no factor | / (1 - beta).sqrt() ->
    the mean is never divided: a step forwards shrinks x, so a step back must enlarge it
factor upside down | / (1 - beta).sqrt() -> * (1 - beta).sqrt()
    you shrink the mean once more, where the step back must enlarge it
no root in the factor | (1 - beta).sqrt() -> (1 - beta)
    the mean is divided by 1 - beta_t: too much, a root is missing
bracket missing | (xt - beta / sigma[t] * eps) -> xt - (beta / sigma[t] * eps)
    only the predicted noise is divided; the division is of the whole difference, x_t too
fresh noise in the bracket | std * z -> std * z / (1 - beta).sqrt()
    the fresh noise is divided with the mean; it is added after the division
divided by alpha | (1 - beta).sqrt() -> alpha[t]
    the mean is divided by alpha_t, which undoes *all* steps; this is one step. (What papers call
    alpha_t is 1 - beta_t)
variance below the fraction | beta / sigma[t] * eps -> beta / sigma[t] ** 2 * eps
    beta_t is divided by sigma_t², a variance; a root is missing below the fraction
beta alone | beta / sigma[t] * eps -> beta * eps
    the predicted noise is taken out with weight beta_t; something is missing below it
root of beta in the mean | beta / sigma[t] * eps -> beta.sqrt() / sigma[t] * eps
    the predicted noise is taken out with weight √beta_t / sigma_t: one root too many
sign | xt - beta -> xt + beta
    the predicted noise is added; the way back takes it out
root of beta | std = beta.sqrt() * sigma[t - 1] / sigma[t] -> std = beta.sqrt()
    you add noise of standard deviation √beta_t, as the original course does. That is a fair choice
    too, but not the one wanted here: the posterior's is smaller, and 0 in the last step
variance | std * z -> std**2 * z
variance | std * z -> beta * z
    you scaled the fresh noise by a variance; z has variance 1, so take the root
ratio not squared | beta.sqrt() * sigma[t - 1] / sigma[t] -> (beta * sigma[t - 1] / sigma[t]).sqrt()
    beta-tilde has sigma_{t-1}² / sigma_t², both squared; your root is of the plain ratio
ratio upside down | sigma[t - 1] / sigma[t] -> sigma[t] / sigma[t - 1]
    beta-tilde has sigma_{t-1}² above and sigma_t² below; yours are the other way round
no fresh noise | mean + std * z -> mean
    this is the mean alone: no fresh noise is added
fresh noise not scaled | std * z -> z
    the fresh noise is not scaled: its standard deviation is √beta-tilde_t
beta without squares | (alpha[t] / alpha[t - 1]) ** 2 -> alpha[t] / alpha[t - 1]
    your beta_t is 1 - alpha_t / alpha_{t-1}: the squares are missing
all noise at once | (alpha[t] / alpha[t - 1]) ** 2 -> alpha[t] ** 2
    your beta_t is 1 - alpha_t², the noise of all steps together; this is one step
one step late | beta = -> t = t + 1; beta =
    you use the betas of step t + 1: index t is step t
one step early | beta = -> t = t - 1; beta =
    you use the betas of step t - 1: index t is step t
""",
)
ENDS = Table(
    right,
    """
noise in the last step | std = beta.sqrt() * sigma[t - 1] / sigma[t] -> std = beta.sqrt() * (sigma[t - 1] / sigma[t] if t > 1 else 1)
    at t = 1 you add fresh noise to the finished picture
quiet too early | std * z -> std * z * (t > 2)
    the step from 2 to 1 has no fresh noise; only the last one, from 1 to 0, has none
""",
)


@exercise(
    3,
    "One step back, and everything explodes",
    'notebook 05, "DDPM: the posterior, with a guess"',
    "x_{t-1} = (x_t - beta_t/sigma_t · eps) / √(1 - beta_t) + √beta-tilde_t · z,   "
    "beta-tilde_t = beta_t · sigma_{t-1}² / sigma_t²",
    "The predicted noise goes out, a little fresh noise comes in.",
)
def reverse_step(answer) -> None:
    """answer(xt, t, eps, z, schedule) -> x_{t-1}. xt, eps, z: (B, …); t: one integer in 1…T."""
    generator = torch.Generator().manual_seed(3)

    def case(schedule, t, *shape):
        xt, eps, z = torch.randn(3, *shape, generator=generator)
        return xt, t, eps, z, schedule

    linear, cosine = linear_schedule(50, 0.005, 0.2), cosine_schedule(100)
    steep = linear_schedule(8, 0.02, 0.7)
    cases = [case(linear, 20, 4, 3, 8, 8), case(cosine, 60, 5, 2), case(steep, 5, 1, 1, 4, 6)]
    judge(answer, cases, TABLE, "reverse_step", guards="double row view")
    ends = [case(s, t, 2, 3, 4, 4) for s in (linear, steep) for t in (1, 2, s.T)]
    judge(answer, ends, ENDS, "reverse_step")
