"""python -m diffusion_lib generate | edit | train | evaluate | progress"""

import argparse
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from tqdm.auto import tqdm

from diffusion_lib import recipes
from diffusion_lib.course import devices
from diffusion_lib.data.folder import picture_and_mask
from diffusion_lib.data.sprites import FORMS, Sprites, parse
from diffusion_lib.editing import img2img
from diffusion_lib.exams import Exam, painted
from diffusion_lib.files import output
from diffusion_lib.guards import whole
from diffusion_lib.images import named, save_gif, save_png, tile
from diffusion_lib.lora import load_lora
from diffusion_lib.metrics import correct, obedience
from diffusion_lib.muon import Muon
from diffusion_lib.parallel import first, processes
from diffusion_lib.pipeline import TextToImage
from diffusion_lib.published import load_model
from diffusion_lib.runs import Run
from diffusion_lib.sampling import ddim, dpm_solver, heun
from diffusion_lib.training import shuffled

RUNS = Path("runs")
EXERCISES = Path(__file__).parent.parent / "exercises"
AMP = {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
PARTS = ["painter", "autoencoder", "judge"]
SAMPLERS = {"ddim": ddim, "heun": heun, "dpm_solver": dpm_solver}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; errors that a user can mend end in one line and exit status 1."""
    for stream in (sys.stdout, sys.stderr):  # a console of few characters gets "?" for the others
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    args = parser().parse_args(arguments)
    try:
        args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, IndexError, FloatingPointError, ImportError) as error:
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
        sub.add_argument("--device", default=devices()[-1], choices=devices())
        return sub

    def painting(p: argparse.ArgumentParser) -> None:
        p.add_argument("--steps", type=count, default=20, help="steps from noise to picture")
        p.add_argument(
            "--guidance",
            type=float,
            help="1 = none; more = closer to the words; else the model's own",
        )
        p.add_argument("--sampler", choices=SAMPLERS, default="ddim", help="heun: two calls a step")
        p.add_argument("--no-clip", action="store_true", help="let the guesses leave [-1, 1]")
        p.add_argument("--seed", type=int, default=0, help="another seed, another picture")
        p.add_argument(
            "--model",
            default="sprites",
            help="a shipped model, a checkpoint, or a folder of Stable Diffusion",
        )
        p.add_argument("--lora", type=Path, help="a file of low-rank adapters for the model")

    p = command("generate", generate, "paint pictures from words")
    p.add_argument("prompts", nargs="+", help='e.g. "a red dragon facing left"')
    painting(p)
    p.add_argument("--negative", help="words that the pictures should have nothing of")
    p.add_argument("-o", "--output", type=Path, default=Path("out.png"))

    p = command("edit", edit, "paint a picture of yours anew, or a part of it")
    p.add_argument("picture", type=Path, help="of any size and mode; its middle square is taken")
    p.add_argument("prompt", help='what it should show, e.g. "a blue dragon facing left"')
    p.add_argument(
        "--strength", type=float, help="how much is changed: 0 to 1  (default: 0.6; with a mask 1)"
    )
    p.add_argument("--mask", type=Path, help="as large as the picture: white is painted anew")
    painting(p)
    p.add_argument("--negative", help="words that the picture should have nothing of")
    p.add_argument("-o", "--output", type=Path, default=Path("out.png"))

    p = command("train", train_model, "train a model; after Ctrl-C the same command goes on")
    p.add_argument(
        "--data", default="sprites", help="sprites, emoji, or a folder of pictures with captions"
    )
    p.add_argument("--part", default="painter", choices=PARTS, help="what is trained")
    p.add_argument("--text", default="words", choices=["words", "minilm"], help="who reads prompts")
    p.add_argument("--autoencoder", default="emoji", help="a shipped model, or a checkpoint's path")
    p.add_argument(
        "--start", help="a shipped model or a checkpoint to go on from, not fresh weights"
    )
    p.add_argument("--size", type=count, default=64, help="pixels a side of a folder's pictures")
    p.add_argument("--steps", type=count, default=1000, help="shipped: sprites took 4000")
    p.add_argument("--batch-size", type=count, default=64)
    p.add_argument("--lr", type=float, default=4e-3)
    p.add_argument("--amp", choices=AMP, default="none", help="the precision of products")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--every", type=count, default=250, help="steps between checkpoints and samples")
    p.add_argument("-o", "--output", help="the run's files begin so  (default: runs/…)")
    p.add_argument("--restart", action="store_true", help="forget an earlier, unfinished run")

    p = command("evaluate", evaluate, "measure prompt accuracy on unseen and on seen combinations")
    p.add_argument("--pictures", type=count, default=1000)
    painting(p)

    p = commands.add_parser("progress", help="which exercises are solved, and which is next")
    p.set_defaults(run=progress)
    p.add_argument("folder", nargs="?", type=Path, default=EXERCISES)
    return top


def count(text: str) -> int:
    """For argparse: a whole number of at least 1."""
    try:
        return whole("it", int(text), 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, not {text!r}") from None


def loaded(args: argparse.Namespace) -> TextToImage:
    """The model that is asked for, bent by an adapter if there is one."""
    model = load_model(args.model, args.device)
    return model if args.lora is None else load_lora(model, args.lora)


def how(args: argparse.Namespace) -> dict:
    """The options of `painting`, for `generate` and `film`."""
    sampler, clip = SAMPLERS[args.sampler], not args.no_clip
    return dict(steps=args.steps, guidance=args.guidance, sampler=sampler, clip=clip)


def generate(args: argparse.Namespace) -> None:
    """Writes the pictures in one enlarged grid, and the film of their denoising beside it."""
    movie = named(args.output, ".png").with_suffix(".gif")
    for path in (args.output, movie):
        output(path)
    model = loaded(args)
    film = model.film(args.prompts, negative=args.negative, seed=args.seed, **how(args))
    frames = []
    for step in tqdm(film, total=args.steps, desc="denoising", unit="step"):
        frames.append(tile(step.x.clamp(-1, 1), scale=max(1, 256 // step.x.shape[-1])))
    save_png(frames[-1], args.output)
    save_gif(frames, movie)
    print(f"picture: {args.output}\nfilm:    {movie}")
    if args.model == "emoji":
        print(
            "it learned from drawings by Microsoft, Google, Twitter and EmojiOne: "
            "diffusion_lib/data/emoji/NOTICE.md"
        )


def edit(args: argparse.Namespace) -> None:
    """Writes the picture as the model sees it and as it paints it, side by side."""
    output(named(args.output, ".png"))
    model = loaded(args)
    image, mask = picture_and_mask(args.picture, args.mask, model.pixels)
    strength = args.strength if args.strength is not None else 0.6 if mask is None else 1.0
    about = dict(strength=strength, mask=mask, negative=args.negative, seed=args.seed)
    painted = img2img(model, image, [args.prompt], **about, **how(args)).cpu()
    save_png(tile(torch.cat([image, painted]), scale=max(1, 256 // model.pixels)), args.output)
    print(f"before and after: {args.output}")


def train_model(args: argparse.Namespace) -> None:
    """Trains, showing loss and samples as it goes; after Ctrl-C the same command goes on."""
    name = Path(args.data).name + (f"-{args.part}" if args.part != "painter" else "")
    output = str(RUNS / name) if args.output is None else args.output
    with processes(args.device) as args.device, Run(output, args.steps, args.restart) as run:
        recipe = recipe_of(args)
        recipe.model.to(args.device, memory_format=torch.channels_last)  # a tenth faster on CPUs
        some = min(args.batch_size, len(recipe.data))
        batches = shuffled(recipe.data, some, args.seed, run.start)
        amp = AMP[args.amp]
        muon = Muon if amp is None else partial(Muon, precision=amp)
        how = dict(lr=args.lr, seed=args.seed, optimiser=muon, amp=amp)
        run.train(recipe.model, recipe.config, batches, recipe.show, args.every, **how)
        if first() and args.part == "painter":
            print(f"paint with it: generate … --model {run.model_path}")
        if first() and args.part == "autoencoder":
            print(f"paint in its latents: train … --autoencoder {run.model_path}")


def recipe_of(args: argparse.Namespace) -> recipes.Recipe:
    if args.part == "judge":
        if args.data != "emoji":
            raise ValueError("the judge judges emoji: train --part judge --data emoji")
        return recipes.judge(args.seed, args.autoencoder, args.device)
    if args.part == "autoencoder":
        return recipes.autoencoder(args.data, args.seed, args.size)
    if args.data == "sprites":
        return recipes.sprites(args.seed)
    about = args.size, args.text, args.autoencoder, args.start, args.device
    return recipes.painter(args.data, args.seed, *about)


def evaluate(args: argparse.Namespace) -> None:
    """Prints prompt accuracy with its 95% interval, clustered by (kind, colour) pair or by thing."""
    model = loaded(args)
    if model.autoencoder is not None:
        for line in Exam().report(model, args.pictures, args.seed, **how(args)):
            print(line, flush=True)
        return
    data = Sprites(1)
    for name, prompts in (
        ("held-out", data.held_out_prompts(args.pictures, args.seed)),
        ("seen", data.seen_prompts(args.pictures, args.seed)),
    ):
        images = painted(model, prompts, args.seed, name=name, **how(args))
        right = correct(images, prompts)
        pairs = {parse(prompt)[:2] for prompt in prompts}
        share, low, high = obedience(right, prompts)
        print(
            f"{name} prompts: {share:.1%} right, 95% interval {low:.1%} to {high:.1%}"
            f" ({len(prompts)} pictures, {len(set(prompts))} distinct prompts, "
            f"{len(pairs)} (kind, colour) pairs)"
        )
        for form, said in FORMS.items():
            its = torch.tensor([bool(said.match(prompt)) for prompt in prompts])
            if its.any():
                print(f'  of those like "{form}": {right[its].sum()} of {its.sum()}')


def progress(args: argparse.Namespace) -> None:
    """Prints a table of the exercises. Those begun are run, unless they have not changed since."""
    if find_spec("nbclient") is None:
        raise ValueError('progress runs notebooks: pip install -e ".[notebooks]" first')
    from diffusion_lib import checks
    from diffusion_lib.progress import standings, table

    if not args.folder.is_dir():
        raise ValueError(f"there is no folder {args.folder}: name the one with the exercises")
    rows = tqdm(standings(args.folder), total=len(checks.ALL), desc="exercises", leave=False)
    print(table(list(rows)))


if __name__ == "__main__":
    sys.exit(main())
