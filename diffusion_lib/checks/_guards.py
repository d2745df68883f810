"""What holds for every good answer: in double precision, of one row, on another device, and so on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks._call import careful, describe, inputs_of
from diffusion_lib.checks._compare import close, difference, fine, is_float
from diffusion_lib.checks._wrong import Wrong, stopped, unknown

CUT = ".detach(), .item(), .numpy(), .data or torch.no_grad() on the way cuts it off"


def _changed(change: Callable[[Tensor], Tensor]) -> Callable[..., None]:
    def guard(answer, case, right, result, name, atol) -> None:
        def other(case: tuple) -> tuple:
            return tuple(change(v) if isinstance(v, Tensor) else v for v in case)

        f = careful(answer, name)
        got = result(lambda *given: f(*other(given)), case)
        want = result(lambda *given: right(*other(given)), case)
        if not fine(got, want, atol):
            given = describe(inputs_of(answer, other(case)))
            reason = difference(got, want, atol, name)
            raise unknown(f"{reason}\n    It was called with {given}.")

    return guard


def _gradient(answer, case, right, result, name, atol) -> None:
    """The gradient with respect to every floating-point input is that of the right answer."""
    labels = [k for k, v in inputs_of(answer, case).items() if is_float(v)]

    def gradients(f: Callable) -> tuple[Tensor | None, ...]:
        leaves = tuple(v.clone().requires_grad_() if is_float(v) else v for v in case)
        out = f(*leaves)
        inputs = [v for v in leaves if is_float(v)]
        if not isinstance(out, Tensor) or not out.requires_grad:
            return (None,) * len(inputs)
        weights = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view(out.shape)
        return torch.autograd.grad((out * weights).sum(), inputs, allow_unused=True)

    try:
        found = gradients(answer)
    except RuntimeError as error:  # numpy() of a tensor that needs its gradient, say
        raise Wrong(stopped(name, error), "gradient", CUT) from error
    for label, got, want in zip(labels, found, gradients(right)):
        got, want = (None if g is None or not g.any() else g for g in (got, want))
        if got is None and want is not None:
            raise Wrong(
                f"`{name}` is right, but no gradient flows back through it to `{label}`: nothing "
                "before it could be trained.",
                "gradient",
                CUT,
            )
        if want is not None and not close(got, want, max(atol, 1e-3)):
            raise unknown(
                f"`{name}` is right, but the gradient that flows back through it to `{label}` is not."
            )


def on_another_device(answer, case, *_: Any, name: str = "your answer") -> None:
    """Calls the answer with tensors of the 'meta' device, which stands for a GPU."""
    name = _[2] if len(_) > 2 else name
    said = None
    try:
        out = answer(*(v.to("meta") if isinstance(v, Tensor) else v for v in case))
        if isinstance(out, Tensor) and out.device.type != "meta":
            said = f"it returned a tensor on the {out.device.type}"
    except Exception as error:
        if isinstance(error, NotImplementedError) or "cannot be called on meta" in str(error):
            return  # it must see numbers, which tensors on 'meta' do not have; those on a GPU have
        said = f"it stopped with {type(error).__name__}: {str(error).splitlines()[0]}"
    if said:
        raise Wrong(
            f"`{name}` works on the CPU only: with its inputs on another device ('meta', which stands "
            f"for a GPU) {said}",
            "device",
            ".numpy() and np.asarray(…) read the CPU's memory only: stay with torch"
            if "numpy" in said
            else "a tensor that you make yourself lies on the CPU: make it where the input lies, by "
            "`device=`",
        )


GUARDS: dict[str, Callable[..., None]] = {
    "double": _changed(lambda v: v.double() if is_float(v) else v),
    "row": _changed(lambda v: v[:1] if v.ndim else v),
    "view": _changed(lambda v: torch.stack([v, v], -1)[..., 0]),
    "gradient": _gradient,
    "device": on_another_device,
}
