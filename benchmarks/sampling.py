"""Seconds of painting, and where they go, on this machine: python benchmarks/sampling.py

Best of three runs, each after a first; run it on an idle machine.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: kinder to a busy machine
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from diffusion_lib import Sprites, denoiser, load_pretrained  # noqa: E402


def best(f: Callable, runs: int = 3) -> float:
    """Seconds of the fastest run."""
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        f()
        found.append(time.perf_counter() - began)
    return min(found)


def process(*command: str) -> float:
    """Seconds from command to end, of a new Python process."""
    return best(lambda: subprocess.run([sys.executable, *command], check=True, capture_output=True))


def main() -> None:
    print(f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}")
    model, prompts = load_pretrained(), Sprites.held_out_prompts(64)
    for n in (1, 16, 64):
        model.generate(prompts[:n], steps=2, seed=0)
        seconds = best(lambda: model.generate(prompts[:n], seed=0))
        print(f"{n:3} pictures, 20 guided steps: {seconds:.2f} s, {n / seconds:.1f} a second")

    inside, by_core = [0.0], denoiser.by_core

    def timed(*args):
        began = time.perf_counter()
        answer = by_core(*args)
        inside[0] += time.perf_counter() - began
        return answer

    denoiser.by_core = timed
    began = time.perf_counter()
    model.generate(prompts, seed=0)
    whole = time.perf_counter() - began
    print(f"    of that beyond the network's own time: {1 - inside[0] / whole:.1%}")
    denoiser.by_core = lambda f, *batch: f(*batch)
    seconds = best(lambda: model.generate(prompts, seed=0))
    print(f" 64 pictures, all threads for each operation in turn: {seconds:.2f} s")
    denoiser.by_core = by_core

    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.png")
        whole = process("-m", "diffusion_lib", "generate", "a red dragon facing left", "-o", out)
    print(f"new process, from command to picture and film: {whole:.1f} s")
    print(f"    of which import torch: {process('-c', 'import torch'):.1f} s")


if __name__ == "__main__":
    main()
