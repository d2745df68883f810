"""The UNet: a noisy picture, its time and a condition in, a picture-shaped answer out.

The block structure is Stable Diffusion v1's (Rombach et al. 2022): the sprite model and the 860 M
parameter original are two configurations of this one class.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.guards import whole
from diffusion_lib.layers import (
    Downsample,
    ResidualBlock,
    SpatialTransformer,
    Upsample,
    timestep_embedding,
)


@dataclass(frozen=True)
class UNetConfig:
    """One entry of `channels` and `attention` a level, from full resolution downwards."""

    in_channels: int = 3
    out_channels: int = 3
    channels: tuple[int, ...] = (32, 64, 64)
    layers: int = 2  # residual blocks a level (one more on the way up)
    attention: tuple[bool, ...] = (False, True, True)
    heads: int = 4
    groups: int = 8  # of GroupNorm
    context_dim: int | None = None  # width of a condition's tokens; None: no cross-attention

    def __post_init__(self) -> None:
        # JSON knows no tuples: a configuration read from a file comes with lists
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "attention", tuple(self.attention))
        for name in ("in_channels", "out_channels", "layers", "heads", "groups"):
            whole(name, getattr(self, name), 1)
        if self.context_dim is not None:
            whole("context_dim", self.context_dim, 1)
        if not all(isinstance(attend, bool) for attend in self.attention):
            raise ValueError(f"attention is True or False for each level, not {self.attention}")
        if not self.channels or len(self.channels) != len(self.attention):
            raise ValueError(
                f"{len(self.channels)} levels of channels, but {len(self.attention)} of attention"
            )
        for c in self.channels:
            if whole("each of channels", c, 1) % self.groups or c % self.heads or c % 2:
                raise ValueError(
                    f"{c} channels cannot be split evenly into {self.groups} groups, "
                    f"{self.heads} heads, and a half of sines and one of cosines"
                )


class Level(nn.Module):
    """One resolution: residual blocks, each followed by attention if there is any, then a resize."""

    def __init__(self, widths: list[tuple[int, int]], config: UNetConfig, attend: bool) -> None:
        """widths: (channels in, channels out) of each residual block."""
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(c_in, c_out, 4 * config.channels[0], config.groups)
            for c_in, c_out in widths
        )
        self.attentions = nn.ModuleList(
            SpatialTransformer(c_out, config.heads, config.groups, config.context_dim)
            for _, c_out in widths
            if attend
        )
        self.resize: nn.Module | None = None  # the UNet sets it on all levels but the last

    def layer(self, i: int, x: Tensor, time: Tensor, *cond: Tensor | None) -> Tensor:
        """Residual block i and the attention that follows it: (B, C_in, H, W) -> (B, C_out, H, W)."""
        x = self.blocks[i](x, time)
        return self.attentions[i](x, *cond) if self.attentions else x


class UNet(nn.Module):
    """net(x, t, context, mask) -> a tensor shaped as x (with `out_channels` channels)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels, layers = config.channels, config.layers
        first, last = channels[0], channels[-1]
        self.time = nn.Sequential(
            nn.Linear(first, 4 * first), nn.SiLU(), nn.Linear(4 * first, 4 * first)
        )
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)

        self.down = nn.ModuleList()
        skips = [first]  # the width of every feature map that the way up will get back
        for c, attend in zip(channels, config.attention):
            self.down.append(Level([(skips[-1], c)] + [(c, c)] * (layers - 1), config, attend))
            skips += [c] * layers
            if len(self.down) < len(channels):
                self.down[-1].resize = Downsample(c)
                skips.append(c)

        self.middle = Level([(last, last), (last, last)], config, False)
        self.middle.attentions.append(
            SpatialTransformer(last, config.heads, config.groups, config.context_dim)
        )

        self.up = nn.ModuleList()
        width = last
        for c, attend in zip(reversed(channels), reversed(config.attention)):
            widths = []
            for _ in range(layers + 1):
                widths.append((width + skips.pop(), c))
                width = c
            self.up.append(Level(widths, config, attend))
            if len(self.up) < len(channels):
                self.up[-1].resize = Upsample(c)

        self.norm_out = nn.GroupNorm(config.groups, first, eps=1e-5)
        self.conv_out = nn.Conv2d(first, config.out_channels, 3, padding=1)

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, C, H, W); t: (B,); context: (B, L, context_dim); mask: (B, L), True = attend.

        Raises ValueError if H or W cannot be halved at every level, or a context is missing.
        """
        self._check(x, context)
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        time = self.time(timestep_embedding(t, self.config.channels[0]).to(x.dtype))
        x = self.conv_in(x)
        skips = [x]
        for level in self.down:
            for i in range(len(level.blocks)):
                x = level.layer(i, x, time, context, mask)
                skips.append(x)
            if level.resize is not None:
                x = level.resize(x)
                skips.append(x)

        before, after = self.middle.blocks
        x = after(self.middle.attentions[0](before(x, time), context, mask), time)

        for level in self.up:
            for i in range(len(level.blocks)):
                x = level.layer(i, torch.cat([x, skips.pop()], dim=1), time, context, mask)
            if level.resize is not None:
                x = level.resize(x)
        return self.conv_out(F.silu(self.norm_out(x)))

    def _check(self, x: Tensor, context: Tensor | None) -> None:
        channels, width = self.config.in_channels, self.config.context_dim
        factor = 2 ** (len(self.config.channels) - 1)
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"this UNet takes (B, {channels}, H, W), not {tuple(x.shape)}")
        if x.shape[-1] % factor or x.shape[-2] % factor:
            raise ValueError(
                f"this UNet halves its input {len(self.config.channels) - 1} times, so height and "
                f"width must be multiples of {factor}: got {x.shape[-2]}x{x.shape[-1]}"
            )
        got = None if context is None else tuple(context.shape)
        if (got is None) != (width is None) or got and (len(got) != 3 or got[2] != width):
            wanted = None if width is None else f"(B, L, {width})"
            raise ValueError(f"this UNet wants a context {wanted}, not {got} (context_dim {width})")
