"""Where all random noise comes from."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_lib.guards import whole


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU. Raises ValueError for a seed that is no whole number."""
    return torch.Generator().manual_seed(whole("seed", seed) % 2**63)


def randn_like(
    x: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None = None
) -> Tensor:
    """Standard normal noise shaped as `x`, (B, …), drawn where the generator lives, then moved.

    A CPU generator thus gives the same noise, and so the same picture, on every device. With a
    list of B generators row i hears the i-th alone, and is the same whatever stands beside it.
    Raises ValueError for another number of generators.
    """
    if generator is None or isinstance(generator, torch.Generator):
        device = x.device if generator is None else generator.device
        noise = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype)
        return noise.to(x.device)
    if len(generator) != len(x):
        raise ValueError(f"{len(x)} rows need as many generators, or one: got {len(generator)}")
    return torch.cat([randn_like(row[None], g) for row, g in zip(x, generator)])
