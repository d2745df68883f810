import math

import diffusers
import pytest
import torch

from diffusion_lib.noise import randn_like
from diffusion_lib.schedules import (
    Schedule,
    cosine_schedule,
    flow_schedule,
    linear_schedule,
    scaled_linear_schedule,
    sigmoid_schedule,
    zero_terminal_snr,
)

BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012), "squaredcos_cap_v2": (0, 0)}
OURS = [
    (linear_schedule, "linear"),
    (scaled_linear_schedule, "scaled_linear"),
    (cosine_schedule, "squaredcos_cap_v2"),
]
ALL = [linear_schedule, scaled_linear_schedule, cosine_schedule, sigmoid_schedule, flow_schedule]


@pytest.mark.parametrize("make, name", OURS)
@pytest.mark.parametrize("T", [50, 1000])
def test_agrees_with_diffusers_at_every_t(make, name, T):
    first, last = BETAS[name]
    theirs = diffusers.DDPMScheduler(T, first, last, name)
    schedule = make(T)
    alpha2 = schedule.alpha.double()[1:] ** 2
    assert (alpha2 - theirs.alphas_cumprod.double()).abs().max() < 1e-6
    # diffusers' betas, cumulated in double precision: in single, 1 - alpha² has lost its digits
    expected = (1 - theirs.betas.double()).cumprod(0)
    log_snr = schedule.snr(torch.arange(1, T + 1)).double().log()
    assert (log_snr - (expected / (1 - expected)).log()).abs().max() < 1e-3


@pytest.mark.parametrize("make", ALL)
def test_index_0_is_clean_and_noise_only_grows(make):
    schedule = make(100)
    assert schedule.T == 100 and schedule.alpha.shape == schedule.sigma.shape == (101,)
    assert schedule.alpha[0] == 1 and schedule.sigma[0] == 0
    assert schedule.alpha.dtype == schedule.sigma.dtype == torch.float32
    assert (schedule.snr(torch.arange(101)).diff() < 0).all()


@pytest.mark.parametrize("make", ALL[:4])
def test_variance_preserving(make):
    schedule = make()
    assert (schedule.alpha**2 + schedule.sigma**2 - 1).abs().max() < 1e-6


def test_flow_is_a_straight_line():
    schedule = flow_schedule(8)
    assert torch.equal(schedule.alpha, 1 - torch.arange(9) / 8)
    assert torch.equal(schedule.sigma, torch.arange(9) / 8)


@pytest.mark.parametrize("shape", [(4, 2), (4, 3, 8, 8), (4,)])
def test_add_noise_broadcasts_over_any_batch(shape):
    schedule = cosine_schedule(10)
    x0, eps = torch.randn(shape), torch.randn(shape)
    t = torch.tensor([0, 3, 7, 10])
    xt = schedule.add_noise(x0, t, eps)
    for i in range(4):
        a, s = schedule.alpha[t[i]], schedule.sigma[t[i]]
        assert torch.allclose(xt[i], a * x0[i] + s * eps[i])
    assert torch.equal(xt[0], x0[0])
    assert torch.equal(schedule.add_noise(x0, 3, eps)[1], xt[1])


def test_noising_step_by_step_reaches_the_closed_form():
    """Moments of the Markov chain x_t = √(1-β) x_{t-1} + √β eps equal those of q(x_t | x_0)."""
    beta = torch.linspace(1e-4, 0.02, 200, dtype=torch.float64)
    mean, variance = 1.0, 0.0
    schedule = linear_schedule(200)
    for t in range(200):
        mean, variance = math.sqrt(1 - beta[t]) * mean, (1 - beta[t]) * variance + beta[t]
        assert abs(mean - schedule.alpha[t + 1]) < 1e-6
        assert abs(math.sqrt(variance) - schedule.sigma[t + 1]) < 1e-6


def test_timesteps_are_trailing():
    assert cosine_schedule(1000).timesteps(4) == [1000, 750, 500, 250, 0]
    assert cosine_schedule(5).timesteps(5) == [5, 4, 3, 2, 1, 0]
    for T, steps in [(1000, 20), (1000, 7), (37, 36), (10, 1)]:
        times = cosine_schedule(T).timesteps(steps)
        assert len(times) == steps + 1 and times[0] == T and times[-1] == 0
        assert all(a > b for a, b in zip(times, times[1:]))


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_wrong_steps(steps):
    with pytest.raises(ValueError, match=r"steps must be in 1…1000"):
        cosine_schedule().timesteps(steps)


