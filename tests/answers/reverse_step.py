import math

import torch
from torch.distributions import Normal


def textbook(xt, t, eps, z, schedule):
    alpha2 = schedule.alpha.double() ** 2
    beta = 1 - alpha2[t] / alpha2[t - 1]
    mean = (xt - beta / (1 - alpha2[t]).sqrt() * eps) / (1 - beta).sqrt()
    return (mean + (beta * (1 - alpha2[t - 1]) / (1 - alpha2[t])).sqrt() * z).to(xt.dtype)


def in_floats(xt, t, eps, z, schedule):
    a, s = schedule.alpha.tolist(), schedule.sigma.tolist()
    beta = 1 - a[t] ** 2 / a[t - 1] ** 2
    x = (xt - beta / s[t] * eps) / math.sqrt(1 - beta)
    return x + s[t - 1] / s[t] * math.sqrt(beta) * z if t > 1 else x


def by_the_posterior(xt, t, eps, z, schedule):
    (a, s), (b, r) = schedule.at(t, like=xt), schedule.at(t - 1, like=xt)
    x0, beta = (xt - s * eps) / a, 1 - (a / b) ** 2
    mean = b * beta / s**2 * x0 + a / b * r**2 / s**2 * xt
    return mean + torch.sqrt(r**2 / s**2 * beta) * z


def as_ddim_with_eta_one(xt, t, eps, z, schedule):
    a, s = schedule.alpha.double(), schedule.sigma.double()
    x0 = (xt.double() - s[t] * eps) / a[t]
    tau2 = (s[t - 1] / s[t]) ** 2 * (1 - (a[t] / a[t - 1]) ** 2)
    x = a[t - 1] * x0 + (s[t - 1] ** 2 - tau2).clamp(min=0).sqrt() * eps + tau2.sqrt() * z
    return x.to(xt.dtype)


def by_sums_of_precisions(xt, t, eps, z, schedule):
    """Bayes' rule: the precisions of the two bells add up, and so do their weighted means."""
    if t == 1:
        return (xt - schedule.sigma[1] * eps) / schedule.alpha[1]
    a, s = schedule.alpha.double(), schedule.sigma.double()
    k = a[t] / a[t - 1]
    forward, start = Normal(xt / k, (1 - k**2).sqrt() / k), Normal(0.0, s[t - 1])
    x0 = (xt.double() - s[t] * eps) / a[t]
    one, two = 1 / forward.variance, 1 / start.variance
    mean = (one * forward.mean + two * a[t - 1] * x0) / (one + two)
    return (mean + z / (one + two).sqrt()).to(xt.dtype)


RIGHT = [textbook, in_floats, by_the_posterior, as_ddim_with_eta_one, by_sums_of_precisions]


def betas(schedule):
    """(T + 1,): beta of step t at index t, and 0 in front."""
    alpha2 = schedule.alpha.double() ** 2
    return torch.cat([torch.zeros(1), 1 - alpha2[1:] / alpha2[:-1]])


def tilde(t, schedule):
    return (betas(schedule)[t].sqrt() * schedule.sigma[t - 1] / schedule.sigma[t]).item()


def the_starter(xt, t, eps, z, schedule):
    alpha, sigma = schedule.alpha, schedule.sigma
    beta = 1 - (alpha[t] / alpha[t - 1]) ** 2
    mean = (xt - beta / sigma[t] * z) * eps
    return mean + sigma[t - 1] / sigma[t] * beta.sqrt() * z


