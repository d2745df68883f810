from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_lib import Denoiser


def shaped(values, t, x):
    return values[t].reshape((-1,) + (1,) * (x.dim() - 1)).to(x.device)


class InOnePlace:
    def __init__(self, net, schedule):
        self.net, self.schedule = net, schedule

    def ask(self, x, t):
        return self.net(x, t.to(x.device) - 1)

    def loss(self, x0, t, eps):
        alpha, sigma = self.schedule.at(t, like=x0)
        output = self.ask(alpha * x0 + sigma * eps, t)
        return F.mse_loss(output, eps - x0)

    def denoise(self, x, t):
        alpha, sigma = self.schedule.at(t, like=x)
        return (x - sigma * self.ask(x, torch.full((len(x),), t))) / (alpha + sigma)


class AsAModule(nn.Module):
    def __init__(self, net, schedule):
        super().__init__()
        self.net = net
        self.alpha, self.sigma = schedule.alpha, schedule.sigma

    def loss(self, x0, t, eps):
        a, s = shaped(self.alpha, t, x0), shaped(self.sigma, t, x0)
        heard = (t - 1).float()
        return ((self.net(a * x0 + s * eps, heard) - eps + x0) ** 2).mean()

    @torch.no_grad()
    def denoise(self, x, t):
        heard = torch.tensor([t - 1.0] * len(x), device=x.device)
        a, s = self.alpha[t].item(), self.sigma[t].item()
        return (x - s * self.net(x, heard)) / (a + s)


def two_functions(net, schedule):
    def loss(x0, t, eps):
        return F.mse_loss(net(schedule.add_noise(x0, t, eps), torch.sub(t, 1)), eps - x0)

    def denoise(x, t):
        flow = net(x, x.new_full((len(x),), t - 1, dtype=torch.long))
        alpha, sigma = schedule.at(t, like=x)
        return x / (alpha + sigma) - sigma / (alpha + sigma) * flow

    return SimpleNamespace(loss=loss, denoise=denoise)


class ByTheLibrary:
    def __init__(self, net, schedule):
        self.denoise = Denoiser(net, schedule, "flow")

    def loss(self, x0, t, eps):
        d = self.denoise
        alpha, sigma = d.schedule.at(t, like=x0)
        return F.mse_loss(d.ask(alpha * x0 + sigma * eps, t, None), d.target(x0, eps, alpha, sigma))


class OneTensorForAll(InOnePlace):
    def denoise(self, x, t):
        t = torch.full((len(x),), t, device=x.device)
        alpha, sigma = self.schedule.at(t, like=x)
        return (x - sigma * self.net(x, t - 1)) / (alpha + sigma)


RIGHT = [InOnePlace, OneTensorForAll, AsAModule, two_functions, ByTheLibrary]


def telling(training, sampling, name):
    """The class, telling its network f(t, T) in training and in sampling."""

    @dataclass
    class Small:
        net: Any
        schedule: Any

        def loss(self, x0, t, eps):
            alpha, sigma = self.schedule.at(t, like=x0)
            output = self.net(alpha * x0 + sigma * eps, training(t, self.schedule.T))
            return (output - eps + x0).square().mean()

        def denoise(self, x, t):
            alpha, sigma = self.schedule.at(t, like=x)
            t = torch.full((len(x),), t, device=x.device)
            return (x - sigma * self.net(x, sampling(t, self.schedule.T))) / (alpha + sigma)

    Small.__name__ = Small.__qualname__ = name
    return Small


def plain(t, T):
    return t


def shifted(t, T):
    return t - 1


def over_T(t, T):
    return t / T


def shifted_over_T(t, T):
    return (t - 1) / T


def from_zero_to_one(t, T):
    return (t.float() - 1) / (T - 1)


def turned(t, T):
    return T - t


TheStarter = telling(plain, over_T, "TheStarter")


