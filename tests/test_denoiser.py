import pytest
import torch
from torch import nn

from diffusion_lib.denoiser import PREDICTIONS, Cond, Denoiser, guided
from diffusion_lib.schedules import cosine_schedule, flow_schedule


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


def linear_in_context(x, t, cond):
    return x + cond.context.mean(dim=(1, 2))[:, None]


def test_guidance_formula_and_its_special_scales():
    x = torch.randn(2, 3)
    cond, null = Cond(torch.randn(2, 4, 5)), Cond(torch.randn(1, 4, 5))
    with_cond = linear_in_context(x, 5, cond)
    without = linear_in_context(x, 5, Cond(null.context.expand(2, 4, 5)))
    for scale in (0, 1, 0.5, 3):
        expected = without + scale * (with_cond - without)
        assert torch.allclose(guided(linear_in_context, cond, null, scale)(x, 5), expected)


@pytest.mark.parametrize("scale, rows", [(1, [2]), (0, [2]), (3, [4])])
def test_guidance_makes_one_call(scale, rows):
    net = Recorder()
    denoiser = Denoiser(net, cosine_schedule(10))
    cond, null = Cond(torch.randn(2, 4, 5)), Cond(torch.randn(1, 4, 5))
    guided(denoiser, cond, null, scale)(torch.randn(2, 3), torch.tensor([4, 5]))
    assert [len(x) for x, _, _ in net.calls] == rows


def test_guidance_without_a_null():
    cond = Cond(torch.randn(2, 4, 5))
    assert guided(linear_in_context, cond)(torch.zeros(2, 3), 5).shape == (2, 3)
    with pytest.raises(ValueError, match="needs a null"):
        guided(linear_in_context, cond, scale=3)
    with pytest.raises(ValueError, match="finite number, not nan"):
        guided(linear_in_context, cond, cond, scale=float("nan"))
