"""Seconds of training until unseen prompts are obeyed: this library beside others, in one run.

    python benchmarks/rivals.py                     everything, in turns: some hours on two cores
    python benchmarks/rivals.py diffusers-0.001     one of them (their names: --list)
    python benchmarks/rivals.py --draw              the table and the figure, from what has been run

Needs `pip install -e ".[benchmark]"`. All have the same pictures, threads and text: this library's
tokenizer and text encoder, trained along with each network (one that takes no tokens hears their
mean). Each rival is trained as its own documentation says (its batch, rate and average) and, tuned,
with batches of 64, a rate that falls to 0, and three values of it. The clock runs while it trains.
At each mark its averaged weights paint unseen prompts by each of its samplers' settings, and the
best of these counts, so that nobody is judged by a sampler that does not suit him.
"""

import argparse
import copy
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: kinder to a busy machine
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch  # noqa: E402
from speedrun import CORES, RECORDS, clocked, load  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from tqdm import tqdm  # noqa: E402

from diffusion_lib import Denoiser, Sprites, TextToImage, linear_schedule, shuffled  # noqa: E402
from diffusion_lib.metrics import correct, obedience  # noqa: E402
from diffusion_lib.text import TextConfig, TextEncoder, Tokenizer  # noqa: E402
from diffusion_lib.training import learning_rate  # noqa: E402

HERE = Path(__file__).resolve().parent
LOG, FIGURE = HERE / "rivals.jsonl", HERE.parent / "assets" / "rivals.png"
SECONDS, MARKS, PROMPTS = 750, (60, 120, 200, 300, 450, 600, 750), 200
STEPS = (150, 300, 450, 620, 1000)  # this library's rate falls to 0, so each is a run of its own
Paint = Callable[[Sequence[str]], Tensor]


def mean(context: Tensor, mask: Tensor) -> Tensor:
    """Of the words: (B, L, D) and (B, L) to (B, D)."""
    return (context * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class Rival(nn.Module):
    """The text of all; a rival adds its network, its loss, and its ways to paint."""

    drop = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = Tokenizer(Sprites.words)
        self.text_encoder = TextEncoder(TextConfig(len(self.tokenizer)))

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids, mask = self.tokenizer(prompts)
        return self.text_encoder(ids, mask), mask

    def pooled(self, prompts: Sequence[str]) -> Tensor:
        """(B, D): the mean of the words, for networks that take one vector."""
        return mean(*self.encode(prompts))

    def dropped(self, captions: Sequence[str]) -> list[str]:
        keep = (torch.rand(len(captions)) >= self.drop).tolist()
        return [c if k else "" for c, k in zip(captions, keep)]


class Diffusers(Rival):
    """UNet2DConditionModel of the same structure; DDPMScheduler as it comes: linear, eps."""

    def __init__(self) -> None:
        super().__init__()
        import diffusers

        self.net = diffusers.UNet2DConditionModel(
            sample_size=16,
            in_channels=3,
            out_channels=3,
            block_out_channels=(32, 64, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=64,
            attention_head_dim=4,
            norm_num_groups=8,
        )
        self.scheduler = diffusers.DDPMScheduler()
        self.samplers = {
            "DDIM": diffusers.DDIMScheduler.from_config(self.scheduler.config, clip_sample=True),
            "DPM-Solver++": diffusers.DPMSolverMultistepScheduler.from_config(
                self.scheduler.config
            ),
        }

    def loss(self, x0: Tensor, captions: Sequence[str]) -> Tensor:
        context, mask = self.encode(self.dropped(captions))
        noise = torch.randn_like(x0)
        t = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(x0),))
        noisy = self.scheduler.add_noise(x0, noise, t)
        output = self.net(noisy, t, context, encoder_attention_mask=mask).sample
        return nn.functional.mse_loss(output, noise)

    def ways(self) -> dict[str, Paint]:
        return {
            f"{name}, w = {w}": partial(self.paint, scheduler=s, w=w)
            for name, s in self.samplers.items()
            for w in (1.5, 3)
        }

    def paint(self, prompts: Sequence[str], scheduler, w: float, steps: int = 20) -> Tensor:
        context, mask = self.encode([""] * len(prompts) + list(prompts))
        scheduler.set_timesteps(steps)
        x = torch.randn(len(prompts), 3, 16, 16) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            output = self.net(torch.cat([x, x]), t, context, encoder_attention_mask=mask).sample
            base, towards = output.chunk(2)
            x = scheduler.step(base + w * (towards - base), t, x).prev_sample
        return x


