import math
from functools import partial
from statistics import NormalDist

import pytest
import torch
from torch import nn

from diffusion_lib.conditions import Cond
from diffusion_lib.denoiser import PREDICTIONS, Denoiser, clipped, guided, logit_normal
from diffusion_lib.sampling import ddim, dpm_solver, heun, last
from diffusion_lib.schedules import cosine_schedule, flow_schedule
from diffusion_lib.unet import UNet, UNetConfig


class Recorder(nn.Module):
    """A net that answers a constant and remembers what it was asked."""

    def __init__(self, answer=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(answer)))
        self.calls = []

    def forward(self, x, t, *cond):
        self.calls.append((x, t, cond))
        return self.weight.expand_as(x)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", [cosine_schedule(10), flow_schedule(10)])
def test_the_right_answer_gives_x0_back(prediction, schedule):
    if prediction == "eps" and schedule.alpha[-1] == 0:
        prediction = "v"  # eps is refused there, see below
    torch.manual_seed(0)
    x0, eps = torch.randn(9, 3, 4, 4).double(), torch.randn(9, 3, 4, 4).double()
    t = torch.arange(1, 10)
    alpha, sigma = schedule.at(t, like=x0)
    denoiser = Denoiser(Recorder(), schedule, prediction)
    target = denoiser.target(x0, eps, alpha, sigma)
    back = denoiser.to_x0(target, alpha * x0 + sigma * eps, alpha, sigma)
    assert (back - x0).abs().max() < 1e-6


def test_the_table_is_the_textbooks_inversions():
    """Solved by hand for each row, in double precision."""
    x, out = torch.tensor([[0.7]]).double(), torch.tensor([[-0.4]]).double()
    a, s = torch.tensor([[0.8]]).double(), torch.tensor([[0.35]]).double()  # not on a circle
    by_hand = {
        "x0": out,
        "eps": (x - s * out) / a,
        "v": (a * x - s * out) / (a**2 + s**2),
        "flow": (x - s * out) / (a + s),
    }
    for prediction, expected in by_hand.items():
        got = Denoiser(Recorder(), cosine_schedule(10), prediction).to_x0(out, x, a, s)
        assert (got - expected).abs().max() < 1e-15, prediction


def test_a_fifth_row_of_ones_own(monkeypatch):
    """The noise less half of the picture: p = -1/2, q = 1."""
    monkeypatch.setitem(PREDICTIONS, "mine", lambda alpha, sigma: (-0.5, 1))
    x0, eps, t = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([1, 3, 5, 7])
    schedule = cosine_schedule(1000)
    denoiser = Denoiser(lambda x, time: eps - x0 / 2, schedule, "mine")
    assert (denoiser(schedule.add_noise(x0, t, eps), t) - x0).abs().max() < 1e-5
    monkeypatch.setitem(PREDICTIONS, "x", lambda alpha, sigma: (alpha, sigma))  # what it is given
    monkeypatch.setitem(PREDICTIONS, "mean", lambda alpha, sigma: (0.5, 0.5))  # fails half-way
    for row, t in (("x", r"\d+"), ("mean", "49[0-9]|50[0-9]")):
        with pytest.raises(ValueError, match=f"'{row}' says nothing of x0 at t = ({t}),"):
            Denoiser(Recorder(), schedule, row)


def test_targets_are_the_textbook_ones():
    schedule = cosine_schedule(10)
    x0, eps = torch.tensor([[2.0]]), torch.tensor([[3.0]])
    a, s = schedule.at(5, like=x0)
    targets = [Denoiser(Recorder(), schedule, p).target(x0, eps, a, s).item() for p in PREDICTIONS]
    assert targets == pytest.approx([2, 3, (a * 3 - s * 2).item(), 1])


def test_the_net_hears_t_minus_1_and_the_condition_unopened():
    net = Recorder()
    denoiser = Denoiser(net, cosine_schedule(10))
    cond = Cond(torch.randn(2, 4, 8), torch.ones(2, 4, dtype=torch.bool))
    denoiser(torch.randn(2, 3), torch.tensor([1, 10]), cond)
    denoiser(torch.randn(2, 3), 4)
    (_, t, passed), (_, t4, nothing) = net.calls
    assert t.tolist() == [0, 9] and passed[0] is cond.context and passed[1] is cond.mask
    assert t4.tolist() == [3, 3] and nothing == ()


