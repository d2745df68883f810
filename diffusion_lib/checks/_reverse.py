"""The usual wrong answers to the exercises of `reverse.py`."""

from torch import Tensor

from diffusion_lib.checks._core import Mistake
from diffusion_lib.schedules import Schedule

# --- 03, one reverse step -----------------------------------------------------------------------


def step_of(mean=None, std=None, factor=None, beta=None, look=0):
    """x_{t-1} from its parts, each a formula that a mistake may replace.

    mean(xt, eps, z, b, s), then divided by factor(b, a), then std(b, r) times z, where b is beta_t,
    a alpha_t, s sigma_t and r sigma_{t-1} / sigma_t. beta(a, before): of two neighbouring alphas.
    look: how far off in the schedule.
    """

    def stepped(xt: Tensor, t: int, eps: Tensor, z: Tensor, schedule: Schedule) -> Tensor:
        alpha, sigma = schedule.alpha.double(), schedule.sigma.double()
        t = t + look
        a, s, r = alpha[t], sigma[t], sigma[t - 1] / sigma[t]
        b = beta(a, alpha[t - 1]) if beta else 1 - (a / alpha[t - 1]) ** 2
        x = mean(xt, eps, z, b, s) if mean else xt - b / s * eps
        x = x / (factor(b, a) if factor else (1 - b).sqrt())
        return (x + (std or _root_tilde)(b, r) * z).to(xt.dtype)

    return stepped


def _one(b: Tensor, a: Tensor) -> float:
    return 1.0


def _none(b: Tensor, r: Tensor) -> float:
    return 0.0


def _root_tilde(b: Tensor, r: Tensor) -> Tensor:
    return r * b.sqrt()


def _root_beta(b: Tensor, r: Tensor) -> Tensor:
    return b.sqrt()


_TIMES = (
    "the mean subtracts the *fresh* noise, and is then multiplied by the predicted one: the two "
    "have changed places, and the predicted noise stands where a factor made of beta should"
)
_CHANGED = "fresh and predicted noise have changed places: the one you know is to be taken out"
_VARIANCE = "you scaled the fresh noise by a variance; z has variance 1, so take the root"
_ROOT_BETA = (
    "you add noise of standard deviation √beta_t, as the original course does. That is a fair "
    "choice too, but not the one wanted here: the posterior's is smaller, and 0 in the last step"
)

STEP_MISTAKES = [
    *(
        Mistake("multiplied by the prediction", _TIMES, step_of(mean, std, _one))
        for std in (None, _root_beta, _none)
        for mean in (
            lambda xt, eps, z, b, s: (xt - b / s * z) * eps,
            lambda xt, eps, z, b, s: (xt - b / s * b.sqrt() * z) * eps,
            lambda xt, eps, z, b, s: (xt - b.sqrt() * z) * eps,
        )
    ),
    *(
        Mistake(
            "noises exchanged",
            _CHANGED,
            lambda xt, t, eps, z, schedule, step=step_of(std=std, factor=factor): step(
                xt, t, z, eps, schedule
            ),
        )
        for std in (None, _root_beta)
        for factor in (None, _one)
    ),
    Mistake(
        "no factor",
        "the mean is never divided: a step forwards shrinks x, so a step back must enlarge it",
        step_of(factor=_one),
    ),
    Mistake(
        "factor upside down",
        "you shrink the mean once more, where the step back must enlarge it",
        step_of(factor=lambda b, a: 1 / (1 - b).sqrt()),
    ),
    Mistake(
        "no root in the factor",
        "the mean is divided by 1 - beta_t: too much, a root is missing",
        step_of(factor=lambda b, a: 1 - b),
    ),
    *(
        Mistake(
            "bracket missing",
            "only the predicted noise is divided; the division is of the whole difference, x_t too",
            step_of(lambda xt, eps, z, b, s: xt - b / s * eps / (1 - b).sqrt(), std, _one),
        )
        for std in (None, _root_beta)
    ),
    *(
        Mistake(
            "fresh noise in the bracket",
            "the fresh noise is divided with the mean; it is added after the division",
            step_of(std=lambda b, r, std=std: std(b, r) / (1 - b).sqrt()),
        )
        for std in (_root_tilde, _root_beta)
    ),
    Mistake(
        "divided by alpha",
        "the mean is divided by alpha_t, which undoes *all* steps; this is one step. (What papers "
        "call alpha_t is 1 - beta_t)",
        step_of(factor=lambda b, a: a),
    ),
    Mistake(
        "variance below the fraction",
        "beta_t is divided by sigma_t², a variance; a root is missing below the fraction",
        step_of(lambda xt, eps, z, b, s: xt - b / s**2 * eps),
    ),
    Mistake(
        "beta alone",
        "the predicted noise is taken out with weight beta_t; something is missing below it",
        step_of(lambda xt, eps, z, b, s: xt - b * eps),
    ),
    Mistake(
        "root of beta in the mean",
        "the predicted noise is taken out with weight √beta_t / sigma_t: one root too many",
        step_of(lambda xt, eps, z, b, s: xt - b.sqrt() / s * eps),
    ),
    Mistake(
        "sign",
        "the predicted noise is added; the way back takes it out",
        step_of(lambda xt, eps, z, b, s: xt + b / s * eps),
    ),
    Mistake("root of beta", _ROOT_BETA, step_of(std=_root_beta)),
    Mistake("variance", _VARIANCE, step_of(std=lambda b, r: r**2 * b)),
    Mistake("variance", _VARIANCE, step_of(std=lambda b, r: b)),
    Mistake(
        "ratio not squared",
        "beta-tilde has sigma_{t-1}² / sigma_t², both squared; your root is of the plain ratio",
        step_of(std=lambda b, r: (r * b).sqrt()),
    ),
    Mistake(
        "ratio upside down",
        "beta-tilde has sigma_{t-1}² above and sigma_t² below; yours are the other way round",
        step_of(std=lambda b, r: b.sqrt() / r),
    ),
    Mistake(
        "no fresh noise", "this is the mean alone: no fresh noise is added", step_of(std=_none)
    ),
    Mistake(
        "beta without squares",
        "your beta_t is 1 - alpha_t / alpha_{t-1}: the squares are missing",
        step_of(beta=lambda a, before: 1 - a / before),
    ),
    Mistake(
        "all noise at once",
        "your beta_t is 1 - alpha_t², the noise of all steps together; this is one step",
        step_of(beta=lambda a, before: 1 - a**2),
    ),
    Mistake("one step late", "you use the betas of step t + 1: index t is step t", step_of(look=1)),
    Mistake(
        "one step early", "you use the betas of step t - 1: index t is step t", step_of(look=-1)
    ),
]

