import diffusers
import pytest
import torch
from torch.nn.functional import mse_loss

from diffusion_lib import Denoiser, cosine_schedule, ddim, last, train
from diffusion_lib.conditions import Cond
from diffusion_lib.dit import DiT, DiTConfig, positions
from diffusion_lib.muon import Muon
from diffusion_lib.stable_diffusion import dit_weights


def shaken(net):
    """No longer zero where training begins with zeros."""
    torch.manual_seed(1)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return net.eval()


@pytest.mark.parametrize("patch", [1, 2, 4])
@torch.no_grad()
def test_diffusers_weights_load_strictly_and_answer_the_same(patch):
    torch.manual_seed(0)
    theirs = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        sample_size=8,
        patch_size=patch,
        num_embeds_ada_norm=5,
        norm_eps=1e-6,  # the paper's; diffusers has 1e-6 in one norm and 1e-5 in the other
    ).eval()
    for block in theirs.transformer_blocks:
        block.norm1.emb = theirs.transformer_blocks[0].norm1.emb  # shared, as in the paper
    theirs.transformer_blocks[0].norm1.emb.time_proj.downscale_freq_shift = 0  # the paper's, too
    ours = DiT(DiTConfig(4, 8, patch, dim=32, layers=3, heads=4)).eval()
    ours.load_state_dict(dit_weights(theirs.state_dict(), label=3), strict=True)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([7, 913])
    expected = theirs(x, t, torch.tensor([3, 3])).sample
    assert (ours(x, t) - expected).abs().max() < 1e-5


def test_dit_xl_has_its_675_million_parameters():
    with torch.device("meta"):
        net = DiT(DiTConfig(4, 8, 2, 1152, 28, 16))
    tables = 1001 * 1152 + 256 * 1152  # the paper's of classes, and of places (ours are computed)
    assert sum(p.numel() for p in net.parameters()) + tables == 675_129_632


@torch.no_grad()
def test_untrained_it_answers_zero_and_each_block_hands_on_what_it_gets():
    net = DiT(DiTConfig(3, 3, 2, 32, 2, 4, context_dim=16))
    x, context = torch.randn(2, 3, 8, 12), torch.randn(2, 5, 16)
    assert torch.equal(net(x, torch.tensor([1, 2]), context), torch.zeros_like(x))
    tokens = torch.randn(2, 6, 32)
    assert torch.equal(net.blocks[0](tokens, torch.randn(2, 32), context, None), tokens)


@torch.no_grad()
def test_time_words_and_places_are_heard_and_what_is_masked_is_not():
    net = shaken(DiT(DiTConfig(3, 3, 2, 32, 2, 4, context_dim=16)))
    x, context = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 16)
    mask = torch.arange(5) < torch.tensor([[2], [5]])
    before = net(x, 3, context, mask)
    assert (net(x, 4, context, mask) - before).abs().max() > 1e-4
    changed = context + torch.randn(2, 5, 16) * ~mask[..., None]
    assert torch.equal(net(x, 3, changed, mask), before)
    assert (net(x, 3, context + 1, mask) - before).abs().max() > 1e-4
    turned = net(x.flip(3), 3, context, mask).flip(3)
    assert (turned - before).abs().max() > 1e-4  # places count: it is no set of patches


@torch.no_grad()
def test_patches_come_back_where_they_were():
    """With an identity for a network, each output patch sits where its input patch was."""
    net = DiT(DiTConfig(3, 3, 2, 12, 1, 2)).eval()
    net.patches.weight.copy_(torch.eye(12).view(12, 3, 2, 2))
    net.patches.bias.zero_()
    order = torch.arange(12).view(3, 2, 2).permute(1, 2, 0).flatten()  # (patch, patch, C)
    net.out.weight.copy_(torch.eye(12)[order])
    net.norm_out = torch.nn.Identity()
    x = torch.randn(2, 3, 4, 6)
    at = positions(2, 3, 12).T.view(1, 12, 2, 3)
    shifted = net(x, 1) - x
    assert torch.allclose(torch.nn.functional.pixel_unshuffle(shifted, 2), at, atol=1e-5)


def test_positions_by_hand():
    grid = positions(2, 3, 8).view(2, 3, 8)
    row, column = 1, 2
    waves = [
        f(torch.tensor(float(k)) * r)
        for k in (column, row)
        for f in (torch.sin, torch.cos)
        for r in (1, 0.01)
    ]
    assert torch.allclose(grid[row, column], torch.stack(waves), atol=1e-6)


def test_denoiser_and_training_take_it_as_they_take_a_unet():
    torch.manual_seed(0)
    net = DiT(DiTConfig(1, 1, 2, 32, 2, 4, context_dim=8))
    denoiser = Denoiser(net, cosine_schedule(), "v")
    bars = torch.tensor([[[[1.0, -1.0] * 4] * 8], [[[1.0] * 8, [-1.0] * 8] * 4]])  # | and -
    words = torch.randn(2, 1, 8)
    batch = bars.repeat(16, 1, 1, 1), Cond(words.repeat(16, 1, 1))
    for state in train(denoiser, [batch], steps=300, lr=4e-3, optimiser=Muon, decay=0.9):
        pass
    model = state.ema.model.eval()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    painted = last(ddim(lambda x, t: model(x, t, Cond(words)), model.schedule, x, 20))
    assert mse_loss(painted, bars) < 0.05


def test_what_it_cannot_take():
    for wrong, said in (
        (dict(dim=30, heads=4), "split evenly"),
        (dict(patch=0), "patch must be at least 1"),
        (dict(context_dim=0), "context_dim"),
    ):
        with pytest.raises(ValueError, match=said):
            DiTConfig(**wrong)
    net = DiT(DiTConfig(3, 3, 4, 32, 1, 4, context_dim=8))
    for x, context, said in (
        (torch.zeros(1, 4, 8, 8), torch.zeros(1, 1, 8), r"takes \(B, 3, H, W\)"),
        (torch.zeros(1, 3, 8, 6), torch.zeros(1, 1, 8), "multiples of 4"),
        (torch.zeros(1, 3, 8, 8), None, "wants a context"),
    ):
        with pytest.raises(ValueError, match=said):
            net(x, 1, context)