class ShiftsTheSchedule(InOnePlace):
    def loss(self, x0, t, eps):
        t = t - 1
        alpha, sigma = self.schedule.at(t, like=x0)
        return F.mse_loss(self.net(alpha * x0 + sigma * eps, t), eps - x0)


class ShiftsTheScheduleInSampling(InOnePlace):
    def denoise(self, x, t):
        t = torch.full((len(x),), t - 1)
        alpha, sigma = self.schedule.at(t, like=x)
        return (x - sigma * self.net(x, t.to(x.device))) / (alpha + sigma)


class OneNumber(InOnePlace):
    def denoise(self, x, t):
        alpha, sigma = self.schedule.at(t, like=x)
        return (x - sigma * self.net(x, t - 1)) / (alpha + sigma)


class InPlace(InOnePlace):
    def loss(self, x0, t, eps):
        alpha, sigma = self.schedule.at(t, like=x0)
        t -= 1
        return F.mse_loss(self.net(alpha * x0 + sigma * eps, t), eps - x0)


class OnTheCpu(InOnePlace):
    def ask(self, x, t):
        return self.net(x, t - 1)


class Nothing(InOnePlace):
    def denoise(self, x, t):
        super().denoise(x, t)


class AList(InOnePlace):
    def denoise(self, x, t):
        return super().denoise(x, t).tolist()


class Item(InOnePlace):
    def loss(self, x0, t, eps):
        return super().loss(x0, t, eps).item()


class NoGradients(InOnePlace):
    @torch.no_grad()
    def loss(self, x0, t, eps):
        return super().loss(x0, t, eps)


class DetachedOutput(InOnePlace):
    def ask(self, x, t):
        return super().ask(x, t).detach()


class HalfAGradient(InOnePlace):
    def ask(self, x, t):
        output = super().ask(x, t)
        return (output + output.detach()) / 2


WRONG = {
    "gradient": [Item, NoGradients, DetachedOutput],
    "two scales": [TheStarter, telling(plain, shifted_over_T, "TwoScalesShifted")],
    "sampling scaled": [
        telling(shifted, over_T, "SamplingScaled"),
        telling(shifted, from_zero_to_one, "SamplingFromZeroToOne"),
    ],
    "training scaled": [telling(over_T, shifted, "TrainingScaled")],
    "both scaled": [
        telling(over_T, over_T, "BothScaled"),
        telling(shifted_over_T, shifted_over_T, "BothScaledAndShifted"),
    ],
    "hears t": [telling(plain, plain, "NoShift")],
    "one apart": [
        telling(plain, shifted, "TrainingNotShifted"),
        telling(shifted, plain, "SamplingNotShifted"),
    ],
    "backwards": [telling(shifted, turned, "Backwards")],
    "schedule shifted": [ShiftsTheSchedule, ShiftsTheScheduleInSampling],
    "not one a picture": [OneNumber],
    "in place": [InPlace],
    "device": [OnTheCpu],
    "none": [Nothing],
    "type": [AList, InOnePlace(None, None), lambda net, schedule: InOnePlace],
}


class ForgetsTheSign(InOnePlace):
    def denoise(self, x, t):
        alpha, sigma = self.schedule.at(t, like=x)
        return (x + sigma * self.ask(x, torch.full((len(x),), t))) / (alpha + sigma)


class SumsTheLoss(InOnePlace):
    def loss(self, x0, t, eps):
        return super().loss(x0, t, eps) * len(x0)


class AsksTwice(InOnePlace):
    def denoise(self, x, t):
        return (super().denoise(x, t) + super().denoise(x, t)) / 2


class NoDenoise:
    def __init__(self, net, schedule):
        self.loss = InOnePlace(net, schedule).loss


UNKNOWN = [
    HalfAGradient,
    telling(lambda t, T: t * 1000, lambda t, T: t * 1000, "Thousands"),
    telling(shifted, lambda t, T: t.clamp(max=3), "Clamped"),
    ForgetsTheSign,
    SumsTheLoss,
    AsksTwice,
    NoDenoise,
]
