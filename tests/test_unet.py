import math

import diffusers
import pytest
import torch

from diffusion_lib.layers import Attention, timestep_embedding
from diffusion_lib.stable_diffusion import SD1_UNET, unet_weights
from diffusion_lib.unet import UNet, UNetConfig

NARROW = UNetConfig(
    in_channels=4,
    out_channels=4,
    channels=(32, 64, 64, 64),
    layers=2,
    attention=(True, True, True, False),
    heads=8,
    groups=32,
    context_dim=24,
)


def their_narrow_unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        block_out_channels=NARROW.channels,
        cross_attention_dim=NARROW.context_dim,
        attention_head_dim=NARROW.heads,  # a misnomer that diffusers keeps: the number of heads
        norm_num_groups=NARROW.groups,
    ).eval()


def test_loads_diffusers_weights_strictly_and_gives_the_same_output():
    theirs, ours = their_narrow_unet(), UNet(NARROW).eval()
    ours.load_state_dict(unet_weights(theirs.state_dict()), strict=True)
    x, context = torch.randn(2, 4, 16, 16), torch.randn(2, 7, 24)
    with torch.no_grad():
        for t in (0, 7, 999):
            expected = theirs(x, t, encoder_hidden_states=context).sample
            got = ours(x, torch.tensor([t, t]), context)
            assert (got - expected).abs().max() < 1e-5


def test_mask_means_the_same_as_in_diffusers():
    theirs, ours = their_narrow_unet(), UNet(NARROW).eval()
    ours.load_state_dict(unet_weights(theirs.state_dict()))
    x, context = torch.randn(2, 4, 16, 16), torch.randn(2, 7, 24)
    mask = torch.arange(7) < torch.tensor([[3], [7]])
    t = torch.tensor([5, 600])
    with torch.no_grad():
        expected = theirs(x, t, encoder_hidden_states=context, encoder_attention_mask=mask).sample
        assert (ours(x, t, context, mask) - expected).abs().max() < 1e-5


def test_stable_diffusion_has_its_859_520_964_parameters():
    with torch.device("meta"):
        net = UNet(SD1_UNET)
    assert sum(p.numel() for p in net.parameters()) == 859_520_964


def test_masked_tokens_do_not_matter():
    net = UNet(UNetConfig(context_dim=24)).eval()
    x, t, context = torch.randn(1, 3, 16, 16), torch.tensor([3]), torch.randn(1, 7, 24)
    mask = torch.arange(7)[None] < 4
    other = torch.where(mask[..., None], context, torch.randn(1, 7, 24))
    assert torch.allclose(net(x, t, context, mask), net(x, t, other, mask), atol=1e-6)
    assert not torch.allclose(net(x, t, context), net(x, t, other), atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (32, 32)])
def test_any_size_that_can_be_halved(size):
    net = UNet(UNetConfig(in_channels=3, out_channels=6))
    assert net(torch.randn(2, 3, *size), torch.tensor([1, 2])).shape == (2, 6, *size)


def test_a_size_that_cannot_be_halved():
    with pytest.raises(ValueError, match="multiples of 4: got 16x18"):
        UNet(UNetConfig())(torch.randn(1, 3, 16, 18), torch.tensor([1]))


def test_a_missing_context():
    with pytest.raises(ValueError, match=r"wants a context \(B, L, 8\), not None"):
        UNet(UNetConfig(context_dim=8))(torch.randn(1, 3, 16, 16), torch.tensor([1]))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(channels=(32, 64)), "2 levels of channels"),
        (dict(channels=(30, 64, 64)), "groups"),
        (dict(heads=5), "heads"),
    ],
)
def test_impossible_configurations(wrong, message):
    with pytest.raises(ValueError, match=message):
        UNet(UNetConfig(**wrong))


def test_every_weight_takes_part():
    net = UNet(UNetConfig(context_dim=8))
    net(torch.randn(2, 3, 16, 16), torch.tensor([1, 9]), torch.randn(2, 5, 8)).sum().backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_time_embedding_is_cosine_then_sine():
    e = timestep_embedding(torch.tensor([0, 7]), 8)
    rates = [10_000 ** (-i / 4) for i in range(4)]
    expected = [math.cos(7 * r) for r in rates] + [math.sin(7 * r) for r in rates]
    assert e[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (e[1] - torch.tensor(expected)).abs().max() < 1e-6


def test_attention_weights_are_the_map_that_forward_applies():
    layer = Attention(16, heads=4, context_dim=8)
    x, context = torch.randn(2, 9, 16), torch.randn(2, 5, 8)
    mask = torch.arange(5) < torch.tensor([[2], [5]])
    weights = layer.weights(x, context, mask)  # (B, h, N, L)
    assert weights.shape == (2, 4, 9, 5) and torch.allclose(weights.sum(-1), torch.ones(2, 4, 9))
    assert (weights[0, ..., 2:] == 0).all()
    value = layer.value(context).unflatten(-1, (4, 4)).transpose(1, 2)
    by_hand = layer.out((weights @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(by_hand, layer(x, context, mask), atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_under_autocast_is_the_fused_one(causal, masked):
    torch.manual_seed(0)
    attention, x = Attention(32, heads=4), torch.randn(3, 7, 32)
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]]) if masked else None
    expected = attention(x, mask=mask, causal=causal)
    expected.square().mean().backward()
    gradient, attention.query.weight.grad = attention.query.weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        got = attention(x, mask=mask, causal=causal)
    got.float().square().mean().backward()
    assert (got - expected).abs().max() < 0.02 * expected.abs().max()
    off = (attention.query.weight.grad - gradient).abs().max()
    assert off < 0.03 * gradient.abs().max()
