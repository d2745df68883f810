"""What the checks of classes share: is it a class, and what does backward() bring to it?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lib.checks._call import kind
from diffusion_lib.checks._wrong import Wrong


def need_class(answer: Any, name: str) -> None:
    if isinstance(answer, nn.Module):
        found = "one that is built already: hand over the class, without brackets behind its name"
    elif isinstance(answer, type) and not issubclass(answer, nn.Module):
        found = f"the class {answer.__name__}, which is none: write `class {name}(nn.Module):`"
    else:
        found = kind(answer)
    if not isinstance(answer, type) or not issubclass(answer, nn.Module):
        raise Wrong(
            f"I need your class {name} itself, a kind of nn.Module, and got {found}.", "type"
        )


def gradients(net: nn.Module, x: Tensor, run: Callable | None = None) -> dict[str, Tensor | None]:
    """What comes back from run(x), or net(x), to "x" and to each of the net's weights, by name.

    None stands for no gradient, and for one that is 0 everywhere.
    """
    x = x.clone().requires_grad_()
    net.zero_grad()
    out = (run or net)(x)
    if out.requires_grad:
        (out * torch.linspace(0.5, 1.5, out.numel()).view(out.shape)).sum().backward()
    found = {"x": x.grad} | {name: p.grad for name, p in net.named_parameters()}
    return {name: g if g is not None and g.any() else None for name, g in found.items()}
