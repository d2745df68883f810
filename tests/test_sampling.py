import math

import diffusers
import pytest
import torch

from diffusion_lib.sampling import ddim, dpm_solver, heun, last, move, walk
from diffusion_lib.schedules import (
    Schedule,
    cosine_schedule,
    flow_schedule,
    linear_schedule,
    scaled_linear_schedule,
)

SAMPLERS = [ddim, heun, dpm_solver]
THEIR_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SCHEDULES = {
    "linear": (linear_schedule, 1e-4, 0.02),
    "scaled_linear": (scaled_linear_schedule, 0.00085, 0.012),
    "squaredcos_cap_v2": (cosine_schedule, 1e-4, 0.02),
}


def net(x, t):
    """Some smooth function of picture and time, standing in for a network."""
    return torch.sin(2 * x) * 0.7 + 0.1 * t / 1000


def exact(schedule, prediction):
    """D(x, t) made from `net` by the design's table, in double precision."""

    def denoise(x, t):
        a, s = schedule.alpha[t].double(), schedule.sigma[t].double()
        output = net(x, t - 1)
        return {
            "x0": output,
            "eps": (x - s * output) / a,
            "v": (a * x - s * output) / (a**2 + s**2),
        }[prediction]

    return denoise


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_follows_diffusers_whole_trajectory(name, prediction, eta, monkeypatch):
    make, first, final = SCHEDULES[name]
    schedule, steps, shape = make(1000), 20, (2, 3, 8, 8)
    theirs = diffusers.DDIMScheduler(
        1000,
        first,
        final,
        name,
        clip_sample=False,
        prediction_type=THEIR_NAMES[prediction],
        timestep_spacing="trailing",
    )
    if name == "squaredcos_cap_v2":
        # 1 - 0.999 in diffusers' float32 is off by 1e-5, and eps divides by alpha[T] = 5e-5:
        # compare the update on one schedule (test_schedules.py compares the schedules)
        theirs.alphas_cumprod = schedule.alpha[1:].double() ** 2
    theirs.set_timesteps(steps)
    generator = torch.Generator().manual_seed(9)
    noise = [torch.randn(shape, generator=generator).double() for _ in range(steps)]
    queue = list(noise)
    monkeypatch.setattr("diffusion_lib.sampling.randn_like", lambda x, g: queue.pop(0))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    ours = list(ddim(exact(schedule, prediction), schedule, x, steps, eta))
    for i, t in enumerate(theirs.timesteps.tolist()):
        step = theirs.step(net(x, t), t, x, eta=eta, variance_noise=noise[i])
        x = step.prev_sample.double()
        assert (ours[i].x - x).abs().max() / x.abs().max() < 1e-5
    assert len(queue) == (steps if eta == 0 else 1)  # the last step, to t = 0, draws none


def gaussian(schedule, mean=0.4, std=0.6):
    """The exact D of data N(mean, std²): E[x_0 | x_t]."""

    def denoise(x, t):
        a, s = schedule.alpha[t].double(), schedule.sigma[t].double()
        return mean + a * std**2 / (a**2 * std**2 + s**2) * (x - a * mean)

    return denoise


def zero_snr(T=1000):
    """A variance-preserving schedule that ends in pure noise."""
    alpha = torch.cos(torch.arange(T + 1, dtype=torch.float64) / T * torch.pi / 2)
    alpha[-1] = 0
    return Schedule(alpha, (1 - alpha**2).sqrt())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("make", [cosine_schedule, flow_schedule, zero_snr])
def test_samples_have_the_datas_mean_and_spread(sampler, make):
    schedule = make(1000)
    x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)).double()
    samples = last(sampler(gaussian(schedule), schedule, x, 100))
    assert samples.isfinite().all()
    assert abs(samples.mean() - 0.4) < 0.01 and abs(samples.std() - 0.6) < 0.02


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("make", [cosine_schedule, flow_schedule, zero_snr])
def test_every_eta_samples_the_same_distribution(make, eta):
    schedule, generator = make(200), torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, generator=generator).double()
    samples = last(ddim(gaussian(schedule), schedule, x, 200, eta, generator))
    assert abs(samples.mean() - 0.4) < 0.02 and abs(samples.std() - 0.6) < 0.02


def test_on_a_flow_schedule_ddim_is_euler():
    schedule = flow_schedule(100)
    denoise = gaussian(schedule)
    x = y = torch.randn(8, 2).double()
    times = schedule.timesteps(10)
    for t, s in zip(times, times[1:]):
        velocity = (y - denoise(y, t)) / schedule.sigma[t].double()  # eps - x0
        y = y + (s - t) / 100 * velocity
    assert (last(ddim(denoise, schedule, x, 10)) - y).abs().max() < 1e-6


