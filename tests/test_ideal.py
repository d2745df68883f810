import pytest
import torch

from diffusion_lib import Ideal, Sprites, cosine_schedule, ddim, flow_schedule, last
from diffusion_lib.data.art import to_float
from diffusion_lib.ideal import posterior_mean

CENTRES = torch.tensor([[-0.8, 0.5], [0.9, 0.7], [0.1, -0.9]]).double()
WIDTHS, WEIGHTS = torch.tensor([0.25, 0.35, 0.2]).double(), torch.tensor([0.3, 0.5, 0.2]).double()


def by_loop(x, alpha, sigma, data, spread, weights):
    """Bayes' rule, blob by blob, with the normal densities written out."""
    total, mass = torch.zeros_like(x), 0.0
    for mu, s, pi in zip(data, spread, weights):
        v = alpha**2 * s**2 + sigma**2
        normal = torch.distributions.MultivariateNormal(alpha * mu, v * torch.eye(len(x)).double())
        w = pi * normal.log_prob(x).exp()
        total = total + w * (mu + alpha * s**2 / v * (x - alpha * mu))
        mass = mass + w
    return total / mass


@pytest.mark.parametrize("t", [1, 30, 400, 999, 1000])
def test_agrees_with_bayes_rule_written_out(t):
    schedule = cosine_schedule(1000)
    alpha, sigma = schedule.alpha[t].double(), schedule.sigma[t].double()
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(t)).double()
    expected = torch.stack([by_loop(p, alpha, sigma, CENTRES, WIDTHS, WEIGHTS) for p in x])
    got = Ideal(CENTRES, schedule, WIDTHS, WEIGHTS)(x, t)
    assert (got - expected).abs().max() < 1e-12


def test_agrees_with_the_mean_of_draws_that_landed_there():
    generator = torch.Generator().manual_seed(0)
    k = torch.multinomial(WEIGHTS, 400_000, replacement=True, generator=generator)
    x0 = CENTRES[k] + WIDTHS[k, None] * torch.randn(400_000, 2, generator=generator)
    xt = 0.8 * x0 + 0.6 * torch.randn(400_000, 2, generator=generator)
    spot = torch.tensor([[0.3, 0.2]]).double()
    near = (xt - spot).norm(dim=1) < 0.05
    got = posterior_mean(spot, 0.8, 0.6, CENTRES, WIDTHS, WEIGHTS)
    assert near.sum() > 500 and (got - x0[near].mean(dim=0)).abs().max() < 0.06


def test_a_time_for_each_picture_and_both_ends():
    schedule = flow_schedule(100)  # alpha[T] = 0: x says nothing there
    ideal, x = Ideal(CENTRES, schedule), torch.randn(4, 2).double()
    together = ideal(x, torch.tensor([0, 7, 50, 100]))
    assert torch.equal(together[0], x[0])
    for i, t in enumerate((0, 7, 50, 100)):
        assert torch.allclose(together[i], ideal(x[i : i + 1], t)[0], atol=1e-12)
    assert torch.allclose(together[3], CENTRES.mean(dim=0), atol=1e-12)


def test_half_precision_and_single_numbers():
    schedule, data = cosine_schedule(), torch.tensor([-1.0, 0.5, 2.0])
    x = torch.tensor([0.3, -0.2])
    got = Ideal(data, schedule)(x, 500)
    assert got.shape == (2,) and torch.allclose(
        got, Ideal(data[:, None], schedule)(x[:, None], 500)[:, 0]
    )
    assert (Ideal(data, schedule)(x.half(), 500).float() - got).abs().max() < 1e-2


@pytest.mark.parametrize(
    "data, weights, message",
    [
        (torch.zeros(0, 3), None, "data is empty"),
        (torch.zeros(2, 3).byte(), None, "data must be a float"),
        (torch.zeros(2, 3), torch.zeros(2), "weights must not"),
        (torch.zeros(2, 3), torch.tensor([1.0, -1.0]), "weights must not"),
    ],
)
def test_what_is_no_data(data, weights, message):
    with pytest.raises(ValueError, match=message):
        Ideal(data, cosine_schedule(), weights=weights)


def test_followed_to_the_end_it_only_copies():
    """The lowest loss there is on these pictures, and nothing new comes out of it."""
    book = to_float(Sprites(500).images)
    schedule = cosine_schedule()
    noise = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    painted = last(ddim(Ideal(book, schedule), schedule, noise, 50))
    apart = (painted[:, None] - book).flatten(2).norm(dim=2)  # (16, 500)
    assert apart.min(dim=1).values.max() < 1e-3