class Lucidrains(Rival):
    """denoising-diffusion-pytorch's classifier-free-guidance class, a text's vector for a class."""

    def __init__(self) -> None:
        super().__init__()
        from denoising_diffusion_pytorch import classifier_free_guidance as package

        package.tqdm = lambda steps, **_: steps
        unet = package.Unet(dim=32, dim_mults=(1, 2, 2), num_classes=1)  # drops half of the classes
        unet.classes_emb = nn.Linear(64, 32)
        self.diffusion = package.GaussianDiffusion(
            unet, image_size=16, timesteps=1000, sampling_timesteps=20
        )

    def loss(self, x0: Tensor, captions: Sequence[str]) -> Tensor:
        return self.diffusion((x0 + 1) / 2, classes=self.pooled(captions))

    def ways(self) -> dict[str, Paint]:
        scales = ((1.5, 0.0), (3.0, 0.0), (6.0, 0.7))  # the last is its default
        return {f"w = {w:g}, phi = {p}": partial(self.paint, w=w, phi=p) for w, p in scales}

    def paint(self, prompts: Sequence[str], w: float, phi: float) -> Tensor:
        sampled = self.diffusion.sample(self.pooled(prompts), cond_scale=w, rescaled_phi=phi)
        return sampled * 2 - 1


class Residual(nn.Module):
    """Two convolutions and, if asked for, a shortcut round them (learned: the original's was not)."""

    def __init__(self, a: int, b: int, shortcut: bool = False) -> None:
        super().__init__()

        def layer(a: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.GELU())

        self.layers = nn.Sequential(layer(a), layer(b))
        self.shortcut = nn.Conv2d(a, b, 1) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.layers(x)
        return h if self.shortcut is None else (self.shortcut(x) + h) / 2**0.5


