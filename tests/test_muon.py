"""Muon, against torch's own and against what the mathematics says."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from diffusion_lib import load_checkpoint, save_checkpoint, state_of, train
from diffusion_lib.muon import Muon, orthogonalised


def matrix(rows, columns, values):
    """A matrix with these singular values."""
    generator = torch.Generator().manual_seed(rows)
    u, _ = torch.linalg.qr(torch.randn(rows, len(values), generator=generator))
    v, _ = torch.linalg.qr(torch.randn(columns, len(values), generator=generator))
    return u @ torch.diag(values) @ v.T


@pytest.mark.parametrize("shape", [(8, 8), (6, 40), (40, 6), (1, 5)])
def test_singular_values_become_one_and_the_vectors_stay(shape):
    values = torch.logspace(0, -1.5, min(shape))
    m = matrix(*shape, values)
    made = orthogonalised(torch.stack([m, 7 * m]))
    assert torch.allclose(made[0], made[1], atol=1e-5)  # the scale does not matter
    assert torch.linalg.svdvals(made[0]).sub(0.95).abs().max() < 0.3
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    inner = u.T @ made[0] @ vh.T
    assert (inner - torch.diag(inner.diag())).abs().max() < 1e-4


def test_of_nothing_comes_nothing():
    assert torch.equal(orthogonalised(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (8, 32)])
def test_as_torch_does_it(shape):
    torch.manual_seed(0)
    mine = nn.Parameter(torch.randn(shape))
    theirs = nn.Parameter(mine.detach().clone())
    a = Muon([mine], lr=0.004, gain=5.0, weight_decay=0.5)
    b = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="original")
    for _ in range(4):
        mine.grad = torch.randn(shape)
        theirs.grad = mine.grad.clone()
        a.step()
        b.step()
    assert torch.allclose(mine, theirs, atol=2e-3)  # torch multiplies in bfloat16
    assert (mine - theirs).norm() < 0.02 * 4 * 0.05 * min(shape) ** 0.5


def test_a_convolution_is_its_matrix_and_vectors_are_left_to_adamw():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    flat, bias = (nn.Parameter(p.detach().clone()) for p in (conv.weight.flatten(1), conv.bias))
    both, matrices = Muon(conv.parameters()), Muon([flat])
    vectors = torch.optim.AdamW([bias], lr=4e-3)
    for _ in range(3):
        conv.weight.grad, conv.bias.grad = torch.randn(4, 3, 3, 3), torch.randn(4)
        flat.grad, bias.grad = conv.weight.grad.flatten(1), conv.bias.grad.clone()
        for optimiser in (both, matrices, vectors):
            optimiser.step()
    assert torch.allclose(conv.weight.flatten(1), flat, atol=1e-6)
    assert torch.equal(conv.bias, bias)


def test_matrices_of_one_size_do_not_mix():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    apart = copy.deepcopy(net)
    together, singly = Muon(net.parameters()), [Muon(layer.parameters()) for layer in apart]
    for p, q in zip(net.parameters(), apart.parameters()):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    together.step()
    for optimiser in singly:
        optimiser.step()
    for p, q in zip(net.parameters(), apart.parameters()):
        assert torch.allclose(p, q, atol=1e-6)


def test_threads_that_share_the_work_do_the_same():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3), nn.Conv2d(3, 2, 3))
    other = copy.deepcopy(net)
    with ThreadPoolExecutor(2) as pool:
        optimisers = Muon(net.parameters()), Muon(other.parameters(), map=pool.map)
        for _ in range(3):
            for p, q in zip(net.parameters(), other.parameters()):
                p.grad = torch.randn_like(p)
                q.grad = p.grad.clone()
            for optimiser in optimisers:
                optimiser.step()
    for p, q in zip(net.parameters(), other.parameters()):
        assert torch.equal(p, q)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(self, x, generator=None):
        return (self.layers(x) - x.sum(dim=1, keepdim=True)).square().mean()


def test_train_with_it_learns_and_resumes_exactly(tmp_path):
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    options = dict(steps=60, lr=2e-2, warmup=2, optimiser=Muon)
    losses = []
    for state in train(Line(), [x], **options):
        losses.append(state.loss.item())
        if state.step == 11:
            save_checkpoint(tmp_path / "half.safetensors", state_of(state, {}))
    assert losses[-1] < 0.2 * losses[0]
    half = load_checkpoint(tmp_path / "half.safetensors")
    for resumed in train(Line(), [x], resume=half, **options):
        pass
    assert torch.equal(resumed.loss, state.loss)
    for p, q in zip(resumed.model.parameters(), state.model.parameters()):
        assert torch.equal(p, q)
    with pytest.raises(ValueError, match="begun with optimiser Muon, not AdamW"):
        next(train(Line(), [x], steps=60, lr=2e-2, warmup=2, resume=half))


def test_float16_skips_a_step_that_overflows():
    weight = nn.Parameter(torch.ones(2, 2))
    optimiser = Muon([weight], fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale((weight * float("inf")).sum()).backward()
    scaler.unscale_(optimiser)
    scaler.step(optimiser)
    scaler.update()
    assert torch.equal(weight, torch.ones(2, 2)) and scaler.get_scale() == 2.0


def test_products_in_bfloat16_are_near_enough():
    torch.manual_seed(0)
    gradient, moves = torch.randn(24, 40), []
    for precision in (torch.float32, torch.bfloat16):
        weight = nn.Parameter(torch.zeros(24, 40))
        optimiser = Muon([weight], lr=0.01, precision=precision)
        weight.grad = gradient.clone()
        optimiser.step()
        moves.append(weight.detach().clone())
    assert all(m.dtype == torch.float32 for m in moves)
    assert not torch.equal(*moves)
    assert torch.cosine_similarity(moves[0].flatten(), moves[1].flatten(), dim=0) > 0.999
