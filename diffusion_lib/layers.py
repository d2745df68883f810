"""The parts that the UNet and the text encoder are built from.

Shapes: B pictures (or prompts), C channels, H and W pixels, L tokens, D features a token,
h attention heads. Module by module these are Stable Diffusion v1's blocks, so that its weights fit.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Cosines, then sines, of t at dim/2 frequencies from 1 down to 1/10,000.

    t: (B,), integers or floats. Returns (B, dim) in float32. (Vaswani et al. 2017, section 3.5)
    """
    half = dim // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * rates  # (B, dim/2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResidualBlock(nn.Module):
    """x + conv(act(norm( conv(act(norm(x))) + time ))): (B, C_in, H, W) -> (B, C_out, H, W)."""

    def __init__(
        self, c_in: int, c_out: int, time_dim: int | None, groups: int, eps: float = 1e-5
    ) -> None:
        """time_dim: None for a block without time, as an autoencoder's."""
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in, eps)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = None if time_dim is None else nn.Linear(time_dim, c_out)
        self.norm2 = nn.GroupNorm(groups, c_out, eps)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x: (B, C_in, H, W); time: (B, time_dim), the same vector for every block."""
        h = self.conv1(F.silu(self.norm1(x)))  # (B, C_out, H, W)
        if self.time is not None:
            h = h + self.time(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Multi-head attention of x's tokens over a context's (over its own when there is none).

    softmax(Q Kᵀ / √d) V with Q from x, K and V from the context. (Vaswani et al. 2017, eq. 1)
    """

    def __init__(self, dim: int, heads: int, context_dim: int | None = None, bias: bool = False):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} features cannot be split evenly into {heads} attention heads")
        context_dim = context_dim or dim
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=bias)
        self.key = nn.Linear(context_dim, dim, bias=bias)
        self.value = nn.Linear(context_dim, dim, bias=bias)
        self.out = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, L, D) -> (B, h, L, D/h)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """x: (B, N, D); context: (B, L, D'); mask: (B, L), True = attend. Returns (B, N, D)."""
        context = x if context is None else context
        if mask is not None:
            if mask.dtype != torch.bool or mask.shape[1:] != context.shape[1:2]:
                got = f"{mask.dtype} {tuple(mask.shape)}"
                raise ValueError(f"a mask is bool (B, L), True = attend: not {got}")
            mask = mask[:, None, None, :]  # (B, 1, 1, L): for all heads and all queries
        if causal:
            past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            mask = past if mask is None else mask & past  # (B, 1, L, L)
        query, value = self._split(self.query(x)), self._split(self.value(context))
        key = self._split(self.key(context))
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # torch's fused kernel takes up to ten times as long backwards, in bfloat16 on a CPU
            h = softmax(query, key, mask) @ value
        else:
            h = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(h.transpose(1, 2).flatten(2))  # h: (B, h, N, D/h)

    def weights(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None):
        """The map that `forward` applies and does not keep: (B, h, N, L), rows summing to 1."""
        key = self._split(self.key(x if context is None else context))
        mask = None if mask is None else mask[:, None, None, :]
        return softmax(self._split(self.query(x)), key, mask)


def softmax(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(Q Kᵀ / √d), 0 where the mask is False: (…, N, L)."""
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(-1)


class GatedFeedForward(nn.Module):
    """GEGLU: half of a wide layer gates the other half. (Shazeer 2020, eq. 6)"""

    def __init__(self, dim: int, factor: int = 4) -> None:
        super().__init__()
        self.wide = nn.Linear(dim, 2 * factor * dim)
        self.out = nn.Linear(factor * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        h, gate = self.wide(x).chunk(2, dim=-1)
        return self.out(h * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Pixels look at each other, then at the words, then each thinks for itself."""

    def __init__(self, dim: int, heads: int, context_dim: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, heads)
        if context_dim is not None:
            self.norm2 = nn.LayerNorm(dim)
            self.cross_attention = Attention(dim, heads, context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.feed_forward = GatedFeedForward(dim)
        self.has_context = context_dim is not None

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """x: (B, N, D); context: (B, L, context_dim); mask: (B, L). Returns (B, N, D)."""
        x = x + self.self_attention(self.norm1(x))
        if self.has_context:
            x = x + self.cross_attention(self.norm2(x), context, mask)
        return x + self.feed_forward(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of a feature map, one token a pixel."""

    def __init__(self, channels: int, heads: int, groups: int, context_dim: int | None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv_in = nn.Conv2d(channels, channels, 1)
        self.block = TransformerBlock(channels, heads, context_dim)
        self.conv_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """x: (B, C, H, W) -> (B, C, H, W)."""
        height, width = x.shape[-2:]
        h = self.conv_in(self.norm(x))
        h = h.flatten(2).transpose(1, 2)  # (B, H·W, C): one token a pixel
        h = self.block(h, context, mask)
        h = h.transpose(1, 2).unflatten(2, (height, width))
        return x + self.conv_out(h)


class Downsample(nn.Module):
    """Halves height and width by a strided convolution."""

    def __init__(self, channels: int, padding: int = 1) -> None:
        """padding: 1 on all sides; 0 for Stable Diffusion's autoencoder: 1 right and below only."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.conv.padding[0] else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles height and width: each pixel becomes four, then a convolution smooths them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
