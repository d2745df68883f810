import os
import resource
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffusion_lib.checkpoints import (
    Checkpoint,
    finished,
    load_checkpoint,
    save_checkpoint,
    state_of,
)
from diffusion_lib.data.sprites import Sprites
from diffusion_lib.denoiser import Denoiser
from diffusion_lib.pipeline import TextToImage, sprite_config
from diffusion_lib.schedules import cosine_schedule, flow_schedule
from diffusion_lib.training import EMA, learning_rate, shuffled, train
from diffusion_lib.unet import UNet, UNetConfig


class Line(nn.Module):
    """The smallest model that `train` can train: y = w x, with noise from the generator."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def loss(self, x, y, generator):
        noise = torch.randn(x.shape, generator=generator) * 0.01
        return ((self.w * x + noise - y) ** 2).mean()


class Pairs:
    def __init__(self, n=40):
        self.x = torch.linspace(-1, 1, n)

    def __len__(self):
        return len(self.x)

    def batch(self, i):
        return self.x[i], 3 * self.x[i]


def tiny(seed=0):
    torch.manual_seed(seed)
    config = sprite_config(Sprites.words)
    config["unet"] |= {"channels": [8, 8, 8], "heads": 2, "groups": 2, "context_dim": 16}
    config["text"] |= {"dim": 16, "heads": 2, "layers": 1}
    return TextToImage.from_config(config)


def finish(walk):
    for state in walk:
        pass
    return state


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_learns_and_yields_after_each_step():
    model = Line()
    steps = [s.step for s in train(model, shuffled(Pairs(), 8), steps=300, lr=0.1, warmup=0)]
    assert steps == list(range(1, 301)) and abs(model.w.item() - 3) < 0.02


def test_a_data_loader_is_run_through_again():
    loader = torch.utils.data.DataLoader([(torch.ones(2), torch.ones(2))] * 4, batch_size=2)
    assert finish(train(Line(), loader, steps=7)).step == 7
    with pytest.raises(ValueError, match="no batches"):
        finish(train(Line(), [], steps=1))


def test_learning_rate_rises_then_falls_to_nothing():
    rates = [learning_rate(i, 1000, 2.0, warmup=100) for i in range(1000)]
    assert rates[0] == pytest.approx(0.02) and max(rates) == rates[99] > 1.9
    assert rates[500] == pytest.approx(1.0) and rates[999] < 1e-5


def test_ema_is_the_average_it_says_and_warms_up():
    model = Line()
    ema = EMA(model, decay=0.9)
    model.w.data.fill_(1.0)
    ema.update(model, 1)  # decay 2/11
    assert ema.model.w.item() == pytest.approx(9 / 11)
    ema.update(model, 1000)  # decay 0.9
    assert ema.model.w.item() == pytest.approx(0.9 * 9 / 11 + 0.1)
    assert not ema.model.w.requires_grad


def test_a_loss_that_explodes_is_told():
    class Bad(Line):
        def loss(self, x, y, generator):
            return self.w.sum() * float("nan")

    with pytest.raises(
        FloatingPointError,
        match="nan at step 0, though the batch is fine: try a smaller lr",
    ):
        finish(train(Bad(), shuffled(Pairs(), 8), steps=3))


def test_shuffled_sees_all_once_an_epoch_and_can_start_anywhere():
    class Indices(Pairs):
        def batch(self, i):
            return (i,)

    batches = [b for (b,) in islice(shuffled(Indices(), 8, seed=3), 10)]
    first, second = torch.cat(batches[:5]), torch.cat(batches[5:])
    assert first.sort().values.tolist() == list(range(40)) and not torch.equal(first, second)
    later = [b for (b,) in islice(shuffled(Indices(), 8, seed=3, start=7), 3)]
    assert all(torch.equal(a, b) for a, b in zip(later, batches[7:]))
    with pytest.raises(ValueError, match="larger than the data set"):
        next(shuffled(Indices(), 41))


@pytest.mark.parametrize("make", [Line, tiny])
def test_resumed_training_gives_the_same_weights(make, tmp_path):
    data = Pairs() if make is Line else Sprites(64)
    whole = finish(train(make(), shuffled(data, 8), steps=12, lr=0.01))
    path = tmp_path / "run" / "c.safetensors"
    for state in train(make(), shuffled(data, 8), steps=12, lr=0.01):
        if state.step == 7:
            save_checkpoint(path, state_of(state, {"a": 1}))
            break
    saved = load_checkpoint(path)
    assert saved.step == 7 and saved.config == {"a": 1}
    model = make(5) if make is tiny else make()  # other fresh weights: all come from the file
    rest = finish(
        train(model, shuffled(data, 8, start=saved.step), steps=12, lr=0.01, resume=saved)
    )
    assert rest.step == 12 and equal(rest.model, whole.model)
    assert equal(rest.ema.model, whole.ema.model)


def test_same_seed_same_weights_other_seed_others():
    runs = [
        finish(train(tiny(), shuffled(Sprites(64), 8, seed=s), steps=4, seed=s)).model
        for s in (0, 0, 1)
    ]
    assert equal(runs[0], runs[1]) and not equal(runs[0], runs[2])


def test_mixed_precision_trains():
    walk = train(tiny(), shuffled(Sprites(64), 8), steps=2, amp=torch.bfloat16)
    assert finish(walk).loss.isfinite()


def test_a_finished_model_cannot_be_resumed(tmp_path):
    save_checkpoint(tmp_path / "m", Checkpoint({}, 3, {"model.w": torch.ones(1)}))
    with pytest.raises(ValueError, match="cannot be resumed"):
        next(train(Line(), shuffled(Pairs(), 8), steps=9, resume=load_checkpoint(tmp_path / "m")))


def test_missing_truncated_and_foreign_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "nothing")
    path = tmp_path / "c"
    save_checkpoint(path, Checkpoint({"a": 1}, 3, {"model.w": torch.ones(1000)}))
    for n in (4, 40, 2000):
        (tmp_path / "cut").write_bytes(path.read_bytes()[:n])
        with pytest.raises(ValueError, match="damaged, cut short"):
            load_checkpoint(tmp_path / "cut")
    save_file({"w": torch.ones(2)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="no checkpoint of diffusion_lib"):
        load_checkpoint(tmp_path / "foreign")


def test_a_full_disk_leaves_the_previous_checkpoint_whole(tmp_path):
    """A real write that fails half-way: the process may write no file above 100 kB."""
    path = tmp_path / "c"
    save_checkpoint(path, Checkpoint({"old": 1}, 3, {"model.w": torch.ones(10)}))
    code = f"""
