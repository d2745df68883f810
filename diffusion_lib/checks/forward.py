"""Checks of what adds noise: schedules and the forward process."""

import math

import torch
from torch import Tensor

from diffusion_lib.checks._core import Mistake, exercise, judge, judge_schedule
from diffusion_lib.schedules import Schedule, cosine_schedule, flow_schedule, linear_schedule


def _rooted(beta: Tensor) -> Tensor:
    """(2, T+1): alpha and sigma of betas 1…T, with the clean picture in front."""
    alpha2 = torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])
    return torch.stack([alpha2.sqrt(), (1 - alpha2).sqrt()])


def _betas(T: int, first: float, last: float) -> Tensor:
    return torch.linspace(first, last, T, dtype=torch.float64)


def _no_smallest(T: int, first: float, last: float) -> Tensor:
    return _betas(T, 0.0, last - first)


def _one_number(beta: Tensor) -> Tensor:
    alpha2 = (1 - beta).log().sum().exp()
    return torch.stack([alpha2.sqrt(), (1 - alpha2).sqrt()])


def _spread(T: int, first: float, last: float, clean: bool) -> Tensor:
    alpha2 = (1 - _betas(T + 1, first, last)).cumprod(0)
    if clean:
        alpha2[0] = 1
    return torch.stack([alpha2.sqrt(), (1 - alpha2).sqrt()])


def _sigma_squared(T: int, first: float, last: float) -> Tensor:
    alpha, sigma = _rooted(_betas(T, first, last))
    return torch.stack([alpha, sigma**2])


def _not_cumulated(T: int, first: float, last: float) -> Tensor:
    alpha2 = torch.cat([torch.ones(1, dtype=torch.float64), 1 - _betas(T, first, last)])
    return torch.stack([alpha2.sqrt(), (1 - alpha2).sqrt()])


def _sigma_of_beta(right: Tensor) -> Tensor:
    """alpha as it is; sigma as the root of each step's own beta."""
    alpha2 = right[0] ** 2
    beta = 1 - alpha2[1:] / alpha2[:-1]
    return torch.stack([right[0], torch.cat([torch.zeros(1), beta.sqrt()])])


_SIGMA = "sigma is the root of 1 - alpha², the noise of all steps so far, not the root of beta"
_ONE = "the logarithms are summed to one number; each step needs its own sum of those up to it"

SCHEDULE_MISTAKES = [
    Mistake("one number", _ONE, lambda *a: _one_number(_betas(*a))),
    Mistake("one number", _ONE, lambda *a: _one_number(_no_smallest(*a))),
    Mistake("one number", _ONE, lambda T, f, e: _one_number(_betas(T + 1, 0.0, e - f))),
    Mistake("one number", _ONE, lambda T, f, e: _one_number(_betas(T + 1, f, e))),
    Mistake(
        "smallest beta",
        "the betas begin at 0 and end at last - first: the smallest beta is never added",
        lambda *a: _rooted(_no_smallest(*a)),
    ),
    Mistake(
        "no roots",
        "these are alpha² and sigma², the shares of the *variance*; alpha and sigma are their roots",
        lambda *a: _rooted(_betas(*a)) ** 2,
    ),
    Mistake("sigma of beta", _SIGMA, lambda *a: _sigma_of_beta(_rooted(_betas(*a)))),
    Mistake("sigma squared", "sigma is the root of 1 - alpha²", _sigma_squared),
    Mistake(
        "no clean index",
        "your first entry is already noisy: put alpha = 1, sigma = 0 in front, for t = 0",
        lambda *a: _rooted(_betas(*a))[:, 1:],
    ),
    Mistake(
        "spread over T + 1",
        "you spread T + 1 betas from first to last and lose the first of them to the clean index; "
        "spread T",
        lambda *a: _spread(*a, clean=True),
    ),
    Mistake(
        "index 0 is noisy",
        "you spread T + 1 betas, so that index 0 is noisy: it must be clean, and beta_1 be `first`",
        lambda *a: _spread(*a, clean=False),
    ),
    Mistake(
        "not cumulated",
        "alpha_t² is the *product* of all (1 - beta) up to t, not the last of them",
        _not_cumulated,
    ),
]