@pytest.mark.parametrize("t", [-1, 11, torch.tensor([0, 11, 3])])
def test_time_out_of_range(t):
    with pytest.raises(IndexError, match="is outside 0…10"):
        cosine_schedule(10).at(t, like=torch.zeros(3, 2))


def test_time_must_be_an_integer():
    with pytest.raises(TypeError, match="integer"):
        cosine_schedule(10).at(0.5, like=torch.zeros(3, 2))


@pytest.mark.parametrize(
    "alpha, sigma, message",
    [
        ([1.0, 0.5], [0.0], "one length"),
        ([0.9, 0.5], [0.0, 0.5], "clean"),
        ([1.0, 0.5], [0.0, 0.0], "above 0"),
        ([1.0, -0.5], [0.0, 0.5], "negative"),
        ([1.0, 0.2, 0.9], [0.0, 0.98, 0.1], "the noise must grow"),
        ([1.0, 0.5], [0.0, math.inf], "finite"),
        ([1.0, math.nan], [0.0, 0.5], "finite"),
        ([1.0, 0.5], [0.0, 1e-60], "above 0 .* also in float32"),
    ],
)
def test_no_schedule(alpha, sigma, message):
    with pytest.raises(ValueError, match=message):
        Schedule(torch.tensor(alpha).double(), torch.tensor(sigma, dtype=torch.float64))


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("T", [1.5, 0, -3, "10", True, None])
def test_T_is_a_whole_number(make, T):
    with pytest.raises(ValueError, match="T must be"):
        make(T)


def test_times_of_any_integer_type_are_times_and_no_masks():
    schedule, like = cosine_schedule(10), torch.zeros(3, 2)
    for dtype in (torch.uint8, torch.int8, torch.int32, torch.int64):
        t = torch.tensor([1, 0, 7], dtype=dtype)
        assert torch.equal(schedule.at(t, like)[0][:, 0], schedule.alpha[[1, 0, 7]])
        assert schedule.snr(t).shape == (3,)
    with pytest.raises(TypeError, match="integer"):
        schedule.at(torch.tensor([True, False, True]), like)
    with pytest.raises(ValueError, match="t has shape"):
        schedule.at(torch.tensor([1, 2]), like)


@pytest.mark.parametrize("first, last", [(0.0, 0.02), (1e-4, 1.2), (-0.1, 0.1), (math.nan, 0.1)])
def test_betas_are_shares(first, last):
    with pytest.raises(ValueError, match="beta must be above 0 and at most 1"):
        linear_schedule(10, first, last)


def test_a_generator_a_row_makes_noise_independent_of_the_other_rows():
    def draws(n):
        each = [torch.Generator().manual_seed(5 + i) for i in range(n)]
        return torch.stack([randn_like(torch.empty(n, 3, 5), each) for _ in range(3)], dim=1)

    assert torch.equal(draws(1), draws(7)[:1]) and not torch.equal(*draws(2))
    with pytest.raises(ValueError, match="2 rows need as many generators"):
        randn_like(torch.empty(2, 3), [torch.Generator()])


def test_sigmoid_follows_its_closed_form():
    """Jabri et al.'s gamma(t) with start -3, end 3, at t = 1/4, 1/2, 3/4; by hand."""
    low, high = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))
    alpha2 = sigmoid_schedule(1000).alpha.double() ** 2
    for t, logit in [(250, 1.5), (500, 0.0), (750, -1.5)]:
        expected = (1 / (1 + math.exp(-logit)) - low) / (high - low)
        assert abs(alpha2[t] - expected) < 1e-6


@pytest.mark.parametrize("make, name", OURS[:2])
def test_zero_terminal_snr_agrees_with_diffusers(make, name):
    first, last = BETAS[name]
    theirs = diffusers.DDIMScheduler(1000, first, last, name, rescale_betas_zero_snr=True)
    ours = zero_terminal_snr(make(1000))
    assert ours.alpha[-1] == 0 and ours.sigma[-1] == 1
    assert (ours.alpha.double()[1:] ** 2 - theirs.alphas_cumprod.double()).abs().max() < 1e-6
    assert abs(ours.alpha[1] - make(1000).alpha[1]) < 1e-7


def test_only_a_variance_preserving_schedule_is_stretched():
    with pytest.raises(ValueError, match="variance-preserving"):
        zero_terminal_snr(flow_schedule(10))