import resource, signal, torch
from diffusion_lib.checkpoints import Checkpoint, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint({str(path)!r}, Checkpoint({{}}, 4, {{"model.w": torch.ones(1_000_000)}}))
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "could not write" in done.stdout
    assert "the previous one is untouched" in done.stdout
    assert load_checkpoint(path).config == {"old": 1} and os.listdir(tmp_path) == ["c"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000  # only the child's


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not write"):
        save_checkpoint(tmp_path / "file" / "c", Checkpoint({}))


# --- what users bring -----------------------------------------------------------------------------


def test_batches_may_be_bare_tensors_or_come_from_a_loader():
    class Alone(Line):
        def loss(self, x, generator):
            return ((self.w * x - 3 * x) ** 2).mean()

    x = torch.linspace(-1, 1, 40)
    assert finish(train(Alone(), [x], steps=3)).step == 3
    loader = torch.utils.data.DataLoader(x, batch_size=8)
    assert finish(train(Alone(), loader, steps=7)).step == 7
    pairs = torch.utils.data.DataLoader(list(zip(x, 3 * x)), batch_size=8, shuffle=True)
    assert finish(train(Line(), pairs, steps=7)).step == 7
    sprites = torch.utils.data.DataLoader(Sprites(16), batch_size=8)
    assert finish(train(tiny(), sprites, steps=2)).loss.isfinite()


@pytest.mark.parametrize(
    "batch, message",
    [
        (torch.ones(2), r"loss\(x, y, generator\), but a batch is a tuple of 1"),
        ((torch.ones(2),) * 3, "a tuple of 3"),
        ({"x": torch.ones(2), "y": torch.ones(2)}, "but a batch is a dict"),
    ],
)
def test_batches_that_the_models_loss_does_not_take(batch, message):
    with pytest.raises(TypeError, match=message):
        finish(train(Line(), [batch], steps=1))


@pytest.mark.parametrize(
    "images, captions, message",
    [
        (torch.full((2, 3, 16, 16), 255.0), ["a cat"] * 2, "x / 127.5 - 1, from 0…1"),
        (torch.rand(8, 3, 16, 16), ["a cat"] * 8, "from 0…1 it is 2 x - 1"),
        (torch.zeros(2, 3, 16, 16).byte(), ["a cat"] * 2, "float tensor"),
        (torch.full((2, 3, 16, 16), float("nan")), ["a cat"] * 2, "NaN"),
        (torch.zeros(2, 3, 16, 16), ["a cat"], "2 pictures need as many captions, not 1"),
        (
            torch.zeros(2, 3, 16, 16),
            ["a cat", None],
            "captions must be texts, but number 1 is None",
        ),
        (torch.zeros(2, 3, 16, 16), "a cat", "list of texts: write"),
        (torch.zeros(2, 3, 16, 16), torch.tensor([3, 5]), "not a tensor of torch.int64"),
        (torch.zeros(2, 1, 16, 16), ["a cat"] * 2, r"takes \(B, 3, H, W\)"),
        (torch.zeros(2, 3, 16, 18), ["a cat"] * 2, "multiples of 4"),
    ],
)
def test_pictures_and_captions_that_no_model_should_learn_from(images, captions, message):
    with pytest.raises((ValueError, TypeError), match=message):
        finish(train(tiny(), [(images, captions)], steps=1))


def test_double_precision_batches_and_models():
    images = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    assert finish(train(tiny(), [(images, ["a cat", ""])], steps=2)).loss.isfinite()
    model = finish(train(tiny().double(), [(images, ["a cat", ""])], steps=2)).model
    assert all(p.dtype == torch.float64 for p in model.parameters())
    with pytest.raises(ValueError, match=r"weights in float32: model.float\(\)"):
        finish(train(tiny().half(), [(images, ["a cat", ""])], steps=2))


def test_a_frozen_model_is_thawed_and_frozen_parts_stay():
    model = tiny().requires_grad_(False).eval()
    before = model.denoiser.net.conv_in.weight.clone()
    finish(train(model, shuffled(Sprites(16), 8), steps=2))
    assert not torch.equal(before, model.denoiser.net.conv_in.weight) and model.training
    model.denoiser.requires_grad_(False)
    before, words = (
        model.denoiser.net.conv_in.weight.clone(),
        model.text_encoder.token.weight.clone(),
    )
    finish(train(model, shuffled(Sprites(16), 8), steps=2))
    assert torch.equal(before, model.denoiser.net.conv_in.weight)
    assert not torch.equal(words, model.text_encoder.token.weight)


def compiled(net):
    return torch.compile(net, backend="eager")


@pytest.mark.parametrize(
    "wrap", [compiled, nn.DataParallel, lambda n: nn.DataParallel(compiled(n))]
)
def test_wrapped_networks_train_paint_and_leave_plain_checkpoints(wrap, tmp_path):
    plain, data = tiny(), Sprites(64)
    names = plain.state_dict().keys()
    whole = finish(train(plain, shuffled(data, 8), steps=4))
    model = tiny()
    model.denoiser.net = wrap(model.denoiser.net)
    for state in train(model, shuffled(data, 8), steps=4):
        if state.step == 2:
            save_checkpoint(tmp_path / "c", state_of(state, plain.config))
            break
    saved = load_checkpoint(tmp_path / "c")
    assert saved.part("model").keys() == saved.part("ema").keys() == names
    fresh = tiny(5)  # goes on without the wrapping, and with it
    rest = finish(train(fresh, shuffled(data, 8, start=2), steps=4, resume=saved))
    assert all(
        (a - b).abs().max() < 1e-5
        for a, b in zip(rest.model.parameters(), whole.model.parameters())
    )
    other = tiny(6)
    other.denoiser.net = wrap(other.denoiser.net)
    state = finish(train(other, shuffled(data, 8, start=2), steps=4, resume=saved))
    assert state.ema.model.generate(["a cat"], steps=1).shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(seed=1), "begun with seed 0, not 1"),
        (dict(lr=0.02), "begun with lr 0.01, not 0.02"),
        (dict(decay=0.9), "begun with decay 0.999, not 0.9"),
        (dict(batch=4), "begun with batch 8, not 4"),
        (dict(steps=3), "steps .*has done.* at least 4, not 3"),
    ],
)
def test_resuming_by_another_recipe_is_refused(change, message):
    for state in train(Line(), shuffled(Pairs(), 8), steps=6, lr=0.01):
        if state.step == 3:
            break
    saved, options = state_of(state, {}), dict(steps=6, lr=0.01) | change
    batches = shuffled(Pairs(), options.pop("batch", 8), start=3)
    with pytest.raises(ValueError, match=message):
        finish(train(Line(), batches, resume=saved, **options))


