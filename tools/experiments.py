"""The longer trainings that notebooks quote: python tools/experiments.py NAME [SEED …]

faults: notebook 09, three faults of a small painter after 3,000 steps (saves those of seed 0)
times:  notebook 04, the error at each time after 700 and after 3,000 steps
scales: notebook 06, the guidance that a model wants which was trained for less long (with AdamW)
solvers: notebook 08, from how many calls on a better method pays (no training)
copies: notebook 12, how near the paintings are to the pictures that a painter was trained on

Each prints its runs, for the seeds 0, 1 and 2 if none is named. Some minutes on a GPU; on two CPU
cores a quarter of an hour (faults, times, solvers), an hour or two (copies) or some hours (scales).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from diffusion_lib import (  # noqa: E402
    Denoiser,
    Sprites,
    TextToImage,
    UNet,
    UNetConfig,
    cosine_schedule,
    course_config,
    ddim,
    dpm_solver,
    heun,
    last,
    load_pretrained,
    shuffled,
    train,
)
from diffusion_lib.crowds import distances  # noqa: E402
from diffusion_lib.data import BACKGROUNDS, KINDS  # noqa: E402
from diffusion_lib.metrics import match, prompt_accuracy  # noqa: E402
from diffusion_lib.muon import Muon  # noqa: E402
from diffusion_lib.pipeline import sprite_config  # noqa: E402

DEVICE = course_config().device
SCHEDULE = cosine_schedule()


def small(channels: tuple[int, ...], seed: int, kind: type = Denoiser) -> Denoiser:
    torch.manual_seed(seed)  # the first weights
    config = UNetConfig(channels=channels, layers=1, attention=(False,) * len(channels))
    return kind(UNet(config), SCHEDULE, "v").to(DEVICE)


class WithoutRoot(Denoiser):
    """Its training mixes sigma² eps into x0, not sigma eps."""

    def loss(self, x0: Tensor, cond=None, generator=None) -> Tensor:
        t = torch.randint(1, SCHEDULE.T + 1, (len(x0),), generator=generator).to(x0.device)
        eps = torch.randn(x0.shape, generator=generator).to(x0)
        alpha, sigma = SCHEDULE.at(t, like=x0)
        answer = self.ask(alpha * x0 + sigma**2 * eps, t, cond)
        return (answer - self.target(x0, eps, alpha, sigma)).square().mean()


@torch.no_grad()
def share(denoiser: Denoiser, x0: Tensor) -> float:
    """The loss on rightly noised x0, over what the answer 0 would cost. Mean of 16 draws."""
    lost = there = 0.0
    for seed in range(16):
        generator = torch.Generator().manual_seed(seed)
        t = torch.randint(1, SCHEDULE.T + 1, (len(x0),), generator=generator).to(x0.device)
        eps = torch.randn(x0.shape, generator=generator).to(x0)
        alpha, sigma = SCHEDULE.at(t, like=x0)
        target = denoiser.target(x0, eps, alpha, sigma)
        lost += (denoiser.ask(alpha * x0 + sigma * eps, t, None) - target).square().mean().item()
        there += target.square().mean().item()
    return lost / there


def faults(seed: int) -> None:
    prompts = ["a red heart on paper", "a green potion on paper"]
    pictures = torch.stack([Sprites.render(p, i) for i in range(16) for p in prompts]).to(DEVICE)
    noise = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE)

    def batches(images: Tensor) -> Iterator[tuple[Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield (images[torch.randint(len(images), (16,), generator=generator)],)

    kept = {}
    stored = (pictures + 1) * 127.5
    runs = {"healthy": (Denoiser, pictures), "unscaled": (Denoiser, stored)}
    for name, (kind, data) in (runs | {"without root": (WithoutRoot, pictures)}).items():
        model = small((16, 32), seed, kind)
        for state in train(model, batches(data), steps=3000, lr=6e-3, warmup=20):
            pass
        painter, said = state.ema.model, f"share of the answer 0 {share(state.ema.model, data):.3f}"
        for calls in (20, 200):
            x = last(ddim(painter, SCHEDULE, noise, calls))
            x = x / 127.5 - 1 if name == "unscaled" else x
            said += f"; {calls} calls: cost {match(x.clamp(-1, 1).cpu())[1].mean():.3f}"
        print(f"faults, seed {seed}, {name}: {said}", flush=True)
        kept |= {f"{name}.{k}": v.half().cpu() for k, v in painter.net.state_dict().items()}
    if seed == 0:
        save_file(kept, ROOT / "notebooks" / "faults.safetensors")


def times(seed: int) -> None:
    sprites = Sprites()
    kinds = torch.tensor([list(KINDS).index(k) for k in ("heart", "star", "potion", "mushroom")])
    on_paper = sprites.attributes[:, 5] == list(BACKGROUNDS).index("paper")
    images = sprites.images[on_paper & torch.isin(sprites.attributes[:, 0], kinds)]
    kept = torch.arange(len(images)) % 12 == 0
    examined, images = (images[kept].float() / 127.5 - 1).to(DEVICE), images[~kept]

    class Pictures:
        def __len__(self) -> int:
            return len(images)

        def batch(self, indices: Tensor) -> tuple[Tensor]:
            return (images[indices].float() / 127.5 - 1,)

    at = [1, 20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 950, 1000]
    for steps in (700, 3000):
        model = small((16, 32, 32), seed)
        for state in train(model, shuffled(Pictures(), 16, seed), steps=steps, lr=6e-3, warmup=30, decay=0.98):  # fmt: skip
            pass
        generator, errors = torch.Generator().manual_seed(2), []
        with torch.no_grad():
            for t in at:
                eps = torch.randn(4, *examined.shape, generator=generator).to(DEVICE).flatten(0, 1)
                x0, alpha, sigma = examined.repeat(4, 1, 1, 1), *SCHEDULE.at(t, like=examined)
                heard = torch.full((len(x0),), t - 1, device=DEVICE)
                answer = state.ema.model.net(alpha * x0 + sigma * eps, heard)
                errors.append((answer - (alpha * eps - sigma * x0)).square().mean().item())
        said = ", ".join(f"{t}: {e:.2f}" for t, e in zip(at, errors))
        print(f"times, seed {seed}, {steps} steps, error of v at {said}", flush=True)


def scales(seed: int) -> None:
    data, prompts = Sprites(seed=seed), Sprites.held_out_prompts(500, seed=seed)
    for steps in (700, 1900, None):
        if steps is None:
            model = load_pretrained("sprites").to(DEVICE)
        else:
            torch.manual_seed(seed)
            config = sprite_config(data.words) | {"prediction": "v", "times": "uniform"}
            model = TextToImage.from_config(config).to(DEVICE)
            for state in train(model, shuffled(data, 64, seed), steps=steps, seed=seed):
                pass
            model = state.ema.model.eval()
        said = []
        for w in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0):
            images = model.generate(prompts, guidance=w, seed=seed).cpu()
            cost = match(images)[1].mean()
            said.append(f"{w:g}: {prompt_accuracy(images, prompts):.3f} ({cost:.3f})")
        which = f"{steps} steps" if steps else "shipped"
        print(f"scales, seed {seed}, {which}, accuracy (cost) at w = {', '.join(said)}", flush=True)


def solvers(seed: int) -> None:
    model = load_pretrained("sprites").to(DEVICE)
    for w in (1.0, 3.0):
        apart: dict[tuple[str, int], list[float]] = {}
        for part in (2 * seed, 2 * seed + 1):
            prompts = Sprites.seen_prompts(32, seed=part) + Sprites.held_out_prompts(32, seed=part)
            x, denoise = model.noise(64, seed=100 + part), model.denoise_with(prompts, guidance=w)
            end = last(heun(denoise, SCHEDULE, x, 128))

            def off(sampler, steps: int) -> float:
                return (last(sampler(denoise, SCHEDULE, x, steps)) - end).square().mean().sqrt().item()  # noqa: B023  # fmt: skip

            for n in (4, 8, 12, 16, 20, 24, 32):
                euler = off(ddim, n)
                apart.setdefault(("Heun", n), []).append(off(heun, n // 2) - euler)
                apart.setdefault(("DPM-Solver++", n), []).append(off(dpm_solver, n) - euler)
        for (name, n), values in apart.items():
            said = ", ".join(f"{v:+.3f}" for v in values)
            print(
                f"solvers, seed {seed}, w = {w:g}, {n} calls: {name} less DDIM {said}", flush=True
            )


def copies(seed: int) -> None:
    """Sprites averaged to 8 x 8. A copy: nearer than 0.1 (RMS) to a picture of the training."""
    sprites = Sprites(seed=seed).images
    everything = F.avg_pool2d(sprites.float() / 127.5 - 1, 2).to(DEVICE)
    fresh = everything[-1024:]
    noise = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).to(DEVICE)

    def nearest(x: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        rms = distances(x.flatten(1), pictures.flatten(1)) / 192**0.5
        return rms.min(dim=1)

    # (how many pictures, how often the first twenty of them are there)
    for n, often in ((50, 1), (200, 1), (1000, 1), (1000, 50), (5000, 1)):
        pictures, generator = everything[:n], torch.Generator().manual_seed(seed)
        weights = torch.ones(n)
        weights[:20] = often

        def batches(pictures=pictures, weights=weights, generator=generator):
            while True:
                yield (pictures[torch.multinomial(weights, 32, True, generator=generator)],)

        torch.manual_seed(seed)
        config = UNetConfig(channels=(32, 64), layers=1, attention=(False, False))
        model = Denoiser(UNet(config), SCHEDULE, "flow").to(DEVICE)
        for state in train(model, batches(), steps=3000, lr=4e-3, decay=0.99, optimiser=Muon):
            pass
        x = last(ddim(state.ema.model, SCHEDULE, noise, 30)).clamp(-1, 1)
        (far, which), (fresh_far, _) = nearest(x, pictures), nearest(fresh, pictures)
        copied = far < 0.1
        print(
            f"copies, seed {seed}, {n} pictures, twenty of them {often} times: painted to nearest "
            f"{far.median():.3f}, fresh {fresh_far.median():.3f}; copies {copied.float().mean():.3f} "
            f"(of the twenty {(copied & (which < 20)).float().mean():.3f}), "
            f"fresh {(fresh_far < 0.1).float().mean():.3f}",
            flush=True,
        )


if __name__ == "__main__":
    chosen = {f.__name__: f for f in (faults, times, scales, solvers, copies)}.get(
        " ".join(sys.argv[1:2])
    )
    if not chosen:
        sys.exit(__doc__)
    for number in sys.argv[2:] or "012":
        chosen(int(number))
