"""The autoencoder: pictures to small latents and back, so that diffusion has less to do.

The structure is Stable Diffusion v1's (Rombach et al. 2022, section 3.1): its 83.7 M parameters and
our narrow one for small pictures are two configurations of this one class.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.guards import real, whole
from diffusion_lib.layers import Attention, Downsample, ResidualBlock, Upsample
from diffusion_lib.noise import randn_like
from diffusion_lib.parallel import drawn


@dataclass(frozen=True)
class AutoencoderConfig:
    """One entry of `channels` a level, from full resolution downwards."""

    channels: tuple[int, ...] = (32, 64, 64)
    latent_channels: int = 4
    layers: int = 1  # residual blocks a level (one more on the way up)
    groups: int = 8  # of GroupNorm
    fold: int = 1  # fold x fold pixels become channels before the first layer, which costs less
    kl: float = 1e-6  # the weight of the latents' distance from a standard normal

    def __post_init__(self) -> None:
        # JSON knows no tuples: a configuration read from a file comes with a list
        object.__setattr__(self, "channels", tuple(self.channels))
        for name in ("latent_channels", "layers", "groups", "fold"):
            whole(name, getattr(self, name), 1)
        real("kl", self.kl, 0)
        for c in self.channels or (0,):
            if whole("each of channels", c, 1) % self.groups:
                raise ValueError(f"{c} channels cannot be split evenly into {self.groups} groups")

    @property
    def factor(self) -> int:
        """Pixels a side of one latent."""
        return self.fold * 2 ** (len(self.channels) - 1)


class PixelAttention(nn.Module):
    """Each pixel of a feature map looks at all others: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.attention = Attention(channels, heads=1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).flatten(2).transpose(1, 2)  # (B, H·W, C)
        return x + self.attention(h).transpose(1, 2).unflatten(2, x.shape[-2:])


class Autoencoder(nn.Module):
    """encode: (B, 3, H, W) -> (B, latent_channels, H / factor, W / factor); decode: the way back.

    There are no shortcuts from one half to the other: all that is known of a picture is its latent.
    """

    scale: Tensor  # latents are multiplied by it, so that their variance is 1 as noise's is

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        channels, groups, fold, latent = (
            config.channels,
            config.groups,
            config.fold,
            config.latent_channels,
        )

        def block(a: int, b: int) -> ResidualBlock:
            return ResidualBlock(a, b, None, groups, eps=1e-6)

        def conv(a: int, b: int) -> nn.Conv2d:
            return nn.Conv2d(a, b, 3, padding=1)

        def middle(c: int) -> dict[str, nn.Module]:
            attention = PixelAttention(c, groups)
            return dict(middle_block0=block(c, c), attention=attention, middle_block1=block(c, c))

        def end(a: int, b: int) -> dict[str, nn.Module]:
            return dict(
                norm_out=nn.GroupNorm(groups, a, eps=1e-6), silu=nn.SiLU(), conv_out=conv(a, b)
            )

        width = channels[0]
        down = dict(fold=nn.PixelUnshuffle(fold), conv_in=conv(3 * fold**2, width))
        for i, c in enumerate(channels):
            for j in range(config.layers):
                down[f"down{i}_block{j}"] = block(width, c)
                width = c
            if i < len(channels) - 1:
                down[f"down{i}_resize"] = Downsample(c, padding=0)
        self.encoder = nn.Sequential(OrderedDict(down | middle(c) | end(c, 2 * latent)))
        self.quant = nn.Conv2d(2 * latent, 2 * latent, 1)

        self.post_quant = nn.Conv2d(latent, latent, 1)
        up = dict(conv_in=conv(latent, width)) | middle(width)
        for i, c in enumerate(reversed(channels)):
            for j in range(config.layers + 1):
                up[f"up{i}_block{j}"] = block(width, c)
                width = c
            if i < len(channels) - 1:
                up[f"up{i}_resize"] = Upsample(c)
        up |= end(c, 3 * fold**2) | dict(fold=nn.PixelShuffle(fold))
        self.decoder = nn.Sequential(OrderedDict(up))
        self.register_buffer("scale", torch.tensor(1.0))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of a picture's latents, before scaling: a normal distribution each."""
        factor = self.config.factor
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[-1] % factor or x.shape[-2] % factor:
            raise ValueError(
                f"this autoencoder takes (B, 3, H, W), H and W multiples of {factor}, "
                f"not {tuple(x.shape)}"
            )
        mean, log_variance = self.quant(self.encoder(x)).chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def encode(self, x: Tensor) -> Tensor:
        """Pictures in [-1, 1] to the scaled means of their latents."""
        return self.moments(x)[0] * self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents to pictures, roughly in [-1, 1]."""
        return self.decoder(self.post_quant(z / self.scale))

    def loss(
        self, x: Tensor, captions: object = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Squared error of the reconstruction from a *drawn* latent, and the divergence KL(q, N(0, 1)).

        The draw, mean + deviation · noise, lets the gradient through to both.
        (Kingma & Welling 2014, section 2.4) captions: not heard; batches have them.
        """
        mean, log_variance = self.moments(x)
        eps = drawn(lambda n: randn_like(mean.new_empty(n, *mean.shape[1:]), generator), len(mean))
        z = mean + (log_variance / 2).exp() * eps
        error = F.mse_loss(self.decoder(self.post_quant(z)), x)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
        return error + self.config.kl * divergence.mean()

    @torch.no_grad()
    def measure_scale(self, batches: Iterable[Tensor]) -> Tensor:
        """Sets `scale` to 1 / the standard deviation of all latents of these pictures (B, 3, H, W)."""
        means = torch.cat([self.moments(x)[0].flatten() for x in batches])
        return self.scale.copy_(1 / means.std())
