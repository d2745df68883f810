"""The speedrun's driver, on a record of two steps; and that each record says what it must."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "speedrun.py"
spec = importlib.util.spec_from_file_location("speedrun", SCRIPT)
speedrun = importlib.util.module_from_spec(spec)
spec.loader.exec_module(speedrun)
RECORDS = sorted(p.parent for p in speedrun.RECORDS.glob("*/recipe.py"))

TOY = """
import torch
from diffusion_lib import TextToImage, shuffled, train
from diffusion_lib.pipeline import sprite_config

SAMPLING = {"steps": STEPS, "guidance": 1.0}


def run(data, seed):
    torch.manual_seed(seed)
    config = sprite_config(data.words)
    config["unet"] |= {"channels": [8, 8], "attention": [False, True]}
    return train(TextToImage.from_config(config), shuffled(data, 4, seed), steps=2, seed=seed)
"""


def raced(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def test_a_record_is_run_timed_and_examined(tmp_path):
    (tmp_path / "recipe.py").write_text(TOY.replace("STEPS", "1"))
    done = raced(tmp_path, "--seeds", "3")
    assert done.returncode == 0, done.stderr
    row = re.search(rf"{tmp_path.name} +3 +([\d.]+) +(\d+) +([\d.]+)%", done.stdout)
    seconds, images, right = map(float, row.groups())
    assert 0 < seconds < 60 and images == pytest.approx(8 / seconds, abs=1 + 8 / seconds)
    assert right < 20 and f"{tmp_path.name}: median" in done.stdout
    assert "does not count" in done.stdout


def test_more_steps_than_allowed_and_what_is_not_there_are_refused(tmp_path):
    (tmp_path / "recipe.py").write_text(TOY.replace("STEPS", "21"))
    done = raced(tmp_path, "--seeds", "0")
    assert done.returncode and "samples in 21 steps, not 1…20" in done.stderr
    done = raced("99_nowhere")
    assert done.returncode and "99_nowhere/recipe.py; records: 01_baseline" in done.stderr


def a_run(record, seed, seconds, right=0.96, low=0.93):
    return dict(record=record, seed=seed, seconds=seconds, images=1.0, right=right, low=low, high=1)


def test_the_score_is_the_ratio_of_medians_and_every_seed_must_do():
    slow = [a_run("a", s, t) for s, t in enumerate((90, 100, 300))]
    fast = [a_run("b", s, t) for s, t in enumerate((50, 10, 20))]
    told = speedrun.verdicts(slow + fast)
    assert "a: median 100.0 s, 1.00 x the oldest; counts" in told
    assert "b: median 20.0 s, 5.00 x the oldest; counts" in told
    assert "too few seeds" in speedrun.verdicts(fast[:2])
    for bad in (dict(right=0.949), dict(low=0.919)):
        assert "does not count" in speedrun.verdicts([*fast[:2], a_run("b", 2, 20, **bad)])


@pytest.mark.parametrize("record", RECORDS, ids=lambda p: p.name)
def test_each_record_says_what_who_when_where_and_how_fast(record):
    recipe = speedrun.load(record)
    assert recipe.SAMPLING["steps"] <= 20 and recipe.__doc__
    text = (record / "README.md").read_text()
    for said in ("**What is new.**", "**Who, when.**", "**Machine.**", "**Ratio.**"):
        assert said in text, f"{record.name} does not say: {said}"
    assert all(f" {seed}  " in (record / "log.txt").read_text() for seed in (0, 1, 2))