def test_at_t_0_the_picture_is_clean():
    net = Recorder()
    denoiser = Denoiser(net, cosine_schedule(10))
    x = torch.randn(3, 2)
    assert torch.equal(denoiser(x, 0), x) and not net.calls
    mixed = denoiser(x, torch.tensor([0, 5, 0]))
    assert torch.equal(mixed[::2], x[::2]) and not torch.equal(mixed[1], x[1])


def test_inversion_stays_in_float32_under_autocast():
    net = nn.Linear(4, 4)
    net_with_time = lambda x, t: net(x)  # noqa: E731
    denoiser = Denoiser(nn.Identity(), cosine_schedule(10), "x0")
    denoiser.net = type("Net", (nn.Module,), {"forward": lambda self, x, t: net_with_time(x, t)})()
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(2, 4)).dtype == torch.bfloat16
        assert denoiser(torch.randn(2, 4), 5).dtype == torch.float32


def test_eps_cannot_be_inverted_at_pure_noise():
    with pytest.raises(ValueError, match="pure noise"):
        Denoiser(Recorder(), flow_schedule(10), "eps")


def test_unknown_prediction_and_time():
    with pytest.raises(ValueError, match="prediction must be one of"):
        Denoiser(Recorder(), cosine_schedule(10), "noise")
    with pytest.raises(IndexError, match="11 is outside"):
        Denoiser(Recorder(), cosine_schedule(10))(torch.zeros(2, 3), 11)


def test_loss_equals_its_definition():
    """A net that answers c has the loss mean (c - eps)²; for x0 = 0 that needs no schedule."""
    net, x0 = Recorder(0.3), torch.zeros(512, 8)
    loss = Denoiser(net, cosine_schedule(10), "eps").loss(
        x0, generator=torch.Generator().manual_seed(0)
    )
    xt, t, _ = net.calls[0]
    assert set(t.tolist()) == set(range(10))  # uniform over 1…T, heard as 0…T-1
    sigma = cosine_schedule(10).sigma[t + 1][:, None]
    assert loss.item() == pytest.approx(((0.3 - xt / sigma) ** 2).mean().item(), abs=1e-5)
    assert loss.item() == pytest.approx(1 + 0.3**2, abs=0.05)


def test_loss_is_zero_for_the_ideal_net_on_empty_data():
    """With all data at 0, v = alpha x_t / sigma is the exact answer, so the loss must vanish."""
    schedule = cosine_schedule(10)

    class Ideal(nn.Module):
        def forward(self, x, t):
            alpha, sigma = schedule.at(t + 1, like=x)
            return alpha * x / sigma

    assert Denoiser(Ideal(), schedule, "v").loss(torch.zeros(64, 5)).item() < 1e-10


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gradients_are_finite_where_some_pictures_are_clean(prediction):
    net = Recorder(0.3)
    denoiser = Denoiser(net, cosine_schedule(10), prediction)
    denoiser(torch.randn(3, 2), torch.tensor([0, 4, 9])).sum().backward()
    assert net.weight.grad.isfinite()


class Same(nn.Module):
    """A net with weights that answers its input."""

    def __init__(self, dtype):
        super().__init__()
        self.weight, self.heard = nn.Parameter(torch.ones(1, dtype=dtype)), []

    def forward(self, x, t, *cond):
        self.heard.append(x.dtype)
        return self.weight * x


