"""Six painters, each with one fault: the patients of the last exercise, and the check of a diagnosis.

Reading on spoils the exercise.
"""

import copy
import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lib.checks._core import Wrong, exercise
from diffusion_lib.data.sprites import Sprites
from diffusion_lib.denoiser import Denoiser
from diffusion_lib.pipeline import load_pretrained
from diffusion_lib.sampling import Step, ddim
from diffusion_lib.schedules import Schedule, cosine_schedule
from diffusion_lib.training import train
from diffusion_lib.unet import UNet, UNetConfig

FAULTS = (
    "time scaled differently",
    "missing root",
    "EMA without warm-up",
    "unscaled data",
    "sampler running forwards",
    "wrong prediction type",
)
PROMPTS = ["a red dragon on grass", "a blue knight", "a pink cake", "an orange cat at night"]


class Patient(NamedTuple):
    """All that can be examined of a painter (notebook 09)."""

    data: Tensor  # a batch, exactly as its loss gets it
    denoise: Denoiser  # (x, t) -> x0, as its sampler calls it
    trained: Denoiser  # the same, but with the last weights of its training
    sampler: Callable  # (denoise, schedule, x) -> its steps
    schedule: Schedule
    noise: Tensor  # to begin with


def letters() -> dict[str, str]:
    order = torch.randperm(len(FAULTS), generator=torch.Generator().manual_seed(26)).tolist()
    return dict(zip("ABCDEF", (FAULTS[i] for i in order)))


