"""Whether two results are the same, and in words where they are not."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks._call import kind
from diffusion_lib.checks._wrong import Wrong

_FLOATS = torch.float32, torch.float64


def is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def as_tensor(value: Any, name: str = "your answer", example: str = "a tensor") -> Tensor:
    """`value` if it is a tensor of real numbers; else Wrong. Python numbers are taken as tensors."""
    if value is None:
        raise Wrong(f"`{name}` returned None: is a `return` missing?", "none")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return torch.tensor(float(value))
    if not isinstance(value, Tensor) or value.is_complex() or value.dtype == torch.bool:
        real = "real numbers" if isinstance(value, Tensor) else example
        raise Wrong(f"`{name}` should return {real}, and returned {kind(value)}.", "type")
    return value


def close(got: Any, want: Tensor, atol: float = 1e-4) -> bool:
    """Whether `got` is `want`, in shape and, within atol · max(1, |want|), in value. NaN equals NaN."""
    if not isinstance(got, Tensor) or got.shape != want.shape or got.is_meta:
        return False
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    return torch.allclose(got, want, rtol=atol, atol=atol, equal_nan=True)


def fine(got: Tensor, want: Tensor, atol: float = 1e-4) -> bool:
    """`close`, and floating-point where floating-point is wanted, with no less than 32 bits."""
    return close(got, want, atol) and (not is_float(want) or got.dtype in _FLOATS)


def copy_of(case: tuple) -> tuple:
    """The case again, random generators at their start included."""

    def one(value: Any) -> Any:
        if isinstance(value, torch.Generator):
            generator = torch.Generator(value.device)
            generator.set_state(value.get_state())
            return generator
        return value.clone() if isinstance(value, Tensor) else value

    return tuple(map(one, case))


def difference(
    got: Tensor, want: Tensor, atol: float = 1e-4, name: str = "x", rows: Sequence[str] = ()
) -> str:
    """What is wrong with `got`, in words: shape, dtype, NaN, or the first entry that differs."""
    if got.shape != want.shape:
        both, skip = (" and ".join(rows) + " of ", 1) if rows and len(got) == len(want) else ("", 0)
        shapes = tuple(got.shape[skip:]), tuple(want.shape[skip:])
        return f"`{name}` returned {both}shape {shapes[0]}, expected {shapes[1]}."
    if is_float(want) and got.dtype not in _FLOATS:
        return f"`{name}` returned {got.dtype}, expected torch.float32."
    if got.is_meta:
        return f"`{name}` returned a tensor without data."
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    off = ~torch.isclose(got, want, rtol=atol, atol=atol, equal_nan=True)
    index = tuple(off.nonzero()[0].tolist()) if off.ndim else ()
    where = f"entry {list(index)}" if index else "the number"
    if rows:
        where = f"{rows[index[0]]}{list(index[1:])}"
    text = f"{int(off.sum())} of {off.numel()} entries differ. " if off.numel() > 1 else ""
    if got.isnan().any() and not want.isnan().any():
        text = f"{int(got.isnan().sum())} of {off.numel()} entries are not a number (NaN). " + text
    yours, expected = got[index].item(), want[index].item()
    return f"{text}The first, {where}: yours {yours:.5g}, expected {expected:.5g}."
