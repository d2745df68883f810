"""The patients of exercise 26: six painters, each with one fault. Reading on spoils the exercise."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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


class Prompted(nn.Module):
    """The shipped network, with the words already in its ear."""

    def __init__(self, net: nn.Module, context: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.net, self.context, self.mask = net, context, mask

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        times = len(x) // len(self.context)
        return self.net(x, t, self.context.repeat(times, 1, 1), self.mask.repeat(times, 1))


class OtherTime(Denoiser):
    def ask(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return self.net(x, t / self.schedule.T)


@torch.no_grad()
def upwards(denoise: Denoiser, schedule: Schedule, x: Tensor) -> Iterator[Step]:
    times = [1, *range(50, schedule.T + 1, 50)]
    for t, s in zip(times, times[1:]):
        x0 = denoise(x, t)
        eps = (x - schedule.alpha[t] * x0) / schedule.sigma[t]
        x = schedule.alpha[s] * x0 + schedule.sigma[s] * eps
        yield Step(s, x, x0)


@torch.no_grad()
def original(denoise: Denoiser, schedule: Schedule, x: Tensor) -> Iterator[Step]:
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


def twenty(denoise: Denoiser, schedule: Schedule, x: Tensor) -> Iterator[Step]:
    return ddim(denoise, schedule, x, steps=20)


def trained(pictures: Tensor, steps: int) -> tuple[Denoiser, Denoiser]:
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
        net = Prompted(model.denoiser.net, *model.encode(PROMPTS))
    right = Denoiser(net, schedule, "v").eval()
    exact = torch.stack([Sprites.render(p, s) for s in range(4) for p in PROMPTS])
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(len(PROMPTS), 3, 16, 16, generator=generator)
    well = Patient(exact, right, right, twenty, schedule, noise)

    heart = torch.stack([Sprites.render("a red heart on paper", s) for s in range(16)])
    stored = (heart + 1) * 127.5
    last, average = trained(heart, 120)
    loud, _ = trained(stored, 40)
    other_time = OtherTime(net, schedule, "v").eval()
    other_type = Denoiser(net, schedule, "eps").eval()
    sick = {
        "time scaled differently": well._replace(denoise=other_time, trained=other_time),
        "missing root": well._replace(sampler=original),
        "EMA without warm-up": well._replace(data=heart, denoise=average, trained=last),
        "unscaled data": well._replace(data=stored, denoise=loud, trained=loud),
        "sampler running forwards": well._replace(sampler=upwards),
        "wrong prediction type": well._replace(denoise=other_type, trained=other_type),
    }
    return {letter: sick[fault] for letter, fault in letters().items()}
