"""The speedrun: from fresh weights to 95% of 500 unseen prompts right, on two CPU cores.

    python benchmarks/speedrun.py                        the newest record, seeds 0, 1 and 2
    python benchmarks/speedrun.py 01_baseline 02_muon    records against each other, in turns

A record is a folder with a `recipe.py`: `run(data, seed)` yields the state of its training after
each step, as `diffusion_lib.train` does, and the last state's `ema.model` is examined; `SAMPLING`
says how, with at most 20 steps. The clock runs while it trains: building the data and the exam are
outside, compilation is inside. A record counts if each of three seeds has at least 95% right, and
no lower end of an interval (by pair of kind and colour) lies below 92%. Its score is the median of
its seconds, over that of the baseline in the same run: seconds alone belong to one machine.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: kinder to a busy machine
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from diffusion_lib import Sprites  # noqa: E402
from diffusion_lib.metrics import correct, obedience  # noqa: E402

RECORDS = Path(__file__).resolve().parent / "records"
CORES, PROMPTS, RIGHT, LOW, MOST_STEPS = 2, 500, 0.95, 0.92, 20


class Counted(Sprites):
    """The training data, which counts how many pictures it has handed out."""

    shown = 0

    def batch(self, rows):
        self.shown += len(rows)
        return super().batch(rows)


def load(record: Path):
    spec = importlib.util.spec_from_file_location("recipe", record / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    if not 1 <= recipe.SAMPLING["steps"] <= MOST_STEPS:
        raise ValueError(f"{record.name} samples in {recipe.SAMPLING['steps']} steps, not 1…20")
    return recipe


def clocked(walk, name: str, steps: int | None = None):
    """The last state of a training, and its seconds."""
    began = time.perf_counter()
    for state in tqdm(walk, desc=name, total=steps, unit="step"):
        pass
    state.loss.item()  # on a GPU: until the last step is done
    return state, time.perf_counter() - began


def examined(model, **sampling) -> tuple[float, float, float]:
    """The share of unseen prompts that are right, and its 95% interval by (kind, colour) pair."""
    model.eval()
    prompts = Sprites.held_out_prompts(PROMPTS, seed=0)
    right = torch.cat(
        [
            correct(model.generate(some, seed=i, **sampling).cpu(), some)
            for i in range(0, PROMPTS, 100)
            for some in [prompts[i : i + 100]]
        ]
    )
    return obedience(right, prompts)


def one(record: Path, seed: int) -> dict:
    """One training and its exam."""
    torch.set_num_threads(CORES)
    recipe, data = load(record), Counted()
    state, seconds = clocked(recipe.run(data, seed), f"{record.name}, seed {seed}")
    share, low, high = examined(state.ema.model, **recipe.SAMPLING)
    found = dict(seconds=seconds, images=data.shown / seconds, right=share, low=low, high=high)
    return {"record": record.name, "seed": seed, **found}


HEAD = "record           seed  seconds  images/s  right    95% interval"


def row(r: dict) -> str:
    return (
        f"{r['record']:<16} {r['seed']:4}  {r['seconds']:7.1f}  {r['images']:8.0f}  {r['right']:6.1%}"
        f"   {r['low']:.1%} to {r['high']:.1%}"
    )


def verdicts(runs: list[dict]) -> str:
    """A line for each record: median seconds, over those of the oldest, and whether it counts."""
    lines, oldest = [], None
    for name in sorted({r["record"] for r in runs}):
        its = [r for r in runs if r["record"] == name]
        median = statistics.median(r["seconds"] for r in its)
        oldest = oldest or median
        good = all(r["right"] >= RIGHT and r["low"] >= LOW for r in its)
        counts = (
            "counts" if good and len(its) >= 3 else "too few seeds" if good else "does not count"
        )
        lines.append(f"{name}: median {median:.1f} s, {oldest / median:.2f} x the oldest; {counts}")
    return "\n".join(lines)


def main() -> None:
    every = sorted(p.parent.name for p in RECORDS.glob("*/recipe.py"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", nargs="*", default=every[-1:], help=f"of {', '.join(every)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    folders = [RECORDS / name if name in every else Path(name) for name in args.records]
    for folder in folders:
        if not (folder / "recipe.py").is_file():
            parser.error(f"there is no {folder}/recipe.py; records: {', '.join(every)}")
    if args.one:
        print(json.dumps(one(folders[0], args.seeds[0])))
        return
    runs = []
    print(
        f"{CORES} of {os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}\n{HEAD}"
    )
    for seed in args.seeds:  # in turns, so that a busy hour is shared
        for folder in folders:  # each in a process of its own
            command = [sys.executable, __file__, "--one", str(folder), "--seeds", str(seed)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(f"{folder.name} failed with seed {seed}: see above")
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(row(runs[-1]), flush=True)
    print(verdicts(runs))


if __name__ == "__main__":
    main()