def test_a_checkpoint_of_another_model():
    for state in train(Line(), shuffled(Pairs(), 8), steps=6):
        break
    saved, model = state_of(state, {}), tiny()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="begun with model's fingerprint"):
        finish(train(model, shuffled(Sprites(8), 8), steps=6, resume=saved))
    saved.recipe.clear()  # a file that says nothing of it
    with pytest.raises(ValueError, match="of another model"):
        finish(train(model, shuffled(Sprites(8), 8), steps=6, resume=saved))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_a_step_that_would_spoil_the_weights_is_not_taken(tmp_path):
    class Cliff(Line):
        def loss(self, x, y, generator):
            return (self.w.sum() * 0).sqrt() + super().loss(x, y, generator)  # slope: 0 / 0

    model = Cliff()
    with pytest.raises(FloatingPointError, match="its gradient is not finite at step 0"):
        finish(train(model, shuffled(Pairs(), 8), steps=3))
    assert model.w.isfinite().all()
    bad = [(torch.tensor([1.0, float("inf")]), torch.ones(2))]
    with pytest.raises(FloatingPointError, match="part 0 of the batch of step 0 holds NaN or inf"):
        finish(train(Line(), bad, steps=1))
    save_checkpoint(tmp_path / "c", Checkpoint({}, 1, {"model.w": torch.ones(1)}))
    with pytest.raises(ValueError, match="has diverged: model.w holds NaN"):
        save_checkpoint(
            tmp_path / "c", Checkpoint({}, 2, {"model.w": torch.tensor([float("nan")])})
        )
    assert load_checkpoint(tmp_path / "c").step == 1