@pytest.mark.parametrize("sampler, calls", [(ddim, 10), (heun, 19), (dpm_solver, 10)])
def test_network_calls_and_what_is_yielded(sampler, calls):
    schedule, asked = cosine_schedule(100), []

    def denoise(x, t):
        asked.append(t)
        return torch.zeros_like(x)

    steps = list(sampler(denoise, schedule, torch.ones(2, 3), 10))
    assert len(asked) == calls and len(steps) == 10
    assert [step.t for step in steps] == schedule.timesteps(10)[1:]
    assert all(t >= 1 for t in asked)


def test_seed_decides_the_noise_and_samplers_leave_gradients_alone():
    schedule = cosine_schedule(50)
    run = lambda seed: last(  # noqa: E731
        ddim(
            gaussian(schedule),
            schedule,
            torch.ones(2, 3),
            5,
            1.0,
            torch.Generator().manual_seed(seed),
        )
    )
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    walk = ddim(gaussian(schedule), schedule, torch.ones(2, 3), 5)
    next(walk)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan")])
def test_wrong_eta(eta):
    with pytest.raises(ValueError, match="eta"):
        last(ddim(gaussian(cosine_schedule(10)), cosine_schedule(10), torch.zeros(1, 1), 5, eta))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [0, 11])
def test_wrong_steps(sampler, steps):
    with pytest.raises(ValueError, match="steps must be in 1…10"):
        last(sampler(gaussian(cosine_schedule(10)), cosine_schedule(10), torch.zeros(1, 1), steps))


@pytest.mark.parametrize("make", [linear_schedule, cosine_schedule, flow_schedule, zero_snr])
def test_one_step_is_what_the_papers_write(make):
    """`move` by D is DDIM's eq. 12; by D extrapolated, DPM-Solver++'s with its exponentials."""
    schedule = make(1000)
    torch.manual_seed(0)
    x, d, before = torch.randn(3, 5, 2).double().unbind()
    pairs = list(walk(schedule, 12))
    for (t, s), (r, _) in zip(pairs[1:-1], pairs):
        eps = (x - t.alpha * d) / t.sigma
        assert (move(x, d, t, s) - (s.alpha * d + s.sigma * eps)).abs().max() < 1e-12
        h = s.log_ratio - t.log_ratio
        theirs = s.sigma / t.sigma * x - s.alpha * math.expm1(-h) * d
        assert (move(x, d, t, s) - theirs).abs().max() < 1e-9
        if math.isfinite(r.log_ratio):
            ratio = (t.log_ratio - r.log_ratio) / h
            multi = (1 + 1 / (2 * ratio)) * d - 1 / (2 * ratio) * before  # algorithm 2, line 7
            theirs = s.sigma / t.sigma * x - s.alpha * math.expm1(-h) * multi
            guess = d + 1 / (2 * ratio) * (d - before)
            assert (move(x, guess, t, s) - theirs).abs().max() < 1e-9
    now, then = pairs[-1]
    assert then.t == 0 and torch.equal(move(x, d, now, then), d)


def test_a_generator_a_picture_makes_each_independent_of_the_others():
    schedule, start = cosine_schedule(50), torch.randn(3, 5)

    def run(n):
        each = [torch.Generator().manual_seed(i) for i in range(n)]
        return last(ddim(gaussian(schedule), schedule, start[:n], 6, 1.0, each))

    assert torch.equal(run(1), run(3)[:1])


@pytest.mark.parametrize("eta", [0, 1])
def test_schedules_whose_picture_is_gone_before_the_end(eta):
    """alpha is 0 at several levels, in float32 at least."""
    schedule, x = linear_schedule(1000, last=0.5), torch.randn(4, 2)
    assert (schedule.alpha == 0).sum() > 1
    for sampled in (
        ddim(gaussian(schedule), schedule, x, 50, eta),
        dpm_solver(gaussian(schedule), schedule, x, 50),
    ):
        assert last(sampled).isfinite().all()


def test_levels_without_distance():
    schedule = Schedule(torch.tensor([1, 0.5, 0.5, 0.5]), torch.tensor([0, 0.5, 0.5, 0.5]))
    assert last(dpm_solver(gaussian(schedule), schedule, torch.randn(4, 2), 3)).isfinite().all()


def test_a_guess_of_another_shape_is_not_broadcast():
    with pytest.raises(ValueError, match=r"the guess has shape \(1, 2\), the pictures \(3, 2\)"):
        last(ddim(lambda x, t: x[:1], cosine_schedule(10), torch.zeros(3, 2), 5))


def test_the_last_of_nothing():
    film = ddim(gaussian(cosine_schedule(10)), cosine_schedule(10), torch.zeros(1, 1), 5)
    last(film)
    with pytest.raises(ValueError, match="only once"):
        last(film)


