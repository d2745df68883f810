import multiprocessing
import os
import threading

import pytest
import torch

from diffusion_lib.cores import by_core
from diffusion_lib.unet import UNet, UNetConfig


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def count(calls):
    def f(x, y):
        calls.append((len(x), threading.current_thread() is threading.main_thread()))
        return x if y is None else x + y

    return f


@torch.no_grad()
def test_the_same_answers_from_two_cores(two_threads):
    torch.manual_seed(0)
    net = UNet(UNetConfig(channels=(8, 16), attention=(False, True), context_dim=8)).eval()
    batch = torch.randn(33, 3, 8, 8), torch.arange(33), torch.randn(33, 4, 8)
    mask = torch.rand(33, 4) > 0.3
    mask[:, 0] = True
    assert (by_core(net, *batch, mask) - net(*batch, mask)).abs().max() < 1e-5


@torch.no_grad()
def test_large_batches_are_shared_out_and_small_ones_are_not(two_threads):
    calls = []
    x = torch.arange(33.0)[:, None]
    assert torch.equal(by_core(count(calls), x, None), x)
    assert sorted(calls) == [(16, False), (17, False)]
    assert torch.get_num_threads() == 2
    calls.clear()
    by_core(count(calls), x[:31], x[:31])
    assert calls == [(31, True)]


def test_gradients_are_recorded_as_ever(two_threads):
    calls, x = [], torch.ones(64, 1, requires_grad=True)
    by_core(count(calls), x, x).sum().backward()
    assert calls == [(64, True)] and (x.grad == 2).all()


@torch.no_grad()
def test_autocast_holds(two_threads):
    calls, x = [], torch.ones(64, 1)
    with torch.autocast("cpu"):
        by_core(count(calls), x, x)
    assert calls == [(64, True)]


@torch.no_grad()
def test_an_error_comes_through_and_the_threads_are_as_before(two_threads):
    def fail(x):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        by_core(fail, torch.ones(64, 1))
    assert torch.get_num_threads() == 2


@torch.no_grad()
def test_threads_begun_later_have_all_cores(two_threads):
    by_core(lambda x: x, torch.ones(64, 1))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]


@torch.no_grad()
def test_threads_live_on_from_call_to_call(two_threads):
    seen = set()
    for _ in range(3):
        by_core(lambda x: seen.add(threading.get_ident()) or x, torch.ones(64, 1))
    assert len(seen) <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
@torch.no_grad()
def test_a_forked_process_begins_threads_of_its_own(two_threads):
    by_core(lambda x: x, torch.ones(64, 1))
    child = multiprocessing.get_context("fork").Process(
        target=lambda: by_core(lambda x: x, torch.ones(64, 1))
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
