"""The losses that a learner's training loop returns."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_lib.checks._call import kind
from diffusion_lib.checks._wrong import Wrong


def losses_of(result: Any, steps: int, name: str) -> Tensor:
    """(steps,): a list, a tuple, an array or a tensor of one number a step, without gradients."""
    if result is None:
        raise Wrong(f"`{name}` returned None: is a `return` missing?", "none")
    several = isinstance(result, list | tuple) or getattr(result, "shape", ())
    if not several:
        raise Wrong(
            f"`{name}` should return the losses, one a step, as a list or a tensor; it returned "
            f"{kind(result)}.",
            "type",
        )
    for step, one in enumerate(result, 1):
        numeric = isinstance(one, Real | Tensor | np.ndarray) and not isinstance(one, bool)
        if not numeric or np.prod(getattr(one, "shape", ())) != 1:
            raise Wrong(
                f"Each loss should be one number; that of step {step} is {kind(one)}.", "type"
            )
        if isinstance(one, Tensor) and one.requires_grad:
            raise Wrong(
                "The losses that you return hold on to their gradients, and so to all the memory of "
                "the network.",
                "gradients kept",
                "keep the number alone: loss.item(), or loss.detach()",
            )
    if len(result) != steps:
        raise Wrong(f"{steps} steps should give {steps} losses; yours are {len(result)}.")
    return torch.tensor([float(one) for one in result])