@pytest.mark.parametrize("net", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("x", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_net_and_pictures_may_differ_in_precision(net, x):
    denoiser = Denoiser(Same(net), cosine_schedule(10))
    picture = torch.randn(2, 3, 4, 4).to(x)
    assert denoiser(picture, 5).dtype == x and denoiser.net.heard == [net]
    assert denoiser.loss(picture).isfinite()


def test_times_and_weight_are_the_callers_choice():
    net, asked = Recorder(0.3), []

    def late(n, generator):
        asked.append((n, generator))
        return torch.tensor([9, 10, 9, 10])

    denoiser = Denoiser(net, cosine_schedule(10), "x0", late, lambda t: (t == 10).float())
    generator, x0 = torch.Generator(), torch.tensor([5.0, 1.0, 6.0, 2.0])[:, None]
    loss = denoiser.loss(x0, generator=generator)
    assert asked == [(4, generator)] and net.calls[0][1].tolist() == [8, 9, 8, 9]
    assert loss.item() == pytest.approx((0.7**2 + 1.7**2) / 4)  # only the rows at t = 10 count
    for wrong in (lambda n, g: torch.zeros(n).long(), lambda n, g: torch.ones(1).long()):
        with pytest.raises(ValueError, match="one t in 1…10 a picture"):
            Denoiser(net, cosine_schedule(10), times=wrong).loss(x0)


@pytest.mark.parametrize(
    "x0, message",
    [
        (torch.zeros(2, 3, dtype=torch.uint8), "x / 127.5 - 1"),
        (torch.zeros(0, 3), "empty"),
        ([[0.0]], "float tensor"),
    ],
)
def test_what_is_no_picture(x0, message):
    with pytest.raises(ValueError, match=message):
        Denoiser(Recorder(), cosine_schedule(10)).loss(x0)
    with pytest.raises(ValueError, match=message):
        Denoiser(Recorder(), cosine_schedule(10))(x0, 5)


def test_an_answer_of_another_shape_is_not_broadcast():
    net = UNet(UNetConfig(in_channels=1, out_channels=3, channels=(8, 8), attention=(False,) * 2))
    for ask in (lambda d, x: d.loss(x), lambda d, x: d(x, 5)):
        with pytest.raises(ValueError, match="as many out_channels as in_channels"):
            ask(Denoiser(net, cosine_schedule(10)), torch.zeros(2, 1, 8, 8))


def test_a_condition_for_a_network_without_one():
    net = UNet(UNetConfig(channels=(8, 8), attention=(False, False)))
    denoiser = Denoiser(net, cosine_schedule(10))
    with pytest.raises(ValueError, match=r"wants a context None, not \(2, 4, 8\)"):
        denoiser(torch.zeros(2, 3, 8, 8), 5, Cond(torch.zeros(2, 4, 8)))


# --- guidance: between two functions (x, t) -> x0 ---------------------------------------------------


def linear_in_context(x, t, cond):
    return x + cond.context.mean(dim=(1, 2))[:, None]


def test_guidance_formula_and_its_special_scales():
    x = torch.randn(2, 3)
    cond, null = Cond(torch.randn(2, 4, 5)), Cond(torch.randn(1, 4, 5))
    with_cond, without = (linear_in_context(x, 5, c) for c in (cond, null))
    towards, away = (partial(linear_in_context, cond=c) for c in (cond, null))
    for scale in (0, 1, 0.5, 3, -1):
        expected = without + scale * (with_cond - without)
        assert torch.allclose(guided(towards, away, scale)(x, 5), expected)


@pytest.mark.parametrize("scale, rows", [(1, [2]), (0, [2]), (3, [4])])
def test_two_conditions_of_one_denoiser_make_one_call(scale, rows):
    net = Recorder()
    denoiser = Denoiser(net, cosine_schedule(10))
    cond, null = Cond(torch.randn(2, 4, 5)), Cond(torch.randn(2, 4, 5))
    denoise = guided(partial(denoiser, cond=cond), partial(denoiser, cond=null), scale)
    denoise(torch.randn(2, 3), torch.tensor([4, 5]))
    assert [len(x) for x, _, _ in net.calls] == rows


def test_a_second_network_guides_too():
    """Autoguidance: away from a weaker network, under the same condition or any other."""
    good, weak = (
        Denoiser(Recorder(1), cosine_schedule(10)),
        Denoiser(Recorder(3), cosine_schedule(10)),
    )
    x, cond = torch.randn(2, 3), Cond(torch.randn(2, 4, 5))
    denoise = guided(partial(good, cond=cond), partial(weak, cond=cond), 2)
    expected = weak(x, 5) + 2 * (good(x, 5) - weak(x, 5))
    assert torch.allclose(denoise(x, 5), expected)
    assert [len(good.net.calls), len(weak.net.calls)] == [2, 3]


def test_masks_are_stacked_where_only_one_has_any():
    seen = []

    def denoiser(x, t, cond):
        seen.append(cond)
        return x

    mask = torch.tensor([[True, False]])
    cond, null = Cond(torch.ones(1, 2, 3)), Cond(torch.zeros(1, 2, 3), mask)
    guided(partial(denoiser, cond=cond), partial(denoiser, cond=null), 2)(torch.zeros(2, 1), 3)
    assert seen[0].mask.tolist() == [[True, False]] * 2 + [[True, True]] * 2
    assert seen[0].context[:, 0, 0].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="3 pictures need as many .* not 2"):
        cond.expand(2).expand(3)


def test_guidance_without_a_null():
    denoise = partial(linear_in_context, cond=Cond(torch.randn(2, 4, 5)))
    assert guided(denoise) is denoise
    with pytest.raises(ValueError, match="needs a function to guide away from"):
        guided(denoise, scale=3)
    for scale in (float("nan"), float("inf"), "much"):
        with pytest.raises(ValueError, match="guidance scale must be"):
            guided(denoise, denoise, scale=scale)


def test_clipped_keeps_the_guess_in_range():
    assert clipped(lambda x, t: 3 * x)(torch.tensor([-1.0, 0.2, 1.0]), 5).tolist() == pytest.approx(
        [-1, 0.6, 1]
    )


def test_everything_follows_the_pictures_to_their_device():
    """The meta device computes shapes only: a tensor left behind on the CPU would be an error."""
    config = UNetConfig(channels=(8, 8), attention=(False, True), heads=2, context_dim=4)
    with torch.device("meta"):
        net, x, context = UNet(config), torch.zeros(2, 3, 8, 8), torch.zeros(1, 5, 4)
    denoiser = Denoiser(net, cosine_schedule(10))
    assert denoiser(x, torch.tensor([0, 7]), Cond(context)).shape == x.shape
    assert denoiser.loss(x, Cond(context), torch.Generator()).device.type == "meta"
    for sampler in (ddim, heun, dpm_solver):
        cond, null = (partial(denoiser, cond=Cond(context)) for _ in range(2))
        end = last(sampler(guided(cond, null, 3), denoiser.schedule, x, 3))
        assert end.device.type == "meta" and end.shape == x.shape


def test_what_a_condition_must_be():
    net = UNet(UNetConfig(channels=(8, 8), attention=(False, True), heads=2, context_dim=4))
    denoiser, x, context = (
        Denoiser(net, cosine_schedule(10)),
        torch.zeros(2, 3, 8, 8),
        torch.ones(2, 5, 4),
    )
    with pytest.raises(TypeError, match=r"a condition is a Cond\(context, mask\), not Tensor"):
        denoiser(x, 5, context)
    for mask in (torch.ones(2, 5), torch.ones(2, 5).long(), torch.ones(2, 1, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"a mask is bool \(B, L\), True = attend"):
            denoiser(x, 5, Cond(context, mask))
    with pytest.raises(ValueError, match=r"t has shape \(3,\)"):
        denoiser(x, torch.tensor([1, 2, 3]), Cond(context))
    short = partial(denoiser, cond=Cond(context[:, :1]))
    with pytest.raises(ValueError, match="conditions of other shapes"):
        guided(partial(denoiser, cond=Cond(context)), short, 2)(x, 5)
    half = Denoiser(net.bfloat16(), cosine_schedule(10))
    assert half(x, 5, Cond(context)).dtype == torch.float32


def test_guidance_away_from_no_condition_at_all():
    """partial(D, cond=None) cannot be stacked, and is simply asked."""
    seen = []

    def denoiser(x, t, cond=None):
        seen.append(cond)
        return x

    cond = Cond(torch.ones(1, 2, 3))
    guided(partial(denoiser, cond=cond), partial(denoiser, cond=None), 2)(torch.ones(2, 1), 3)
    assert seen == [None, cond]


def test_a_weight_may_be_one_number():
    denoiser = Denoiser(Recorder(0.3), cosine_schedule(10), "x0")
    once = denoiser.loss(torch.ones(4, 3))
    denoiser.weight = lambda t: 2.0
    assert denoiser.loss(torch.ones(4, 3)).item() == pytest.approx(2 * once.item())


def test_logit_normal_times_are_distributed_as_they_should_be():
    t = logit_normal(1000)(200_000, torch.Generator().manual_seed(0))
    assert t.min() >= 1 and t.max() <= 1000 and t.dtype == torch.long
    for k in (100, 300, 500, 900):
        share = NormalDist().cdf(math.log(k / (1000 - k)))  # of sigmoid(n) below k / 1000
        assert abs((t <= k).float().mean().item() - share) < 0.005
    assert set(logit_normal(1)(50, None).tolist()) == {1}


def test_a_denoiser_trains_on_the_times_that_it_is_told():
    seen = []

    class Spy(nn.Module):
        def forward(self, x, t):
            seen.extend((t + 1).tolist())
            return 0 * x

    schedule = cosine_schedule(100)
    denoiser = Denoiser(Spy(), schedule, times=logit_normal(100))
    denoiser.loss(torch.zeros(400, 1), generator=torch.Generator().manual_seed(0))
    assert seen == logit_normal(100)(400, torch.Generator().manual_seed(0)).tolist()
