"""python -m diffusion_lib generate | train | evaluate | progress"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm.auto import tqdm

from diffusion_lib.data.sprites import Sprites, parse
from diffusion_lib.images import curve, save_gif, save_png, tile
from diffusion_lib.metrics import clustered_interval, correct
from diffusion_lib.pipeline import TextToImage, load_pretrained, sprite_config
from diffusion_lib.training import (
    finished,
    load_checkpoint,
    save_checkpoint,
    shuffled,
    state_of,
    train,
)

RUNS = Path("runs")
EXERCISES = Path(__file__).parent.parent / "exercises"


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; errors that a user can mend end in one line and exit status 1."""
    args = parser().parse_args(arguments)
    try:
        args.run(args)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, IndexError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("python -m diffusion_lib", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="command")

    def command(name: str, function, help: str) -> argparse.ArgumentParser:
        formatter = argparse.ArgumentDefaultsHelpFormatter
        sub = commands.add_parser(name, help=help, formatter_class=formatter)
        sub.set_defaults(run=function)
        devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
        sub.add_argument("--device", default=devices[-1], choices=devices)
        return sub

    p = command("generate", generate, "paint pictures from words")
    p.add_argument("prompts", nargs="+", help='e.g. "a red dragon facing left"')
    p.add_argument("--steps", type=int, default=20, help="network calls a picture")
    p.add_argument(
        "--guidance", type=float, default=3.0, help="1 = none; more = closer to the words"
    )
    p.add_argument("--negative", help="words that the picture should have nothing of")
    p.add_argument("--seed", type=int, default=0, help="another seed, another picture")
    p.add_argument("-o", "--output", type=Path, default=Path("out.png"))
    p.add_argument("--model", default="sprites", help="a shipped model, or a checkpoint's path")

    p = command("train", train_sprites, "train the sprite model from scratch")
    p.add_argument("--steps", type=int, default=1900, help="the shipped model took 5000")
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--every", type=int, default=250, help="steps between checkpoints and samples")
    p.add_argument("-o", "--output", type=Path, default=RUNS / "sprites.safetensors")
    p.add_argument("--restart", action="store_true", help="forget an earlier, unfinished run")

    p = command("evaluate", evaluate, "measure prompt accuracy on unseen and on seen combinations")
    p.add_argument("--model", default="sprites", help="a shipped model, or a checkpoint's path")
    p.add_argument("--pictures", type=int, default=1000)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--guidance", type=float, default=3.0)
    p.add_argument("--seed", type=int, default=0)

    p = commands.add_parser("progress", help="which exercises are solved, and which is next")
    p.set_defaults(run=progress)
    p.add_argument("folder", nargs="?", type=Path, default=EXERCISES)
    return top


def generate(args: argparse.Namespace) -> None:
    """Writes the pictures in one enlarged grid, and the film of their denoising beside it."""
    model = load_pretrained(args.model).to(args.device)
    film = model.film(
        args.prompts,
        steps=args.steps,
        guidance=args.guidance,
        negative=args.negative,
        seed=args.seed,
    )
    frames = []
    for step in tqdm(film, total=args.steps, desc="denoising", unit="step"):
        frames.append(tile(step.x.clamp(-1, 1), scale=16))
    save_png(frames[-1], args.output)
    movie = args.output.with_suffix(".gif")
    save_gif(frames, movie)
    print(f"picture: {args.output}\nfilm:    {movie}")


