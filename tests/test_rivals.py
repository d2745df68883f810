"""The benchmark beside other packages: its networks, its clock and exam, its table."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from diffusion_lib import Sprites, TextToImage
from diffusion_lib.pipeline import sprite_config

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "rivals.py"
spec = importlib.util.spec_from_file_location("rivals", SCRIPT)
rivals = importlib.util.module_from_spec(spec)
sys.modules["rivals"] = rivals  # its dataclass looks itself up
spec.loader.exec_module(rivals)


def test_the_diffusers_rival_has_our_structure_and_learns():
    torch.manual_seed(0)
    theirs = rivals.Diffusers()
    ours = TextToImage.from_config(sprite_config(Sprites.words))
    sizes = [sum(p.numel() for p in m.parameters()) for m in (theirs, ours)]
    assert sizes[0] == sizes[1]
    x0, captions = Sprites(8).batch(range(8))
    theirs.loss(x0, captions).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in theirs.parameters())
    assert theirs.text_encoder.token.weight.grad.abs().sum() > 0
    for paint in theirs.ways().values():
        with torch.no_grad():
            assert paint(["a red cat"]).isfinite().all()


def test_the_originals_network_hears_time_and_words_and_learns_its_shortcut():
    torch.manual_seed(0)
    net = rivals.ContextUnet(context=64).eval()
    x, t, context = torch.randn(2, 3, 16, 16), torch.tensor([5, 400]), torch.randn(2, 7, 64)
    mask = torch.ones(2, 7, dtype=torch.bool)
    out = net(x, t, context, mask)
    assert out.shape == x.shape and torch.equal(out, net(x, t, context, mask))
    assert not torch.allclose(out, net(x, t + 50, context, mask))
    assert not torch.allclose(out, net(x, t, -context, mask))
    assert any("shortcut" in name for name, _ in net.named_parameters())


def test_a_race_is_noted_at_each_mark_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rivals, "LOG", tmp_path / "log.jsonl")
    monkeypatch.setattr(rivals, "FIGURE", tmp_path / "figure.png")
    recipe = rivals.Recipe(rivals.Original, 1e-3, batch=2)
    monkeypatch.setitem(rivals.RECIPES, "original-toy", recipe)
    rivals.compete("original-toy", 0.5, (0.01, 0.5), ["a red cat", "a blue dragon"])
    rows = [json.loads(line) for line in rivals.LOG.read_text().splitlines()]
    assert len(rows) == 2 and rows[0]["peak_GiB"] > 0 and rows[1]["peak_GiB"] is None
    assert 0.01 <= rows[0]["seconds"] <= rows[1]["seconds"]
    assert all(row["right"] <= row["high"] and row["way"].startswith("DDIM") for row in rows)
    ours = dict(rows[0], name="ours", right=0.95, seconds=150.0)
    rivals.draw([*rows, ours])
    table = capsys.readouterr().out
    assert "original-toy                 never" in table and "150 s   95%" in table
    assert rivals.FIGURE.stat().st_size > 10_000


@pytest.mark.parametrize("share, expected", [(0, 1), (0.5, 0.5), (1, 0), (2, 0)])
def test_a_rate_falls_to_nothing_with_time(share, expected):
    recipe = rivals.RECIPES["diffusers-0.001"]
    assert recipe.rate(1000, share) == pytest.approx(expected)
    assert recipe.rate(10, share) == pytest.approx(expected / 10)