class _Prompted(nn.Module):
    """The shipped network, with the words already in its ear."""

    def __init__(self, net: nn.Module, context: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.net, self.context, self.mask = net, context, mask

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        times = len(x) // len(self.context)
        return self.net(x, t, self.context.repeat(times, 1, 1), self.mask.repeat(times, 1))


class _OtherTime(Denoiser):
    def ask(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return self.net(x, t / self.schedule.T)


@torch.no_grad()
def _upwards(denoise: Denoiser, schedule: Schedule, x: Tensor) -> Iterator[Step]:
    times = [1, *range(50, schedule.T + 1, 50)]
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * eps
        yield Step(s, x, x0)


@torch.no_grad()
def _original(denoise: Denoiser, schedule: Schedule, x: Tensor) -> Iterator[Step]:
    generator = torch.Generator().manual_seed(0)
    alpha2 = schedule.alpha.double() ** 2
    times = schedule.timesteps(20)
    for t, s in zip(times, times[1:]):
        beta = 1 - alpha2[t] / alpha2[s]
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x = (x - beta / (1 - alpha2[t]) * eps) / (1 - beta).sqrt()
        spread = ((1 - alpha2[s]) / (1 - alpha2[t]) * beta).sqrt()
        x = (x + spread * torch.randn(x.shape, generator=generator)).float()
        yield Step(s, x, x0)


def _twenty(denoise: Denoiser, schedule: Schedule, x: Tensor) -> Iterator[Step]:
    return ddim(denoise, schedule, x, steps=20)


def _trained(pictures: Tensor, steps: int) -> tuple[Denoiser, Denoiser]:
    """A small painter: its last weights, and an average of all since the random start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = UNet(UNetConfig(channels=(16, 32), layers=1, attention=(False, False)))
    painter = Denoiser(net, cosine_schedule(), "v")
    average = copy.deepcopy(painter)
    generator = torch.Generator().manual_seed(1)

    def batches() -> Iterator[tuple[Tensor]]:
        while True:
            yield (pictures[torch.randint(len(pictures), (16,), generator=generator)],)

    for _ in train(painter, batches(), steps=steps, lr=6e-3, warmup=20):
        with torch.no_grad():
            for mean, new in zip(average.parameters(), painter.parameters()):
                mean.lerp_(new, 1 - 0.999)
    return painter.eval(), average.eval()


def patients() -> dict[str, Patient]:
    """Six patients, A to F, each with another one of the six faults. Takes some seconds."""
    model = load_pretrained("sprites")
    schedule = model.denoiser.schedule
    with torch.no_grad():
        net = _Prompted(model.denoiser.net, *model.encode(PROMPTS))
    right = Denoiser(net, schedule, "v").eval()
    exact = torch.stack([Sprites.render(p, s) for s in range(4) for p in PROMPTS])
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(len(PROMPTS), 3, 16, 16, generator=generator)
    well = Patient(exact, right, right, _twenty, schedule, noise)

    heart = torch.stack([Sprites.render("a red heart on paper", s) for s in range(16)])
    stored = (heart + 1) * 127.5
    last, average = _trained(heart, 120)
    loud, _ = _trained(stored, 40)
    other_time = _OtherTime(net, schedule, "v").eval()
    other_type = Denoiser(net, schedule, "eps").eval()
    sick = {
        "time scaled differently": well._replace(denoise=other_time, trained=other_time),
        "missing root": well._replace(sampler=_original),
        "EMA without warm-up": well._replace(data=heart, denoise=average, trained=last),
        "unscaled data": well._replace(data=stored, denoise=loud, trained=loud),
        "sampler running forwards": well._replace(sampler=_upwards),
        "wrong prediction type": well._replace(denoise=other_type, trained=other_type),
    }
    return {letter: sick[fault] for letter, fault in letters().items()}


# What would be seen if a diagnosis were right: the evidence against one that is wrong.
WOULD_SHOW = {
    "time scaled differently": "the network would hear times of another size while it samples "
    "(second number)",
    "missing root": "its denoiser, its times and its data would all be in order, and something of a "
    "picture would shine through the noise",
    "EMA without warm-up": "it would be bad with the weights that it samples with, and much better with "
    "its last weights (third number)",
    "unscaled data": "the numbers that go into its loss would reach far beyond 1 (first number)",
    "sampler running forwards": "the times that its network hears would rise (second number)",
    "wrong prediction type": "both sets of its weights would be bad (third number), and its data and "
    "times in order",
}


def _plain(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


@exercise(
    26,
    "My loss falls, but my samples are noise",
    'notebook 09, "The diagnosing table"',
    solved="Six patients, six diagnoses.",
)
def diagnosis(answer) -> None:
    """answer: {"A": one of FAULTS, …, "F": …}. Letter case, spaces and hyphens do not matter."""
    if not isinstance(answer, dict):
        raise Wrong('I need a dictionary: {"A": "missing root", …, "F": …}.', mistake="type")
    truth = letters()
    said: dict[str, str] = {}
    known = {_plain(fault): fault for fault in FAULTS}
    for letter, name in answer.items():
        if letter not in truth:
            raise Wrong(
                f"There is no patient {letter!r}: they are {', '.join(truth)}.", mistake="patient"
            )
        if not isinstance(name, str) or not name.strip(" .?…"):
            continue
        if _plain(name) not in known:
            near = difflib.get_close_matches(_plain(name), known, n=1, cutoff=0.3)
            meant = f"did you mean {known[near[0]]!r}?" if near else f"one of: {', '.join(FAULTS)}"
            raise Wrong(f"{name!r} is none of the six faults; {meant}", mistake="unknown fault")
        said[letter] = known[_plain(name)]
    missing = [letter for letter in truth if letter not in said]
    if missing:
        raise Wrong(f"No diagnosis yet: {', '.join(missing)}.", mistake="open")
    for fault in FAULTS:
        which = [letter for letter, name in said.items() if name == fault]
        if len(which) > 1:
            raise Wrong(
                f"Each fault occurs once, but you found {fault!r} in {' and '.join(which)}.",
                mistake="twice",
            )
    wrong = [letter for letter in truth if said[letter] != truth[letter]]
    if not wrong:
        return
    reason = (
        f"{len(truth) - len(wrong)} of 6 diagnoses are right. Not right yet: {', '.join(wrong)}."
    )
    if len(wrong) == 2:
        raise Wrong(reason, "these two patients have each other's fault", "exchanged")
    first = said[wrong[0]]
    reason += f"\nIf the fault of {wrong[0]} were {first!r}, {WOULD_SHOW[first]}. Is it so?"
    raise Wrong(reason)
