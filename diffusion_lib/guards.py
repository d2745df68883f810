"""Bad input, refused where it comes in and in the user's words: what is wrong, and what to do."""

import inspect
import math
import operator
from collections.abc import Iterable

import torch
from torch import Tensor, nn

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def whole(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> int:
    """`value` as an int, NumPy's and one-element tensors included; ValueError if it is none."""
    try:
        number = operator.index(value)  # refuses 1.5 and "3"
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    if isinstance(value, bool) or not low <= number <= high:
        raise ValueError(f"{name} must be {_between(low, high)}, not {value!r}")
    return number


def real(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a finite float in low…high; ValueError if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be a number, not {value!r}") from None
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{name} must be finite and {_between(low, high)}, not {value!r}")
    return number


def _between(low: float, high: float) -> str:
    if math.isinf(high):
        return "a number" if math.isinf(low) else f"at least {low}"
    return f"in {low}…{high}"


def texts(values: Iterable[str], name: str = "prompts", count: int | None = None) -> list[str]:
    """A list of texts, `count` of them if it is given. Raises TypeError or ValueError."""
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list of texts: write [{values!r}]")
    if isinstance(values, Tensor) or not isinstance(values, Iterable):
        what = f"a tensor of {values.dtype}" if isinstance(values, Tensor) else repr(values)
        raise TypeError(f"{name} must be a list of texts, not {what}")
    values = list(values)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be texts, but number {i} is {value!r}")
    if count is not None and len(values) != count:
        raise ValueError(f"{count} pictures need as many {name}, not {len(values)}")
    return values


def floats(name: str, x: Tensor) -> Tensor:
    """`x` itself, if it is a tensor of floating-point numbers and not empty; else ValueError."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"{name} must be a float tensor (pictures: in [-1, 1]), not {kind}; "
            "from 0…255 it is x / 127.5 - 1"
        )
    if x.numel() == 0 or x.ndim == 0:
        raise ValueError(f"{name} is empty or no batch: its shape is {tuple(x.shape)}")
    return x


def pictures(name: str, x: Tensor, bound: float = 1.01, few: int = 0) -> Tensor:
    """`x` itself, if it is a batch (B, C, H, W) of finite floats, none beyond `bound`.

    More than a `few` pictures without any pixel below 0 are taken for pictures in 0…1.
    """
    if floats(name, x).ndim != 4:
        raise ValueError(f"{name} must have shape (B, C, H, W), not {tuple(x.shape)}")
    low, high = x.detach().aminmax()
    if not (low.isfinite() and high.isfinite()):
        bad = int((~x.isfinite()).flatten(1).any(dim=1).sum())
        raise ValueError(f"{bad} of {len(x)} {name} hold NaN or infinite values: did it diverge?")
    if high > bound or low < -bound or (0 <= low < high <= 1 and len(x) > few):
        raise ValueError(
            f"{name} must lie in [-1, 1], but these go from {low:.3g} to {high:.3g}: "
            "from 0…255 it is x / 127.5 - 1, from 0…1 it is 2 x - 1"
        )
    return x


def integers(name: str, values: object, low: int, high: int) -> Tensor:
    """`values` as int64 on the CPU. Raises TypeError for others, IndexError outside low…high."""
    try:
        numbers = torch.as_tensor(values, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be integers in {low}…{high}, not {values!r}") from None
    if numbers.numel() and numbers.dtype not in INTEGERS:
        hint = " (of a mask take mask.nonzero()[:, 0])" * (numbers.dtype == torch.bool)
        raise TypeError(f"{name} must be integers in {low}…{high}, not {numbers.dtype}{hint}")
    numbers = numbers.long()
    wrong = numbers[(numbers < low) | (numbers > high)]
    if wrong.numel():
        raise IndexError(f"{name} = {int(wrong.view(-1)[0])} is outside {low}…{high}")
    return numbers


def fits(batch: object, model: nn.Module) -> int:
    """The first batch's number of pictures. Raises TypeError if `model.loss` does not take it."""
    name = type(model).__name__
    if not callable(getattr(model, "loss", None)):
        raise TypeError(f"{name} has no loss(): train a model that has (wrap its network, not it)")
    wanted = inspect.signature(model.loss)
    try:
        wanted.bind(*batch, generator=None)
        return len(batch[0])
    except (TypeError, KeyError, IndexError) as error:
        got = (
            f"{type(batch).__name__} of {len(batch)}" if hasattr(batch, "__len__") else repr(batch)
        )
        raise TypeError(f"{name}.loss{wanted}, but a batch is a {got}: {error}") from None


def why_not(batch: list, loss: Tensor, step: int, lr: float) -> str:
    """Why a step cannot be taken: the data, or the training."""
    for i, part in enumerate(batch):
        if isinstance(part, Tensor) and not part.isfinite().all():
            return f"part {i} of the batch of step {step} holds NaN or infinite numbers"
    what = "its gradient is not finite" if loss.isfinite() else f"the loss is {loss.item()}"
    return f"{what} at step {step}, though the batch is fine: try a smaller lr than {lr:g}"
