"""How well does a painter of emoji obey? Two judges, what they make of real pictures, and copies."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from diffusion_lib.cores import by_core
from diffusion_lib.data.emoji import (
    HELD_OUT,
    NEVER,
    TABLE,
    THINGS,
    Emoji,
    Words,
    caption,
    cell,
    draw,
    parse,
)
from diffusion_lib.judge import Gallery, Verdict, load_judge
from diffusion_lib.metrics import clustered_interval
from diffusion_lib.noise import seeded
from diffusion_lib.pipeline import TextToImage

AT_ONCE = 100  # pictures


def painted(model: TextToImage, prompts: Sequence[str], seed: int, name: str = "", **how) -> Tensor:
    """A picture for each prompt, on the CPU, with a bar; how: as in `generate`."""
    pictures = []
    with tqdm(total=len(prompts), desc=name, unit="picture", leave=False) as bar:
        for i in range(0, len(prompts), AT_ONCE):
            some = prompts[i : i + AT_ONCE]
            pictures.append(model.generate(some, seed=seed + i, **how).cpu())
            bar.update(len(some))
    return torch.cat(pictures)


def real(prompts: Sequence[str]) -> Tensor:
    """The artists' own pictures of full prompts, (B, 3, 64, 64)."""
    return draw(torch.tensor([cell(parse(prompt)) for prompt in prompts]))


def instead(prompts: Sequence[str], thing: bool, seed: int = 0) -> list[str]:
    """The same prompts with another thing in the same style, or the same thing in another style."""
    generator, others = seeded(seed), []
    for prompt in prompts:
        words = parse(prompt)
        if thing:
            choice = [Words(t, words.style) for t in THINGS if words.style in TABLE[t]]
            choice = [w for w in choice if w.thing != words.thing]
        else:
            choice = [Words(words.thing, s) for s in TABLE[words.thing] if s != words.style]
        at = torch.randint(len(choice), (), generator=generator)
        others.append(caption(choice[at]._replace(ground=words.ground)))
    return others


def shares(verdict: Verdict, prompts: Sequence[str]) -> str:
    """ "thing 80.0% (77.1% to 82.6%), style …, both …": 95% intervals, clustered by thing."""
    things, told = [parse(prompt).thing for prompt in prompts], []
    for name in ("thing", "style", "both"):
        right = getattr(verdict, name)
        low, high = clustered_interval(right, things)
        told.append(f"{name} {right.float().mean():.1%} ({low:.1%} to {high:.1%})")
    return ", ".join(told)


class Exam:
    """`report(model, …)` yields lines to print. Both judges are read once."""

    def __init__(self) -> None:
        self.judge, self.gallery = load_judge(), Gallery()
        shown = [c[0] not in NEVER and c not in HELD_OUT for c in self.gallery.rows]
        self.shown = torch.tensor(shown)

    def report(self, model: TextToImage, n: int, seed: int = 0, **how) -> Iterator[str]:
        """n: pictures of each kind; how: as in `generate`. A picture has its prompt's ground."""
        for name, of in (("held-out", Emoji.held_out_prompts), ("seen", Emoji.seen_prompts)):
            prompts = of(n, seed)
            images = painted(model, prompts, seed, name=name, **how)
            yield f"{name} prompts: {shares(self.judge.verdict(images, prompts), prompts)}"
            yield f"  second judge: {shares(self.gallery.verdict(images, prompts), prompts)}"
            if name == "held-out":
                yield from self.around(model, images, prompts)
        prompts = Emoji.never_prompts(n, seed)
        images = painted(model, prompts, seed, name="never shown", **how)
        right = self.nearest_of_ten(images, prompts, seed)
        low, high = clustered_interval(right, [parse(prompt).thing for prompt in prompts])
        yield (
            f"things never shown: {right.float().mean():.1%} ({low:.1%} to {high:.1%}) nearer to "
            f"the true picture than to 9 others (by chance 10%)"
        )

    def around(self, model: TextToImage, images: Tensor, prompts: list[str]) -> Iterator[str]:
        """What the figures of held-out prompts are to be compared with."""
        kinds = {
            "ceiling, the real pictures after the autoencoder": prompts,
            "floor, the same things by other artists": instead(prompts, thing=False),
            "floor, other things by the same artists": instead(prompts, thing=True),
        }
        for kind, others in kinds.items():
            z = by_core(model.autoencoder.encode, real(others).to(model.device))
            trip = model.decode(z).clamp(-1, 1).cpu()
            yield f"  {kind}: {shares(self.judge.verdict(trip, prompts), prompts)}"
            if others is prompts:
                yield f"    second judge: {shares(self.gallery.verdict(trip, prompts), prompts)}"
                truth = trip
        near = [self.gallery.distances(x, prompts)[:, self.shown].amin(1) for x in (images, truth)]
        yield (
            f"  distance to the nearest training picture: {near[0].median():.3f} in the middle, "
            f"{near[0].quantile(0.05):.3f} for the nearest twentieth; of real pictures "
            f"{near[1].median():.3f} and {near[1].quantile(0.05):.3f}"
        )

    def nearest_of_ten(self, images: Tensor, prompts: Sequence[str], seed: int) -> Tensor:
        """(B,) bool: of the true picture and nine of other things in the same style, before the same
        ground, is the true one the nearest to the judge's eye (cosine of its features)?"""
        seen, nearness = self.features(images), []
        for i in range(10):
            others = prompts if i == 0 else instead(prompts, thing=True, seed=seed + i)
            nearness.append((seen * self.features(real(others))).sum(1))
        return torch.stack(nearness).argmax(0) == 0

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the judge sees, (B, D), of length 1."""
        return F.normalize(torch.cat([self.judge.features(some) for some in images.split(256)]))