def train_sprites(args: argparse.Namespace) -> None:
    """Trains, showing loss and samples as it goes; after Ctrl-C the same command goes on."""
    path: Path = args.output
    resume = load_checkpoint(path) if path.is_file() and not args.restart else None
    start = resume.step if resume else 0
    if start >= args.steps:
        raise ValueError(f"{path} is trained to the end: use --restart, or more --steps")
    data = Sprites(seed=args.seed)
    torch.manual_seed(args.seed)  # the fresh weights
    model = TextToImage.from_config(sprite_config(data.words))
    model.to(args.device, memory_format=torch.channels_last)  # a tenth faster on CPUs
    if resume and resume.config != model.config:
        raise ValueError(f"{path} holds another kind of model: use --restart, or another --output")
    batches = shuffled(data, args.batch_size, args.seed, start)
    history = path.with_suffix(".json")
    log = json.loads(history.read_text()) if resume and history.is_file() else []
    log = [row for row in log if row["step"] <= start]
    before, began, losses = log[-1]["seconds"] if log else 0.0, time.perf_counter(), []
    prompts = data.held_out_prompts(16, seed=args.seed)
    print(f"checkpoints, samples and the loss curve: {path.with_suffix('')}*")
    with (
        tqdm(total=args.steps, initial=start, desc="training", unit="step") as bar,
        _ctrl_c() as stop,
    ):
        for state in train(
            model, batches, steps=args.steps, lr=args.lr, seed=args.seed, resume=resume
        ):
            bar.update()
            losses.append(state.loss)
            if state.step % args.every and state.step < args.steps and not stop:
                continue
            loss = torch.stack(losses).mean().item()
            losses.clear()
            bar.set_postfix(loss=f"{loss:.4f}")
            seconds = round(before + time.perf_counter() - began, 1)
            log.append({"step": state.step, "loss": loss, "seconds": seconds})
            save_checkpoint(path, state_of(state, model.config))
            history.write_text(json.dumps(log, indent=1))
            if stop:
                break
            save_png(curve([row["loss"] for row in log], "loss"), path.with_suffix(".loss.png"))
            samples = state.ema.model.generate(prompts, seed=args.seed)
            save_png(tile(samples, scale=8), path.with_suffix(".png"))
    if stop:
        print(f"stopped and saved at step {state.step}; the same command goes on from there")
        raise KeyboardInterrupt
    model_path = path.with_suffix(".model.safetensors")
    save_checkpoint(model_path, finished(state_of(state, model.config)))
    print(f"{args.steps} steps in {seconds:.0f} s; paint with it: generate … --model {model_path}")


@contextmanager
def _ctrl_c() -> Iterator[list]:
    """A list that is empty until Ctrl-C: a step is never torn apart. A second Ctrl-C is at once."""
    pressed: list[bool] = []

    def press(*_) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def evaluate(args: argparse.Namespace) -> None:
    """Prints prompt accuracy with its 95% interval, clustered by (kind, colour) pair."""
    model = load_pretrained(args.model).to(args.device)
    data = Sprites(1)
    for name, prompts in (
        ("held-out", data.held_out_prompts(args.pictures, args.seed)),
        ("seen", data.seen_prompts(args.pictures, args.seed)),
    ):
        right = []
        for i in tqdm(range(0, len(prompts), 100), desc=name, leave=False):
            images = model.generate(
                prompts[i : i + 100], steps=args.steps, guidance=args.guidance, seed=args.seed + i
            )
            right.append(correct(images.cpu(), prompts[i : i + 100]))
        right = torch.cat(right)
        pairs = [(a.kind, a.colour) for a in map(parse, prompts)]
        low, high = clustered_interval(right, pairs)
        print(
            f"{name} prompts: {right.float().mean():.1%} right, 95% interval {low:.1%} to {high:.1%}"
            f" ({len(prompts)} pictures, {len(set(prompts))} distinct prompts, "
            f"{len(set(pairs))} (kind, colour) pairs)"
        )


def progress(args: argparse.Namespace) -> None:
    """Prints a table of the exercises. Those begun are run, unless they have not changed since."""
    try:
        import nbclient  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError('progress runs notebooks: pip install -e ".[notebooks]" first') from error
    from diffusion_lib import checks
    from diffusion_lib.checks.progress import standings, table

    if not args.folder.is_dir():
        raise ValueError(f"there is no folder {args.folder}: name the one with the exercises")
    rows = tqdm(standings(args.folder), total=len(checks.ALL), desc="exercises", leave=False)
    print(table(list(rows)))


if __name__ == "__main__":
    sys.exit(main())