@exercise(
    1,
    "The schedule is a single number",
    'notebook 01, "All steps at once"',
    "alpha_t² = (1 - beta_1)(1 - beta_2) … (1 - beta_t),   sigma_t² = 1 - alpha_t²",
    "Every step has its own share of picture and noise.",
)
def noise_schedule(answer) -> None:
    """answer(T, first, last) -> (alpha, sigma), each (T+1,), of betas 1…T from first to last."""

    cases = [(1000, 1e-4, 0.02), (10, 0.01, 0.3), (37, 0.005, 0.1)]
    right = lambda *a: _rooted(_betas(*a)).float()  # noqa: E731
    judge_schedule(answer, cases, right, SCHEDULE_MISTAKES, "noise_schedule")


# --- 02 ------------------------------------------------------------------------------------------


def _scales(schedule: Schedule, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    shape = (-1,) + (1,) * (x.ndim - 1)
    return schedule.alpha[t].view(shape), schedule.sigma[t].view(shape)


def _mix(alpha_power: float, sigma_power: float):
    def mixed(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
        alpha, sigma = _scales(schedule, t, x0)
        return alpha**alpha_power * x0 + sigma**sigma_power * eps

    return mixed


def _exchanged(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    alpha, sigma = _scales(schedule, t, x0)
    return sigma * x0 + alpha * eps


def _alpha_on_noise(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    alpha, _ = _scales(schedule, t, x0)
    return x0 + alpha * eps


def _late(shift: int):
    def shifted(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
        return _mix(1, 1)(x0, (t + shift).clamp(0, schedule.T), eps, schedule)

    return shifted


def _subtracted(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    return _mix(1, 1)(x0, t, -eps, schedule)


def _first_time(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    return _mix(1, 1)(x0, t[:1].expand_as(t), eps, schedule)


FORWARD_MISTAKES = [
    Mistake(
        "untouched picture",
        "the noise is scaled, by alpha, and the picture is not: it must fade as the noise grows",
        _alpha_on_noise,
    ),
    Mistake(
        "picture does not fade", "the picture is not scaled: it must fade by alpha", _mix(0, 1)
    ),
    Mistake(
        "variance",
        "you scaled the noise by its variance, sigma², not by its standard deviation, sigma",
        _mix(1, 2),
    ),
    Mistake("alpha squared", "you scaled the picture by alpha², not by alpha", _mix(2, 1)),
    Mistake("both squared", "these are the squares of alpha and sigma; take the roots", _mix(2, 2)),
    Mistake("exchanged", "alpha and sigma have changed places", _exchanged),
    Mistake("one step late", "you look up t + 1 in the schedule: index t is step t", _late(1)),
    Mistake("one step early", "you look up t - 1 in the schedule: index t is step t", _late(-1)),
    Mistake("sign", "the noise is subtracted", _subtracted),
    Mistake(
        "one time for all",
        "each picture has a time of its own: t has one entry a picture",
        _first_time,
    ),
]


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
    schedules = linear_schedule(50), cosine_schedule(100), flow_schedule(20)
    cases = []
    for schedule, shape in zip(schedules, [(4, 3, 8, 8), (5, 2), (3, 4, 6)]):
        x0 = torch.rand(shape, generator=generator) * 2 - 1
        eps = torch.randn(shape, generator=generator)
        t = torch.randint(1, schedule.T, shape[:1], generator=generator)
        t[-1] = schedule.T // 2
        cases.append((x0, t, eps, schedule))
    right = lambda x0, t, eps, schedule: schedule.add_noise(x0, t, eps)  # noqa: E731
    judge(answer, cases, right, FORWARD_MISTAKES, name="forward_process")
    for x0, _, eps, schedule in cases:
        ends = torch.tensor([0, schedule.T, 0, schedule.T, 1])[: len(x0)]
        for x, e in ((x0, eps), (x0.double(), eps.double())):
            judge(answer, [(x, ends, e, schedule)], right, name="forward_process")


# --- 14 ------------------------------------------------------------------------------------------


def _curve(T: int, s: float, power: float = 2, quarter: float = math.pi / 2) -> Tensor:
    """(T+1,): the cosine curve before anything else is done to it."""
    t = torch.arange(T + 1, dtype=torch.float64) / T
    return torch.cos((t + s) / (1 + s) * quarter).abs() ** power


def _capped(curve: Tensor, cap: float) -> Tensor:
    return _rooted((1 - curve[1:] / curve[:-1]).clamp(max=cap))


def _roots(alpha2: Tensor) -> Tensor:
    return torch.stack([alpha2.clamp(0, 1).sqrt(), (1 - alpha2).clamp(0, 1).sqrt()])


def _capped_alpha(T: int, s: float, cap: float) -> Tensor:
    curve = _curve(T, s)
    return _roots((curve / curve[0]).clamp(min=1 - cap))


def _capped_below(T: int, s: float, cap: float) -> Tensor:
    curve = _curve(T, s)
    return _rooted((1 - curve[1:] / curve[:-1]).clamp(min=1 - cap, max=1))


COSINE_MISTAKES = [
    Mistake(
        "cap fixed",
        "your cap is 0.999 always; take the `cap` that you are given",
        lambda T, s, cap: _capped(_curve(T, s), 0.999),
    ),
    Mistake(
        "offset fixed",
        "your offset is 0.008 always; take the `s` that you are given",
        lambda T, s, cap: _capped(_curve(T, 0.008), cap),
    ),
    Mistake("sigma of beta", _SIGMA, lambda T, s, cap: _sigma_of_beta(_capped(_curve(T, s), cap))),
    Mistake(
        "no cap",
        "the last beta is 1, so alpha_T is 0 and a network that predicts noise is divided by it: "
        "cap each beta",
        lambda T, s, cap: _roots(_curve(T, s) / _curve(T, s)[0]),
    ),
    Mistake(
        "not normalised",
        "alpha_0 must be 1: divide the curve by its value at t = 0",
        lambda T, s, cap: _roots(_curve(T, s)),
    ),
    Mistake(
        "no offset",
        "the offset s is not used: the first steps add almost no noise",
        lambda T, s, cap: _capped(_curve(T, 0.0), cap),
    ),
    Mistake(
        "offset not divided",
        "(t/T + s) is to be divided by (1 + s), or the cosine runs past its zero",
        lambda T, s, cap: _capped(_curve(T, s, quarter=math.pi / 2 * (1 + s)), cap),
    ),
    Mistake(
        "not squared",
        "the cosine is alpha itself; alpha² is the *square* of the cosine",
        lambda T, s, cap: _capped(_curve(T, s, power=1), cap),
    ),
    Mistake(
        "squared twice",
        "the squared cosine is alpha² already; you squared once more",
        lambda T, s, cap: _capped(_curve(T, s, power=4), cap),
    ),
    Mistake(
        "no roots",
        "these are alpha² and sigma²; alpha and sigma are their roots",
        lambda T, s, cap: _capped(_curve(T, s), cap) ** 2,
    ),
    Mistake("cap on alpha", "the cap belongs to each beta, not to alpha²", _capped_alpha),
    Mistake("cap from below", "the cap is an upper limit of beta, not a lower one", _capped_below),
    Mistake(
        "no clean index",
        "your first entry is already noisy: put alpha = 1, sigma = 0 in front, for t = 0",
        lambda T, s, cap: _capped(_curve(T, s), cap)[:, 1:],
    ),
    Mistake(
        "half a turn",
        "the cosine must fall to 0 over the T steps: a quarter turn, pi/2, not pi",
        lambda T, s, cap: _capped(_curve(T, s, quarter=math.pi), cap),
    ),
]


@exercise(
    14,
    "A schedule that wastes no steps",
    'notebook 01, "Which schedule?"',
    "f(t) = cos²( (t/T + s)/(1 + s) · pi/2 ),   beta_t = min(1 - f(t)/f(t-1), cap)",
    "The picture fades evenly, and the last step can still be divided by.",
)
def cosine(answer) -> None:
    """answer(T, s, cap) -> (alpha, sigma), each (T+1,), as Nichol & Dhariwal 2021, eq. 17."""
    cases = [(20, 0.008, 0.999), (50, 0.02, 0.99), (9, 0.1, 0.9), (12, 0.008, 0.3)]
    right = lambda T, s, cap: torch.stack(  # noqa: E731
        [(c := cosine_schedule(T, s, cap)).alpha, c.sigma]
    )
    judge_schedule(answer, cases, right, COSINE_MISTAKES, "cosine")
