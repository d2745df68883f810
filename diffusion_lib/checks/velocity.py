"""The check of v-prediction and zero terminal SNR."""

import torch
from torch import Tensor

from diffusion_lib.checks._core import Mistake, Part, exercise, in_parts, judge, judge_schedule
from diffusion_lib.schedules import (
    Schedule,
    cosine_schedule,
    flow_schedule,
    linear_schedule,
    scaled_linear_schedule,
    zero_terminal_snr,
)

TARGET_MISTAKES = [
    Mistake("target: sign", "v is a difference, alpha eps - sigma x0", lambda x0, e, a, s: a * e + s * x0),
    Mistake("target: exchanged", "alpha goes with eps here, sigma with x0", lambda x0, e, a, s: s * e - a * x0),
    Mistake("target: reversed", "this is -v: noise minus picture, not the other way", lambda x0, e, a, s: s * x0 - a * e),
    Mistake("target: x_t", "this is x_t itself, not its velocity", lambda x0, e, a, s: a * x0 + s * e),
    Mistake("target: eps", "this is eps", lambda x0, e, a, s: e),
    Mistake("target: flow", "this is the flow, eps - x0", lambda x0, e, a, s: e - x0),
    Mistake("target: x0", "this is x0", lambda x0, e, a, s: x0),
]  # fmt: skip

INVERSE_MISTAKES = [
    Mistake(
        "x0: variance-preserving only",
        "this holds where alpha² + sigma² = 1; on other schedules divide by that sum",
        lambda v, x, a, s: a * x - s * v,
    ),
    Mistake("x0: sign", "v holds *minus* sigma x0, so sigma v is to be subtracted", lambda v, x, a, s: (a * x + s * v) / (a**2 + s**2)),
    Mistake("x0: exchanged", "alpha goes with x, sigma with v", lambda v, x, a, s: (s * x - a * v) / (a**2 + s**2)),
    Mistake("x0: this is eps", "sigma x + alpha v gives eps, not x0", lambda v, x, a, s: (s * x + a * v) / (a**2 + s**2)),
    Mistake("x0: read as eps", "this is how eps is turned into x0; v needs another formula", lambda v, x, a, s: (x - s * v) / a),
    Mistake("x0: divided by a root", "divide by alpha² + sigma², without the root", lambda v, x, a, s: (a * x - s * v) / (a**2 + s**2).sqrt()),
]  # fmt: skip


def _stretched(alpha: Tensor, clean: bool = True, keep: str = "first") -> Tensor:
    alpha = alpha.double()
    if keep == "first":
        new = (alpha - alpha[-1]) * alpha[1] / (alpha[1] - alpha[-1])
    elif keep == "clean":
        new = (alpha - alpha[-1]) / (1 - alpha[-1])
    else:
        new = alpha - alpha[-1]
    if clean:
        new[0] = 1
    return torch.stack([new, (1 - new**2).clamp(min=0).sqrt()])


def _in_squares(alpha: Tensor) -> Tensor:
    square = alpha.double() ** 2
    new = ((square - square[-1]) * square[1] / (square[1] - square[-1])).clamp(min=0).sqrt()
    new[0] = 1
    return torch.stack([new, (1 - new**2).sqrt()])


def _only_the_last(alpha: Tensor) -> Tensor:
    new = alpha.double().clone()
    new[-1] = 0
    return torch.stack([new, (1 - new**2).sqrt()])


def _old_sigma(alpha: Tensor) -> Tensor:
    return torch.stack([_stretched(alpha)[0], (1 - alpha.double() ** 2).sqrt()])


STRETCH_MISTAKES = [
    Mistake("stretch: only shifted", "alpha is shifted to end at 0, but not scaled back to begin as before", lambda a: _stretched(a, keep="none")),
    Mistake("stretch: only shifted", "alpha is shifted to end at 0, but not scaled back to begin as before", lambda a: _stretched(a, clean=False, keep="none")),
    Mistake("stretch: keeps index 0", "it is alpha at t = 1 that keeps its value, not at t = 0", lambda a: _stretched(a, keep="clean")),
    Mistake("stretch: not clean", "index 0 is the clean picture: alpha_0 = 1, put it back", lambda a: _stretched(a, clean=False)),
    Mistake("stretch: in squares", "shift and scale alpha itself, not alpha²", _in_squares),
    Mistake("stretch: only the last", "only the last step is set to 0: a jump; all others move a little too", _only_the_last),
    Mistake("stretch: old sigma", "sigma must follow: sigma² = 1 - alpha² of the *new* alpha", _old_sigma),
]  # fmt: skip


@exercise(
    21,
    "Black cannot be painted, and white neither",
    'notebook 02, "One quantity in four dresses"',
    "x_t = alpha x0 + sigma eps,   v = alpha eps - sigma x0",
    "An answer that can be read at every time, on a schedule that ends in pure noise.",
)
def v_prediction(target, to_x0, stretch) -> None:
    """target(x0, eps, alpha, sigma) -> v; to_x0(v, xt, alpha, sigma) -> x0;
    stretch(alpha) -> (alpha, sigma), each (T+1,), ending at alpha = 0."""
    generator = torch.Generator().manual_seed(21)
    cases = []
    for schedule, shape in (
        (cosine_schedule(40), (4, 3, 5, 5)),
        (flow_schedule(30), (6, 2)),
        (zero_terminal_snr(scaled_linear_schedule(50)), (3, 1, 2, 2)),
    ):
        first, second = (torch.randn(shape, generator=generator) for _ in range(2))
        t = torch.randint(1, schedule.T, shape[:1], generator=generator)
        t[0], t[-1] = 0, schedule.T  # where sigma is 0, and where alpha may be
        cases.append((first, second, *schedule.at(t, like=first)))

    schedules: list[Schedule] = [
        linear_schedule(50),
        scaled_linear_schedule(30),
        linear_schedule(200),
    ]
    stretched = lambda alpha: _stretched(alpha).float()  # noqa: E731
    alphas = [(s.alpha,) for s in schedules]
    velocity = lambda x0, e, a, s: a * e - s * x0  # noqa: E731
    inverse = lambda v, x, a, s: (a * x - s * v) / (a**2 + s**2)  # noqa: E731
    dresses = 'notebook 02, "One quantity in four dresses"'
    in_parts(
        Part(
            "target",
            lambda: judge(target, cases, velocity, TARGET_MISTAKES, name="target"),
            dresses,
            "v = alpha eps - sigma x0",
        ),
        Part(
            "to_x0",
            lambda: judge(to_x0, cases, inverse, INVERSE_MISTAKES, atol=2e-3, name="to_x0"),
            dresses,
            "x_t = alpha x0 + sigma eps,   v = alpha eps - sigma x0",
        ),
        Part(
            "stretch",
            lambda: judge_schedule(
                stretch, alphas, stretched, STRETCH_MISTAKES, "stretch", atol=1e-3
            ),
            'notebook 01, "Why the last step must be pure noise"',
            "alpha_0 = 1,   alpha_1 as before,   alpha_T = 0,   sigma_t² = 1 - alpha_t²",
        ),
    )