def as_in_the_repository(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    noise = math.sqrt(b) * z
    mean = (xt - noise * (b / schedule.sigma[t])) * eps
    return mean + noise


def places_exchanged(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    return (xt - b / schedule.sigma[t] * z) / math.sqrt(1 - b) + tilde(t, schedule) * eps


def no_factor(xt, t, eps, z, schedule):
    return xt - betas(schedule)[t].float() / schedule.sigma[t] * eps + tilde(t, schedule) * z


def shrinks(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    mean = math.sqrt(1 - b) * (xt - b / schedule.sigma[t] * eps)
    return mean + tilde(t, schedule) * z


def divides_by_retention(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    return (xt - b / schedule.sigma[t] * eps) / (1 - b) + tilde(t, schedule) * z


def confuses_alphas(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    mean = (xt - b / schedule.sigma[t] * eps) / schedule.alpha[t]
    return mean + tilde(t, schedule) * z


def no_root_below(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    mean = (xt - b / (1 - schedule.alpha[t] ** 2) * eps) / math.sqrt(1 - b)
    return mean + tilde(t, schedule) * z


def nothing_below(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    return (xt - b * eps) / math.sqrt(1 - b) + tilde(t, schedule) * z


def root_too_many(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    mean = (xt - math.sqrt(b) / schedule.sigma[t] * eps) / math.sqrt(1 - b)
    return mean + tilde(t, schedule) * z


def plus(xt, t, eps, z, schedule):
    return textbook(xt, t, -eps, z, schedule)


def original_course(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    mean = (xt - b / schedule.sigma[t] * eps) / math.sqrt(1 - b)
    return mean + (math.sqrt(b) * z if t > 1 else 0)


def original_course_unguarded(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    return (xt - b / schedule.sigma[t] * eps) / math.sqrt(1 - b) + math.sqrt(b) * z


def beta_tilde_itself(xt, t, eps, z, schedule):
    return textbook(xt, t, eps, tilde(t, schedule) * z, schedule)


def beta_itself(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    return textbook(xt, t, eps, 0 * z, schedule) + (b * z if t > 1 else 0)


def ratio_not_squared(xt, t, eps, z, schedule):
    ratio, b = schedule.sigma[t - 1] / schedule.sigma[t], betas(schedule)[t].float()
    return textbook(xt, t, eps, 0 * z, schedule) + (ratio * b).sqrt() * z


def ratio_upside_down(xt, t, eps, z, schedule):
    ratio, b = schedule.sigma[t] / schedule.sigma[t - 1], betas(schedule)[t].item()
    return textbook(xt, t, eps, 0 * z, schedule) + ratio * math.sqrt(b) * z


def bracket_missing(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    return xt - b / schedule.sigma[t] * eps / math.sqrt(1 - b) + tilde(t, schedule) * z


def bracket_missing_and_root_beta(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    return xt - b / schedule.sigma[t] * eps / math.sqrt(1 - b) + math.sqrt(b) * z


def all_in_the_bracket(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    return (xt - b / schedule.sigma[t] * eps + tilde(t, schedule) * z) / math.sqrt(1 - b)


def root_beta_in_the_bracket(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    return (xt - b / schedule.sigma[t] * eps + math.sqrt(b) * z) / math.sqrt(1 - b)


def mean_alone(xt, t, eps, z, schedule):
    return textbook(xt, t, eps, torch.zeros_like(z), schedule)


def betas_without_squares(xt, t, eps, z, schedule):
    s = schedule.sigma
    b = 1 - schedule.alpha[t] / schedule.alpha[t - 1]
    return (xt - b / s[t] * eps) / torch.sqrt(1 - b) + s[t - 1] / s[t] * torch.sqrt(b) * z


def beta_of_all_steps(xt, t, eps, z, schedule):
    a, s = schedule.alpha[t], schedule.sigma[t]
    return (xt - s * eps) / a + schedule.sigma[t - 1] * z


def late(xt, t, eps, z, schedule):
    return textbook(xt, t + 1, eps, z, schedule)


def early(xt, t, eps, z, schedule):
    return textbook(xt, t - 1, eps, z, schedule)


def noise_at_the_end(xt, t, eps, z, schedule):
    x = textbook(xt, t, eps, z, schedule)
    return x if t > 1 else x + betas(schedule)[1].sqrt().item() * z


def quiet_from_two(xt, t, eps, z, schedule):
    return textbook(xt, t, eps, z if t > 2 else 0 * z, schedule)


def in_place(xt, t, eps, z, schedule):
    b = betas(schedule)[t].item()
    xt -= b / schedule.sigma[t] * eps
    return xt / math.sqrt(1 - b) + tilde(t, schedule) * z


def nothing(xt, t, eps, z, schedule):
    textbook(xt, t, eps, z, schedule)


def an_array(xt, t, eps, z, schedule):
    return textbook(xt, t, eps, z, schedule).numpy()


WRONG = {
    "multiplied by the prediction": [the_starter],
    "multiplied by the prediction + root of beta": [as_in_the_repository],
    "noises exchanged": [places_exchanged],
    "no factor": [no_factor],
    "factor upside down": [shrinks],
    "no root in the factor": [divides_by_retention],
    "bracket missing": [bracket_missing],
    "bracket missing + root of beta": [bracket_missing_and_root_beta],
    "fresh noise in the bracket": [all_in_the_bracket],
    "fresh noise in the bracket + root of beta": [root_beta_in_the_bracket],
    "ratio upside down": [ratio_upside_down],
    "divided by alpha": [confuses_alphas],
    "variance below the fraction": [no_root_below],
    "beta alone": [nothing_below],
    "root of beta in the mean": [root_too_many],
    "sign": [plus],
    "root of beta": [original_course, original_course_unguarded],
    "variance": [beta_tilde_itself, beta_itself],
    "ratio not squared": [ratio_not_squared],
    "no fresh noise": [mean_alone],
    "beta without squares": [betas_without_squares],
    "all noise at once": [beta_of_all_steps],
    "one step late": [late],
    "one step early": [early],
    "noise in the last step": [noise_at_the_end],
    "quiet too early": [quiet_from_two],
    "in place": [in_place],
    "none": [nothing],
    "type": [an_array],
}


def its_own_noise(xt, t, eps, z, schedule):
    z = torch.randn(xt.shape, generator=torch.Generator().manual_seed(0))
    return textbook(xt, t, eps, z, schedule)


def half_a_step(xt, t, eps, z, schedule):
    return (xt + textbook(xt, t, eps, z, schedule)) / 2


def one_number_for_all(xt, t, eps, z, schedule):
    return textbook(xt, t, eps, z.flatten()[0].expand_as(z), schedule)


def means_over_the_batch(xt, t, eps, z, schedule):
    return textbook(xt, t, eps, z, schedule).mean(dim=0)


UNKNOWN = [its_own_noise, half_a_step, one_number_for_all, means_over_the_batch]
