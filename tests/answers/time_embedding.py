import math

import numpy as np
import torch

from diffusion_lib.layers import timestep_embedding


def vectorised(t, dim):
    half = dim // 2
    rates = 10_000 ** (-torch.arange(half, device=t.device) / half)
    angles = t[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def by_exp(t, dim):
    k = torch.arange(0, dim // 2, dtype=torch.float64, device=t.device)
    angles = torch.outer(t.double(), torch.exp(-2 * k * math.log(10_000) / dim))
    return torch.hstack([torch.cos(angles), torch.sin(angles)]).to(torch.float32)


def by_quarter_turns(t, dim):
    half = dim // 2
    k = torch.arange(dim, device=t.device)
    angles = t.float().unsqueeze(1) / 10_000 ** ((k % half) / half)
    return torch.sin(angles + torch.where(k < half, math.pi / 2, 0.0)).float()


def by_complex_numbers(t, dim):
    rates = torch.logspace(0, -4, dim // 2 + 1, device=t.device)[:-1]
    hands = torch.polar(torch.ones_like(rates), t.float()[:, None] * rates)
    return torch.cat([hands.real, hands.imag], 1)


def in_columns(t, dim):
    half, columns = dim // 2, []
    for part in (torch.cos, torch.sin):
        for k in range(half):
            columns.append(part(t.float() * 10_000 ** (-k / half)))
    return torch.stack(columns, dim=1)


RIGHT = [vectorised, by_exp, by_quarter_turns, by_complex_numbers, in_columns]


def parts(t, rates):
    angles = t.double()[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def rates_of(dim, below=None, base=10_000.0):
    half = dim // 2
    return base ** (-torch.arange(half) / (below or half))


def the_starter(t, dim):
    return (t.float() / 1000)[:, None].repeat(1, dim)


def as_in_the_repository(t, dim):
    return t.float().view(-1, 1).expand(-1, dim) / 500


def sine_first(t, dim):
    return torch.cat(parts(t, rates_of(dim))[::-1], 1)


def interleaved(t, dim):
    out = torch.zeros(len(t), dim)
    out[:, 1::2], out[:, 0::2] = parts(t, rates_of(dim))
    return out


def interleaved_cosine_first(t, dim):
    out = torch.zeros(len(t), dim)
    out[:, 0::2], out[:, 1::2] = parts(t, rates_of(dim))
    return out


def half_minus_one(t, dim):
    return torch.cat(parts(t, rates_of(dim, max(dim // 2 - 1, 1e-9))), 1)


def as_in_ddpm(t, dim):
    return torch.cat(parts(t, rates_of(dim, max(dim // 2 - 1, 1e-9)))[::-1], 1)


def whole_dim(t, dim):
    return torch.cat(parts(t, rates_of(dim, dim)), 1)


def quarter(t, dim):
    return torch.cat(parts(t, rates_of(dim, dim / 4)), 1)


def no_base(t, dim):
    half = dim // 2
    return torch.cat(parts(t, torch.exp(-torch.arange(half) / half)), 1)


def base_1000(t, dim):
    return torch.cat(parts(t, rates_of(dim, base=1000.0)), 1)


def rising(t, dim):
    half = dim // 2
    rates = torch.exp(math.log(10_000) * torch.arange(half) / half)
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def slow_first(t, dim):
    return torch.cat(parts(t, rates_of(dim).flip(0)), 1)


def from_one(t, dim):
    half = dim // 2
    return torch.cat(parts(t, 10_000 ** (-torch.arange(1, half + 1) / half)), 1)


def linear(t, dim):
    return torch.cat(parts(t, torch.linspace(1, 1e-4, dim // 2)), 1)


def scaled(t, dim):
    return torch.cat(parts(t / 1000, rates_of(dim)), 1)


def two_pi(t, dim):
    return torch.cat(parts(2 * math.pi * t, rates_of(dim)), 1)


def degrees(t, dim):
    return torch.cat(parts(torch.deg2rad(t.double()), rates_of(dim)), 1)


def truncated(t, dim):
    return vectorised(t.long(), dim)


def on_the_cpu(t, dim):
    half = dim // 2
    angles = t[:, None] * 10_000 ** (-torch.arange(half) / half)
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def in_numpy(t, dim):
    angles = t.numpy()[:, None] * 10_000.0 ** (-np.arange(dim // 2) / (dim // 2))
    return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], 1)).float()


def nothing(t, dim):
    vectorised(t, dim)


def a_list(t, dim):
    return vectorised(t, dim).tolist()


def cosines_twice(t, dim):
    cos, _ = parts(t, rates_of(dim))
    return torch.cat([cos, cos], 1)


def without_brackets(t, dim):
    half = dim // 2
    return torch.cat(parts(t, 10_000.0 ** -torch.arange(half) / half), 1)


def whole_rates(t, dim):
    return torch.cat(parts(t, rates_of(dim).long()), 1)


def keeps_double(t, dim):
    angles = t[:, None] * rates_of(dim).to(t.device)
    return torch.cat([angles.cos(), angles.sin()], 1)


def by_the_library(t, dim):
    return timestep_embedding(t, dim)


def base_100(t, dim):
    """The same numbers as with exponents over dim."""
    return torch.cat(parts(t, rates_of(dim, base=100.0)), 1)


def sines_twice(t, dim):
    _, sine = parts(t, rates_of(dim))
    return torch.cat([sine, sine], 1)


def minus_sine(t, dim):
    return vectorised(-t, dim)


WRONG = {
    "exponent without brackets": [without_brackets],
    "whole rates": [whole_rates],
    "dtype": [keeps_double],
    "sine first": [sine_first],
    "interleaved": [interleaved, interleaved_cosine_first],
    "one too few": [half_minus_one],
    "growing": [rising],
    "full turns": [two_pi],
    "time scaled": [scaled],
    "another base": [base_1000, no_base],
    "library": [by_the_library],
    "sine first + one too few": [as_in_ddpm],
    "twice the exponent": [quarter],
    "over dim": [whole_dim, base_100],
    "from the second": [from_one],
    "negative sine": [minus_sine],
    "sines only": [sines_twice],
    "cosines only": [cosines_twice],
    "device": [on_the_cpu, in_numpy],
    "none": [nothing],
    "type": [a_list],
}


def sines_alone(t, dim):
    return torch.sin(t[:, None] * rates_of(2 * dim))


def integers(t, dim):
    return vectorised(t, dim).to(t.dtype)


def turned(t, dim):
    return vectorised(t, dim).T


def nan(t, dim):
    half = dim // 2
    return torch.cat(parts(t, 10_000 ** (-torch.arange(half) / (half - half))), 1)


UNKNOWN = [
    the_starter,
    as_in_the_repository,
    slow_first,
    linear,
    degrees,
    truncated,
    sines_alone,
    integers,
    turned,
    nan,
]