class ContextUnet(nn.Module):
    """The original repository's network, written anew: 64 features, one vector of context."""

    def __init__(self, context: int, n: int = 64) -> None:
        super().__init__()
        self.config = SimpleNamespace(in_channels=3)

        def embed(a: int, b: int) -> nn.Sequential:
            layers = nn.Linear(a, b), nn.GELU(), nn.Linear(b, b), nn.Unflatten(1, (b, 1, 1))
            return nn.Sequential(*layers)

        def down(a: int, b: int) -> nn.Sequential:
            return nn.Sequential(Residual(a, b), Residual(b, b), nn.MaxPool2d(2))

        def up(a: int, b: int) -> nn.Sequential:
            return nn.Sequential(nn.ConvTranspose2d(a, b, 2, 2), Residual(b, b), Residual(b, b))

        def normed(layer: nn.Module, b: int) -> nn.Sequential:
            return nn.Sequential(layer, nn.GroupNorm(8, b), nn.ReLU())

        self.first = Residual(3, n, shortcut=True)
        self.down1, self.down2 = down(n, n), down(n, 2 * n)
        self.to_vector = nn.Sequential(nn.AvgPool2d(4), nn.GELU())
        self.time1, self.time2 = embed(1, 2 * n), embed(1, n)
        self.context1, self.context2 = embed(context, 2 * n), embed(context, n)
        self.up0 = normed(nn.ConvTranspose2d(2 * n, 2 * n, 4, 4), 2 * n)
        self.up1, self.up2 = up(4 * n, n), up(2 * n, n)
        last = normed(nn.Conv2d(2 * n, n, 3, padding=1), n)
        self.out = nn.Sequential(last, nn.Conv2d(n, 3, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        vector = mean(context, mask)
        time = (t[:, None] + 1) / 500
        x = self.first(x)
        low = self.down1(x)
        lowest = self.down2(low)
        h = self.up0(self.to_vector(lowest))
        h = self.up1(torch.cat([self.context1(vector) * h + self.time1(time), lowest], 1))
        h = self.up2(torch.cat([self.context2(vector) * h + self.time2(time), low], 1))
        return self.out(torch.cat([h, x], 1))


class Original(TextToImage):
    """500 linear steps and eps, as the original has it; sampled by this library."""

    def __init__(self) -> None:
        tokenizer = Tokenizer(Sprites.words)
        encoder = TextEncoder(TextConfig(len(tokenizer)))
        denoiser = Denoiser(ContextUnet(encoder.config.dim), linear_schedule(500), "eps")
        super().__init__(tokenizer, encoder, denoiser)

    def ways(self) -> dict[str, Paint]:
        return {f"DDIM, w = {w}": partial(self.generate, guidance=w) for w in (1, 2, 3)}


@dataclass
class Recipe:
    """How a rival is trained; `decay`: of the moving average after n steps."""

    build: Callable[[], nn.Module]
    lr: float
    batch: int = 64
    rate: Callable[[int, float], float] = lambda n, share: (
        min(n / 100, 1) * learning_rate(min(share, 1), 1, 1.0, warmup=0)  # share: of the time
    )
    decay: Callable[[int], float] = lambda n: min(0.999, (1 + n) / (10 + n))
    optimiser: Callable = torch.optim.AdamW


RECIPES = {
    # unconditional_image_generation's README and defaults: batch 16, 1e-4, 500 steps of warm-up, then
    # a cosine. (text_to_image's are for fine-tuning: batch 1 x 4, 1e-5.)
    "diffusers-documented": Recipe(
        Diffusers,
        1e-4,
        16,
        lambda n, share: min(n / 500, 1) * (1 + math.cos(math.pi * min(share, 1))) / 2,
        lambda n: min(1 - (1 + n) ** -0.75, 0.9999),
        partial(torch.optim.AdamW, betas=(0.95, 0.999), weight_decay=1e-6),
    ),
    # README: batches of 2 x 32, 8e-5, averaged by 0.995 at every tenth step
    "lucidrains-documented": Recipe(
        Lucidrains,
        8e-5,
        64,
        lambda n, _: 1,
        lambda n: 1 if n % 10 else 0 if n <= 100 else 0.995,
        partial(torch.optim.Adam, betas=(0.9, 0.99)),
    ),
    # training.py, mended: batch 100, 1e-3 falling in a straight line, no average
    "original-documented": Recipe(
        Original, 1e-3, 100, lambda n, share: 1 - share, lambda n: 0, torch.optim.Adam
    ),
}
for name, build, rates in (
    ("diffusers", Diffusers, (5e-4, 1e-3, 2e-3)),
    ("lucidrains", Lucidrains, (5e-4, 1e-3, 2e-3)),
    ("original", Original, (5e-4, 2e-3, 4e-3)),
):
    RECIPES |= {f"{name}-{lr:g}": Recipe(build, lr) for lr in rates}


def examined(ways: dict[str, Paint], prompts: Sequence[str]) -> dict:
    """The best way's name, its share of right pictures, its interval, and its pictures a second."""
    found = []
    for way, paint in ways.items():
        torch.manual_seed(0)
        began, images = time.perf_counter(), []
        with torch.no_grad():
            for i in range(0, len(prompts), 50):
                images.append(paint(prompts[i : i + 50]).clamp(-1, 1))
        pace = len(prompts) / (time.perf_counter() - began)
        images = torch.cat(images).nan_to_num()
        share, low, high = obedience(correct(images, prompts), prompts)
        found.append((share, way, pace, low, high))
    share, way, pace, low, high = max(found)
    return dict(right=share, low=low, high=high, way=way, pictures_per_second=pace)


def compete(name: str, seconds: float, marks: Sequence[float], prompts: Sequence[str]) -> None:
    """Trains a rival, and writes a line to the log at each mark."""
    recipe, data, clock, shown = RECIPES[name], Sprites(), 0.0, 0
    torch.manual_seed(0)
    model = recipe.build().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval()
    optimiser = recipe.optimiser(model.parameters(), lr=recipe.lr)
    ahead = [mark for mark in marks if mark <= seconds]
    bar = tqdm(total=round(seconds), desc=name, unit="s")
    for n, batch in enumerate(shuffled(data, recipe.batch), start=1):
        began = time.perf_counter()
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * recipe.rate(n, clock / seconds)
        optimiser.zero_grad()
        loss = model.loss(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                [*average.parameters()], [*model.parameters()], 1 - recipe.decay(n)
            )
            for mine, its in zip(average.buffers(), model.buffers()):
                mine.copy_(its)
        clock, shown = clock + time.perf_counter() - began, shown + len(batch[1])
        bar.n = round(clock)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=n % 10 == 0)
        if ahead and clock >= ahead[0]:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            peak = memory if ahead[0] == marks[0] else None  # before it has painted
            ahead.pop(0)
            note(name, clock, n, shown / clock, peak, examined(average.ways(), prompts))
        if clock >= seconds:
            return


def ours(steps: int, prompts: Sequence[str]) -> None:
    """The newest record's recipe with that many steps."""
    newest = max(RECORDS.glob("*/recipe.py")).parent
    recipe, data = load(newest), Sprites()
    state, seconds = clocked(recipe.run(data, 0, steps), f"{newest.name}, {steps} steps", steps)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    model = state.ema.model.eval()
    torch.set_num_threads(CORES)
    ways = {f"DDIM, w = {w}": partial(model.generate, guidance=w) for w in (1.5, 2, 3)}
    note("ours", seconds, steps, 64 * steps / seconds, memory, examined(ways, prompts))


def note(name: str, seconds: float, steps: int, pace: float, memory, found: dict) -> None:
    row = dict(name=name, seconds=seconds, steps=steps, images_per_second=pace, peak_GiB=memory)
    with LOG.open("a") as log:
        log.write(json.dumps(row | found) + "\n")
    print(f"\n{name}, {seconds:.0f} s: {found['right']:.1%} right by {found['way']}", flush=True)


def draw(rows: list[dict]) -> None:
    """The table, and the figure of accuracy against seconds."""
    import matplotlib.pyplot as plt

    print(
        "contestant               90% after  best  seconds  images/s  pictures/s  GiB in training"
    )
    fig, axis = plt.subplots(figsize=(8, 4.8))
    families = dict(ours="#D55E00", diffusers="#0072B2", lucidrains="#009E73", original="#CC79A7")
    names = dict.fromkeys(row["name"] for row in rows)
    for name in names:
        its = sorted((r for r in rows if r["name"] == name), key=lambda r: r["seconds"])
        there = next((f"{r['seconds']:.0f} s" for r in its if r["right"] >= 0.9), "never")
        best = max(its, key=lambda r: r["right"])
        memory = next((f"{r['peak_GiB']:.2f}" for r in its if r["peak_GiB"]), "")
        print(
            f"{name:<24} {there:>9}  {best['right']:4.0%}  {its[-1]['seconds']:7.0f}  "
            f"{best['images_per_second']:8.0f}  {best['pictures_per_second']:10.1f}  {memory}"
        )
        family, _, setting = name.partition("-")
        style = dict(linestyle="--" if setting == "documented" else "-", marker="o", markersize=4)
        x, y = [r["seconds"] for r in its], [r["right"] for r in its]
        axis.plot(x, y, color=families[family], label=name, **style)
        axis.annotate(name, (x[-1], y[-1]), xytext=(6, 0), textcoords="offset points", fontsize=8)
    axis.axhline(0.9, color="0.7", linewidth=0.8)
    axis.set(xscale="log", ylim=(-0.02, 1.02))
    axis.set(xlabel="seconds of training, two cores", ylabel="unseen prompts obeyed")
    axis.set_title("From fresh weights to pictures that obey their words")
    said = f"{platform.machine()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    fig.text(0.99, 0.01, said, ha="right", fontsize=7, color="0.4")
    fig.savefig(FIGURE, dpi=150, bbox_inches="tight")


def main() -> None:
    every = [f"ours-{steps}" for steps in STEPS] + list(RECIPES)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=every, help="see --list")
    parser.add_argument("--list", action="store_true", help="names of all contestants")
    parser.add_argument("--draw", action="store_true", help="table and figure from the log")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of training for each rival")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="painted at each mark")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list or set(args.names) - set(every):
        sys.exit("\n".join(every))
    if args.one:
        torch.set_num_threads(CORES)
        prompts = Sprites.held_out_prompts(args.prompts)
        kind, _, setting = args.names[0].partition("-")
        if kind == "ours":
            ours(int(setting), prompts)
        else:
            marks = [m for m in MARKS if m < args.seconds] + [args.seconds]
            compete(args.names[0], args.seconds, marks, prompts)
        return
    for name in () if args.draw else args.names:  # each in a process of its own
        more = ["--seconds", str(args.seconds), "--prompts", str(args.prompts)]
        subprocess.run([sys.executable, __file__, "--one", name, *more], check=True)
    draw([json.loads(line) for line in LOG.read_text().splitlines()])


if __name__ == "__main__":
    main()
