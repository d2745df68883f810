"""What a network is told beside the noisy picture."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Cond(NamedTuple):
    """What a picture should show. context: (B, L, D); mask: (B, L), True = attend, or None."""

    context: Tensor
    mask: Tensor | None = None

    def expand(self, n: int) -> "Cond":
        """The same for n pictures: one row serves them all. Raises ValueError for another number."""
        if len(self.context) not in (1, n):
            got = len(self.context)
            raise ValueError(f"{n} pictures need as many (negative) prompts, or one: not {got}")
        return Cond(*(part if part is None else part.expand(n, *part.shape[1:]) for part in self))

    @staticmethod
    def cat(conds: Sequence["Cond"]) -> "Cond":
        """One below the other; where only some have a mask, the others attend to everything.

        Raises ValueError if they have other numbers of tokens or features.
        """
        shapes = {tuple(cond.context.shape[1:]) for cond in conds}
        if len(shapes) > 1:
            raise ValueError(f"conditions of other shapes (L, D) cannot be mixed: {sorted(shapes)}")
        context = torch.cat([cond.context for cond in conds])
        if all(cond.mask is None for cond in conds):
            return Cond(context)
        every = context.new_ones(1, context.shape[1], dtype=torch.bool)
        masks = [every.expand(len(c.context), -1) if c.mask is None else c.mask for c in conds]
        return Cond(context, torch.cat(masks))


class VectorEncoder(nn.Module):
    """A vector of K numbers as a prompt of one token.

    The student course that this one grew out of ("the original course") tells its model five:
    hero, non-hero, food, spell, side-facing; mixtures such as (0.5, 0, 0.5, 0, 0) included.
    """

    def __init__(self, dim: int = 64, classes: int = 5) -> None:
        super().__init__()
        self.linear = nn.Linear(classes, dim)
        self.null = nn.Parameter(torch.zeros(1, 1, dim))  # "no condition", learned by dropout

    def forward(self, vectors: Tensor, drop: Tensor | None = None) -> Tensor:
        """vectors: (B, classes); drop: (B,), True = use the null instead. Returns (B, 1, D)."""
        context = self.linear(vectors.to(self.null.dtype))[:, None]  # (B, 1, D)
        return context if drop is None else torch.where(drop[:, None, None], self.null, context)