@pytest.mark.parametrize(
    "wrong", [dict(steps=0), dict(steps=1.5), dict(lr=float("nan")), dict(decay=2), dict(warmup=-1)]
)
def test_options_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be"):
        finish(train(Line(), shuffled(Pairs(), 8), **({"steps": 2} | wrong)))


def test_what_state_of_gives_is_a_copy(tmp_path):
    """The best model of a run may be kept and saved at its end."""
    for state in train(Line(), shuffled(Pairs(), 8), steps=9, lr=0.1, warmup=0):
        if state.step == 3:
            kept, weight = state_of(state, {}), state.model.w.clone()
    assert kept.step == 3 and torch.equal(kept.tensors["model.w"], weight)
    assert kept.tensors["optimiser.w.step"] == 3 and not torch.equal(state.model.w, weight)


def test_checkpoints_hold_plain_json_and_say_so(tmp_path):
    path = tmp_path / "c"
    save_checkpoint(path, Checkpoint({"at": {500: 0.1, 1000: 0.2}}, 1, {"model.w": torch.ones(2)}))
    assert load_checkpoint(path).config == {"at": {"500": 0.1, "1000": 0.2}}
    for checkpoint, message in [
        (Checkpoint({"a": np.int64(1)}), "must be plain JSON"),
        (Checkpoint({}, log=[torch.ones(1)]), "must be plain JSON"),
        (Checkpoint({}, log=[float("nan")]), "must be plain JSON"),
        (Checkpoint(None), "a checkpoint has .*None"),
        (Checkpoint({}, 1.5), "a checkpoint has .*1.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            save_checkpoint(path, checkpoint)


def test_a_finished_model_stays_one():
    whole = Checkpoint({}, 3, {"model.w": torch.ones(1), "ema.w": torch.zeros(1)})
    once = finished(whole)
    assert once.tensors.keys() == finished(once).tensors.keys() == {"model.w"}
    assert once.tensors["model.w"] == 0


def test_tied_weights_are_saved(tmp_path):
    class Tied(Line):
        def __init__(self):
            super().__init__()
            self.same = self.w

    for state in train(Tied(), shuffled(Pairs(), 8), steps=2):
        save_checkpoint(tmp_path / "c", state_of(state, {}))
    assert load_checkpoint(tmp_path / "c").part("model").keys() == {"w", "same"}


@pytest.mark.parametrize(
    "other",
    [
        dict(prediction="x0"),
        dict(schedule=flow_schedule(500)),
        dict(net=UNet(UNetConfig(channels=(8, 8), attention=(True, True), heads=1, groups=2))),
    ],
)
def test_resuming_a_network_that_means_something_else(other):
    config = UNetConfig(channels=(8, 8), attention=(True, True), heads=2, groups=4)
    options = dict(schedule=cosine_schedule(), prediction="v")
    data = [(torch.zeros(2, 3, 8, 8),)]
    for state in train(Denoiser(UNet(config), **options), data, steps=4):
        break
    saved = state_of(state, {})
    finish(train(Denoiser(UNet(config), **options), data, steps=4, resume=saved))
    with pytest.raises(ValueError, match="begun with model's fingerprint"):
        finish(
            train(
                Denoiser(**({"net": UNet(config)} | options | other)), data, steps=4, resume=saved
            )
        )


@pytest.mark.parametrize(
    "model, batches, options, error, message",
    [
        (Line(), [1, 2], {}, TypeError, "a batch is a 1"),
        (Line(), [None], {}, TypeError, "a batch is a None"),
        (nn.DataParallel(Line()), [], {}, TypeError, "DataParallel has no loss"),
        (Line(), [(torch.ones(2),) * 2], dict(amp="bf16"), ValueError, "amp is torch.bfloat16"),
        (Line(), [(torch.ones(2),) * 2], dict(clip=0), ValueError, "clip must be"),
        (Line(), [(torch.ones(2),) * 2], dict(lr=0), ValueError, "lr must be"),
        (Line(), [(torch.ones(2),) * 2], dict(seed=0.5), ValueError, "seed must be"),
    ],
)
def test_more_that_cannot_be_trained(model, batches, options, error, message):
    batches = batches or [(torch.ones(2),) * 2]
    with pytest.raises(error, match=message):
        finish(train(model, batches, steps=1, **options))


def test_a_loss_that_is_no_single_number():
    class Each(Line):
        def loss(self, x, y, generator):
            return (self.w * x - y) ** 2

    with pytest.raises(ValueError, match="loss must be one number"):
        finish(train(Each(), shuffled(Pairs(), 8), steps=1))


@pytest.mark.parametrize("seed", [2**64, 1_760_000_000_000_000_000, -7])
def test_seeds_of_any_size(seed):
    assert torch.equal(next(shuffled(Pairs(), 8, seed))[0], next(shuffled(Pairs(), 8, seed))[0])
    assert finish(train(Line(), shuffled(Pairs(), 8, seed), steps=1, seed=seed)).step == 1
    assert len(Sprites(2, seed=seed)) == 2 and len(Sprites.held_out_prompts(2, seed)) == 2
