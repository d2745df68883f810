import diffusers
import pytest
import torch

from diffusion_lib.autoencoder import Autoencoder, AutoencoderConfig
from diffusion_lib.stable_diffusion import SD1_AUTOENCODER, autoencoder_weights

NARROW = AutoencoderConfig((32, 64, 64), latent_channels=4, layers=2, groups=32)


def their_narrow_autoencoder():
    torch.manual_seed(0)
    levels = len(NARROW.channels)
    return diffusers.AutoencoderKL(
        block_out_channels=NARROW.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=NARROW.layers,
        latent_channels=NARROW.latent_channels,
    ).eval()


@torch.no_grad()
def test_loads_diffusers_weights_strictly_and_gives_the_same_output():
    theirs, ours = their_narrow_autoencoder(), Autoencoder(NARROW).eval()
    ours.load_state_dict(autoencoder_weights(theirs.state_dict()), strict=True)
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    expected = theirs.encode(x).latent_dist
    mean, log_variance = ours.moments(x)
    assert (mean - expected.mean).abs().max() < 1e-5
    assert (log_variance - expected.logvar).abs().max() < 1e-5
    assert (ours.encode(x) - 0.18215 * expected.mean).abs().max() < 1e-5
    z = torch.randn(2, 4, 8, 12)
    assert (ours.decode(0.18215 * z) - theirs.decode(z).sample).abs().max() < 1e-5


@torch.no_grad()
def test_loads_the_names_of_2022():
    theirs, ours = their_narrow_autoencoder(), Autoencoder(NARROW)
    old, names = {}, dict(to_q="query", to_k="key", to_v="value", to_out="proj_attn")
    for name, tensor in theirs.state_dict().items():
        for new, former in names.items():
            name = name.replace(f".{new}.0.", f".{new}.").replace(f".{new}.", f".{former}.")
        old[name] = tensor[..., None, None] if "attentions" in name and tensor.ndim == 2 else tensor
    ours.load_state_dict(autoencoder_weights(old), strict=True)
    x = torch.rand(1, 3, 16, 16)
    assert (ours.moments(x)[0] - theirs.encode(x).latent_dist.mean).abs().max() < 1e-5


def test_stable_diffusion_has_its_83_653_863_parameters():
    with torch.device("meta"):
        model = Autoencoder(SD1_AUTOENCODER)
    assert sum(p.numel() for p in model.parameters()) == 83_653_863


@pytest.mark.parametrize("fold, factor", [(1, 4), (2, 8)])
def test_shapes(fold, factor):
    model = Autoencoder(AutoencoderConfig((8, 16, 16), latent_channels=6, fold=fold))
    z = model.encode(torch.zeros(2, 3, 32, 16))
    assert z.shape == (2, 6, 32 // factor, 16 // factor)
    assert model.decode(z).shape == (2, 3, 32, 16)


def test_the_draw_lets_the_gradient_through_to_mean_and_deviation():
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig((8, 16), kl=0.0))
    model.loss(torch.rand(2, 3, 8, 8), ["a", "b"], torch.Generator().manual_seed(1)).backward()
    mean, deviation = model.quant.bias.grad.chunk(2)
    assert mean.abs().min() > 0 and deviation.abs().min() > 0


def test_the_divergence_is_the_closed_form():
    torch.manual_seed(0)
    model, x = Autoencoder(AutoencoderConfig((8, 16), kl=1.0)), torch.rand(2, 3, 8, 8)
    without = Autoencoder(AutoencoderConfig((8, 16), kl=0.0))
    without.load_state_dict(model.state_dict())
    losses = [m.loss(x, generator=torch.Generator().manual_seed(1)) for m in (model, without)]
    mean, log_variance = model.moments(x)
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean()
    assert abs(losses[0] - losses[1] - expected) < 1e-5


def test_measured_scale_makes_the_variance_one():
    torch.manual_seed(0)
    model, x = Autoencoder(AutoencoderConfig((8, 16))), torch.rand(8, 3, 16, 16) * 2 - 1
    model.measure_scale(x.split(3))
    assert abs(model.encode(x).std() - 1) < 1e-5
    assert "scale" in model.state_dict()


@pytest.mark.parametrize(
    "shape", [(1, 3, 15, 16), (1, 4, 16, 16), (3, 16, 16)], ids=["size", "channels", "no batch"]
)
def test_pictures_that_do_not_fit(shape):
    with pytest.raises(ValueError, match="multiples of 2, not"):
        Autoencoder(AutoencoderConfig((8, 16))).encode(torch.zeros(shape))


@pytest.mark.parametrize(
    "change", [dict(channels=()), dict(channels=(12,)), dict(fold=0), dict(kl=-1)]
)
def test_configurations_that_make_no_sense(change):
    with pytest.raises(ValueError):
        AutoencoderConfig(**change)