LAST_MISTAKES = [
    Mistake(
        "noise in the last step",
        "at t = 1 you add fresh noise to the finished picture",
        lambda xt, t, eps, z, schedule: step_of(std=_root_beta if t == 1 else None)(
            xt, t, eps, z, schedule
        ),
    ),
    Mistake(
        "quiet too early",
        "the step from 2 to 1 has no fresh noise; only the last one, from 1 to 0, has none",
        lambda xt, t, eps, z, schedule: step_of(std=_none if t <= 2 else None)(
            xt, t, eps, z, schedule
        ),
    ),
]


# --- 04, the loop around it

LOOPS = [  # name, cause, the times that it asks for
    (
        "forwards",
        "the loop runs forwards in time. You begin with pure noise, at t = T; the picture is at 0",
        lambda T: range(T),
    ),
    (
        "forwards",
        "the loop runs forwards in time. You begin with pure noise, at t = T; the picture is at 0",
        lambda T: range(1, T + 1),
    ),
    (
        "counts from T - 1",
        "each time is one too small. The times of a schedule are 0…T, and noise is at T; `range` "
        "stops before its end",
        lambda T: range(T - 1, -1, -1),
    ),
    (
        "begins late",
        "the first step, from T, is missing, though x is noise of time T",
        lambda T: range(T - 1, 0, -1),
    ),
    (
        "stops short",
        "the last step, from 1 to 0, is missing; `range` stops before its end",
        lambda T: range(T, 1, -1),
    ),
    (
        "a step from 0",
        "a step is asked for at t = 0, where the picture is finished; `range` stops before its end",
        lambda T: range(T, -1, -1),
    ),
]

# --- 05, the time that the network hears -------------------------------------------------------

KINDS = {  # what may become of t on its way to the network
    "t - 1": lambda t, T: t - 1,
    "t": lambda t, T: t,
    "t / T": lambda t, T: t / T,
    "(t - 1) / T": lambda t, T: (t - 1) / T,
    "(t - 1) / (T - 1)": lambda t, T: (t - 1) / (T - 1),
    "T - t": lambda t, T: T - t,
    "T - 1 - t": lambda t, T: T - 1 - t,
    "t - 2": lambda t, T: t - 2,
}

_SCALED = ("t / T", "(t - 1) / T", "(t - 1) / (T - 1)")


def time_mistake(training: str, sampling: str) -> tuple[str, str]:
    """Name and cause of a pair of KINDS, of which at least one is not t - 1."""
    told = f"training tells the network {training}, sampling {sampling}"
    if "T - t" in (training, sampling) or "T - 1 - t" in (training, sampling):
        return "backwards", f"{told}: time runs backwards there"
    if training in _SCALED and sampling in _SCALED:
        return "both scaled", (
            "training and sampling both divide the time: a network can be trained so, but this one "
            "hears whole numbers"
        )
    if sampling in _SCALED and training == "t - 1":
        return "sampling scaled", f"{told}: a network trained on 0…T-1 hears 'almost clean' always"
    if training in _SCALED:
        return "training scaled", f"{told}: the two must agree"
    if sampling in _SCALED:
        return "two scales", (
            f"{told}: the two disagree by a factor of T, and neither is the time wanted"
        )
    if training == sampling:
        return f"hears {training}", (
            "training and sampling agree with each other, but each time is off by one: the network "
            "counts from 0"
        )
    return "one apart", f"{told}: the two are still apart"
