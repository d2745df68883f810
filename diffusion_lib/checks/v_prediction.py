"""Exercise 21: v-prediction and zero terminal SNR."""

import torch

from diffusion_lib import schedules
from diffusion_lib.checks._call import call
from diffusion_lib.checks._frame import exercise, in_parts
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._schedule import ROWS, alpha_and_sigma
from diffusion_lib.checks._wrong import Part


def velocity(x0, eps, alpha, sigma):
    return alpha * eps - sigma * x0


def picture(v, xt, alpha, sigma):
    return (alpha * xt - sigma * v) / (alpha**2 + sigma**2)


def stretched(alpha):
    a = alpha.double()
    new = (a - a[-1]) * a[1] / (a[1] - a[-1])
    new[0] = 1
    sigma = (1 - new**2).sqrt()
    return new, sigma


TARGET = Table(
    velocity,
    """
target: sign | - sigma -> + sigma
    v is a difference, alpha eps - sigma x0
target: exchanged | alpha * eps - sigma * x0 -> sigma * eps - alpha * x0
    alpha goes with eps here, sigma with x0
target: reversed | alpha * eps - sigma * x0 -> sigma * x0 - alpha * eps
    this is -v: noise minus picture, not the other way
target: x_t | alpha * eps - sigma * x0 -> alpha * x0 + sigma * eps
    this is x_t itself, not its velocity
target: eps | alpha * eps - sigma * x0 -> eps
    this is eps
target: flow | alpha * eps - sigma * x0 -> eps - x0
    this is the flow, eps - x0
target: x0 | alpha * eps - sigma * x0 -> x0
    this is x0
""",
)
INVERSE = Table(
    picture,
    """
x0: variance-preserving only | / (alpha**2 + sigma**2) ->
    this holds where alpha² + sigma² = 1; on other schedules divide by that sum
x0: sign | - sigma * v -> + sigma * v
    v holds *minus* sigma x0, so sigma v is to be subtracted
x0: exchanged | alpha * xt - sigma * v -> sigma * xt - alpha * v
    alpha goes with x, sigma with v
x0: this is eps | alpha * xt - sigma * v -> sigma * xt + alpha * v
    sigma x + alpha v gives eps, not x0
x0: read as eps | (alpha * xt - sigma * v) / (alpha**2 + sigma**2) -> (xt - sigma * v) / alpha
    this is how eps is turned into x0, as in the report; v needs another formula
x0: read as flow | (alpha * xt - sigma * v) / (alpha**2 + sigma**2) -> xt - sigma * v
    this is how a flow is turned into x0; v needs another formula
x0: divided by a root | (alpha**2 + sigma**2) -> (alpha**2 + sigma**2).sqrt()
    divide by alpha² + sigma², without the root
x0: brackets | (alpha * xt - sigma * v) -> alpha * xt - sigma * v
x0: brackets | (alpha**2 + sigma**2) -> alpha**2 + sigma**2
    the whole difference is to be divided by the whole sum: a pair of brackets is missing
x0: divided by alpha
x0: divided by sigma
    the formula is right elsewhere, but it divides by what may be 0; v can be read without
""",
)
STRETCH = Table(
    stretched,
    """
stretch: only shifted | * a[1] / (a[1] - a[-1]) ->
stretch: only shifted | * a[1] / (a[1] - a[-1]) -> ;; new[0] = 1 -> pass
    alpha is shifted to end at 0, but not scaled back to begin as before
stretch: keeps index 0 | a[1] -> a[0]
stretch: upside down | * a[1] / (a[1] - a[-1]) -> * (a[1] - a[-1]) / a[1]
    alpha_1 must come out as it was: multiply by old over new, both at t = 1
stretch: not clean | new[0] = 1 -> pass
stretch: not clean | new[0] = 1 -> pass ;; (1 - new**2) -> (1 - new**2).clamp(min=0)
    index 0 is the clean picture: alpha_0 = 1, put it back
stretch: in squares | alpha.double() -> alpha.double() ** 2 ;; new[0] = 1 -> new = new.clamp(min=0).sqrt(); new[0] = 1
    shift and scale alpha itself, not alpha²
stretch: only the last | new = (a - a[-1]) * a[1] / (a[1] - a[-1]) -> new = a.clone(); new[-1] = 0
    only the last step is set to 0: a jump; all others move a little too
stretch: unchanged | new = (a - a[-1]) * a[1] / (a[1] - a[-1]) -> new = a.clone()
    this is the old schedule: it still ends before pure noise
stretch: old sigma | 1 - new**2 -> 1 - a**2
stretch: no root | (1 - new**2).sqrt() -> 1 - new**2
stretch: one minus alpha | (1 - new**2).sqrt() -> 1 - new
    sigma must follow: it is the root of 1 - alpha², of the *new* alpha
stretch: exchanged | return new, sigma -> return sigma, new
    alpha and sigma have changed places
""",
)


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

    def case(schedule, times, *shape):
        first, second = torch.randn(2, len(times), *shape, generator=generator)
        return first, second, *schedule.at(torch.tensor(times), like=first)

    cosine, flow = schedules.cosine_schedule(40), schedules.flow_schedule(30)
    zero = schedules.zero_terminal_snr(schedules.scaled_linear_schedule(50))
    cases = [
        case(cosine, [12, 35, 3, 21], 3, 5, 5),
        case(flow, [17, 4, 28, 9, 22, 15], 2),
        case(zero, [30, 8, 44], 1, 2, 2),
    ]
    ends = [case(s, [0, s.T], 3, 2) for s in (zero, flow, cosine)]

    def check_target() -> None:
        judge(target, cases + ends, TARGET, "target", guards="double row view")

    def check_to_x0() -> None:
        judge(to_x0, cases, INVERSE, "to_x0", 2e-3, guards="double row view")
        for x0, by in zip(call(to_x0, *ends[0], name="to_x0"), ("sigma", "alpha")):
            reason = f"Where {by} is 0, `to_x0` returns numbers that are not finite."
            INVERSE.demand(x0.isfinite().all(), f"x0: divided by {by}", reason)
        judge(to_x0, ends, INVERSE, "to_x0", 2e-3)

    def check_stretch() -> None:
        linear, scaled = schedules.linear_schedule, schedules.scaled_linear_schedule
        alphas = [(schedule.alpha,) for schedule in (linear(50), scaled(30), linear(200))]
        observe = alpha_and_sigma("stretch")
        judge(stretch, alphas, STRETCH, "stretch", 1e-3, ROWS, observe, guards="double view")

    dresses = 'notebook 02, "One quantity in four dresses"'
    both = "x_t = alpha x0 + sigma eps,   v = alpha eps - sigma x0"
    ending = "alpha_0 = 1,   alpha_1 as before,   alpha_T = 0,   sigma_t² = 1 - alpha_t²"
    last = 'notebook 01, "Why the last step must be pure noise"'
    in_parts(
        Part("target", check_target, dresses, "v = alpha eps - sigma x0"),
        Part("to_x0", check_to_x0, dresses, both),
        Part("stretch", check_stretch, last, ending),
    )