# --- the fast samplers, against others' -----------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("steps", [6, 20, 50])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_dpm_solver_follows_diffusers_whole_trajectory(name, prediction, steps):
    make, first, final = SCHEDULES[name]
    schedule = make(1000)
    theirs = diffusers.DPMSolverMultistepScheduler(
        1000,
        first,
        final,
        name,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="zero",
        prediction_type=THEIR_NAMES[prediction],
        timestep_spacing="trailing",
    )
    theirs.alphas_cumprod = schedule.alpha[1:].double() ** 2  # one schedule: see the test of ddim
    theirs.set_timesteps(steps)
    theirs.sigmas = theirs.sigmas.double()
    theirs.sigmas[:-1] = (schedule.sigma.double() / schedule.alpha.double())[theirs.timesteps + 1]
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    ours = list(dpm_solver(exact(schedule, prediction), schedule, x, steps))
    assert [s.t for s in ours][:-1] == (theirs.timesteps + 1).tolist()[1:]
    for i, t in enumerate(theirs.timesteps.tolist()):
        x = theirs.step(net(x, t), t, x).prev_sample.double()
        assert (ours[i].x - x).abs().max() / x.abs().max() < 1e-5


def karras_heun(denoise, schedule, x, times):
    """Algorithm 1 of Karras et al. (2022), in their variables x/alpha and sigma/alpha.

    Returns x at the last of the times, which is above 0.
    """
    alpha, sigma = schedule.alpha.double(), schedule.sigma.double()
    noise = sigma / alpha
    x = x / alpha[times[0]]
    for t, s in zip(times, times[1:]):
        d = (x - denoise(alpha[t] * x, t)) / noise[t]
        guess = x + (noise[s] - noise[t]) * d
        d_there = (guess - denoise(alpha[s] * guess, s)) / noise[s]
        x = x + (noise[s] - noise[t]) * (d + d_there) / 2
    return alpha[times[-1]] * x


def trapezoid(denoise, schedule, x, times):
    """Heun's rule for d(x/sigma) / d(alpha/sigma) = D, written down afresh."""
    alpha, sigma = schedule.alpha.double(), schedule.sigma.double()
    r, y = alpha / sigma, x / sigma[times[0]]
    for t, s in zip(times, times[1:]):
        slope = denoise(sigma[t] * y, t)
        slope_there = denoise(sigma[s] * (y + (r[s] - r[t]) * slope), s)
        y = y + (r[s] - r[t]) * (slope + slope_there) / 2
    return sigma[times[-1]] * y


def heun_down_to(denoise, schedule, x, times):
    """The library's heun over the same times: the schedule of just these levels, 0 left out."""
    levels = torch.tensor([0, *reversed(times)])
    few = Schedule(schedule.alpha[levels], schedule.sigma[levels])
    steps = list(heun(lambda x, i: denoise(x, levels[i].item()), few, x, len(times)))
    assert steps[-2].t == 1
    return steps[-2].x


@pytest.mark.parametrize("make", [linear_schedule, cosine_schedule, flow_schedule, zero_snr])
def test_heun_is_the_trapezoid_rule_in_alpha_over_sigma(make):
    schedule = make(1000)
    times = [1000, 870, 640, 420, 310, 150, 60, 20]
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(1)).double()
    mine = heun_down_to(gaussian(schedule), schedule, x, times)
    theirs = trapezoid(gaussian(schedule), schedule, x, times)
    assert (mine - theirs).abs().max() < 1e-10


@pytest.mark.parametrize("make", [linear_schedule, cosine_schedule])
def test_heun_and_karras_algorithm_1_meet_at_second_order(make):
    """Theirs steps in sigma/alpha, ours in alpha/sigma (finite where alpha is 0): the same curve,
    and both off it by a multiple of the squared step, so halving the steps quarters the gap."""
    schedule = make(100_000) if make is cosine_schedule else make(100_000, 1e-6, 2e-4)
    denoise = gaussian(schedule)
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(1)).double()
    gaps = []
    for n in (50, 100, 200):
        times = torch.linspace(90_000, 2_000, n + 1).round().long().tolist()
        gap = heun_down_to(denoise, schedule, x, times) - karras_heun(denoise, schedule, x, times)
        gaps.append(gap.abs().max().item())
    assert gaps[-1] < 1e-3
    assert all(3.4 < a / b < 4.6 for a, b in zip(gaps, gaps[1:]))


@pytest.mark.parametrize("sampler, order", [(ddim, 1), (heun, 2), (dpm_solver, 2)])
def test_order_of_convergence(sampler, order):
    """Doubling the steps divides the error by 2 ** order, against the exact curve of a Gaussian."""
    fine = cosine_schedule(200_000)
    mean, std, errors = 0.4, 0.6, []
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(1)).double()
    for n in (128, 256, 512):
        levels = torch.tensor([0, *torch.linspace(4_000, 200_000, n + 1).round().long()])
        few = Schedule(fine.alpha[levels], fine.sigma[levels])
        a, s = few.alpha[[1, -1]].double(), few.sigma[[1, -1]].double()
        spread = (a**2 * std**2 + s**2).sqrt()
        curve = a[0] * mean + spread[0] / spread[1] * (x - a[1] * mean)
        steps = list(sampler(gaussian(few), few, x, n + 1))
        assert steps[-2].t == 1
        errors.append((steps[-2].x - curve).abs().max().item())
    assert all(abs(math.log2(a / b) - order) < 0.15 for a, b in zip(errors, errors[1:])), errors
