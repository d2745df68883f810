"""A diffusion transformer: the picture cut into patches, each of them a token. (Peebles & Xie 2023)

The same contract as `UNet`: net(x, t, context, mask), so that everything else takes it unchanged.
Time does not join the tokens; it sets the shift, scale and gate of every layer (adaLN-Zero).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.guards import whole
from diffusion_lib.layers import Attention, timestep_embedding

RATES = 256  # numbers that a time is written in, before the network


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT. DiT-XL/2, of 675 M parameters: patch 2, dim 1152, 28 layers, 16 heads."""

    in_channels: int = 3
    out_channels: int = 3
    patch: int = 2  # patch x patch pixels are a token
    dim: int = 192
    layers: int = 6
    heads: int = 6
    context_dim: int | None = None  # width of a condition's tokens; None: no cross-attention

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "patch", "dim", "layers", "heads"):
            whole(name, getattr(self, name), 1)
        if self.context_dim is not None:
            whole("context_dim", self.context_dim, 1)
        if self.dim % self.heads or self.dim % 4:
            raise ValueError(
                f"{self.dim} features cannot be split evenly into {self.heads} heads, and into sines "
                "and cosines of rows and columns"
            )


def positions(height: int, width: int, dim: int) -> Tensor:
    """Where each of height x width places is, (height · width, dim): sines, then cosines, of its
    column at dim/4 frequencies from 1 down to nearly 1/10,000, then of its row."""
    rates = 10_000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def waves(n: int) -> Tensor:
        angles = torch.arange(n)[:, None] * rates  # (n, dim / 4)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    columns, rows = waves(width)[None], waves(height)[:, None]
    grid = [part.expand(height, width, -1) for part in (columns, rows)]
    return torch.cat(grid, dim=2).flatten(0, 1).float()


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x: (B, N, D); shift, scale: (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """Patches look at each other, then at the words, then each thinks for itself.

    What the first and the last add is gated by time, with gates that are 0 at first, and what the
    words add begins with a layer of zeros: an untrained block hands on what it gets.
    """

    def __init__(self, dim: int, heads: int, context_dim: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.self_attention = Attention(dim, heads, bias=True)
        self.has_context = context_dim is not None
        if self.has_context:
            self.norm2 = nn.LayerNorm(dim, eps=1e-6)
            self.cross_attention = Attention(dim, heads, context_dim)
            nn.init.zeros_(self.cross_attention.out.weight)
            nn.init.zeros_(self.cross_attention.out.bias)
        self.norm3 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.wide = nn.Linear(dim, 4 * dim)
        self.out = nn.Linear(4 * dim, dim)
        self.modulation = zeros(nn.Linear(dim, 6 * dim))

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """x: (B, N, D); time: (B, D); context: (B, L, context_dim); mask: (B, L)."""
        shift1, scale1, gate1, shift3, scale3, gate3 = self.modulation(F.silu(time)).chunk(6, dim=1)
        x = x + gate1[:, None] * self.self_attention(modulate(self.norm1(x), shift1, scale1))
        if self.has_context:
            x = x + self.cross_attention(self.norm2(x), context, mask)
        h = F.gelu(self.wide(modulate(self.norm3(x), shift3, scale3)), approximate="tanh")
        return x + gate3[:, None] * self.out(h)


class DiT(nn.Module):
    """net(x, t, context, mask) -> a tensor shaped as x (with `out_channels` channels)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config, dim, patch = config, config.dim, config.patch
        self.patches = nn.Conv2d(config.in_channels, dim, patch, stride=patch)
        self.time = nn.Sequential(nn.Linear(RATES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(
            DiTBlock(dim, config.heads, config.context_dim) for _ in range(config.layers)
        )
        self.norm_out = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.modulation = zeros(nn.Linear(dim, 2 * dim))
        self.out = zeros(nn.Linear(dim, patch**2 * config.out_channels))

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, C, H, W); t: (B,); context: (B, L, context_dim); mask: (B, L), True = attend.

        Raises ValueError if H or W is no multiple of `patch`, or a context is missing.
        """
        patch, wants = self.config.patch, self.config.context_dim is not None
        if x.ndim != 4 or x.shape[1] != self.config.in_channels:
            got = tuple(x.shape)
            raise ValueError(f"this network takes (B, {self.config.in_channels}, H, W), not {got}")
        if x.shape[2] % patch or x.shape[3] % patch:
            raise ValueError(f"height and width must be multiples of {patch}: {tuple(x.shape)}")
        if wants != (context is not None):
            raise ValueError(f"this network {'wants a' if wants else 'takes no'} context")
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        time = self.time(timestep_embedding(t, RATES).to(x.dtype))
        x = self.patches(x)  # (B, D, h, w)
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2) + positions(height, width, self.config.dim).to(x)
        for block in self.blocks:
            x = block(x, time, context, mask)
        shift, scale = self.modulation(F.silu(time)).chunk(2, dim=1)
        x = self.out(modulate(self.norm_out(x), shift, scale))  # (B, h·w, patch · patch · C)
        x = x.unflatten(2, (patch, patch, -1)).unflatten(1, (height, width))
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def zeros(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
