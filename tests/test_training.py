import os
import resource
import subprocess
import sys
from itertools import islice

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffusion_lib.data.sprites import Sprites
from diffusion_lib.pipeline import TextToImage, sprite_config
from diffusion_lib.training import (
    EMA,
    Checkpoint,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
    shuffled,
    state_of,
    train,
)


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

    def __getitems__(self, i):
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

    with pytest.raises(FloatingPointError, match="nan at step 0: try a smaller learning rate"):
        finish(train(Bad(), shuffled(Pairs(), 8), steps=3))


def test_shuffled_sees_all_once_an_epoch_and_can_start_anywhere():
    class Indices(Pairs):
        def __getitems__(self, i):
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
from diffusion_lib.training import Checkpoint, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint({str(path)!r}, Checkpoint({{}}, 4, {{"model.w": torch.ones(1_000_000)}}))
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "could not write the checkpoint" in done.stdout
    assert "the previous one is untouched" in done.stdout
    assert load_checkpoint(path).config == {"old": 1} and os.listdir(tmp_path) == ["c"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000  # only the child's


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not write the checkpoint"):
        save_checkpoint(tmp_path / "file" / "c", Checkpoint({}))
