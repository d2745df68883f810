"""The check of guidance, which steers a walk."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffusion_lib.checks._core import (
    Mistake,
    Wrong,
    as_tensor,
    call,
    exercise,
    judge,
    on_another_device,
)
from diffusion_lib.conditions import Cond
from diffusion_lib.denoiser import guided


class Listener:
    """A denoiser D(x, t, cond) of no network: bent in x, moved by t and by each row's words."""

    def __init__(self) -> None:
        self.rows = 0  # pictures that it was asked for

    def __call__(self, x: Tensor, t: int | Tensor, cond: Cond | None = None) -> Tensor:
        if not isinstance(cond, tuple) or len(cond) != 2:
            raise Wrong(
                "Your `denoise` calls denoiser(x, t, cond) with something that is no Cond.",
                "hand `cond` and `null` on as they are; a stacked one is Cond(context, mask)",
            )
        self.rows += len(x)
        shape = (-1,) + (1,) * (x.ndim - 1)
        context, mask = cond
        heard = context.to(x.dtype) if mask is None else context.to(x.dtype) * mask[..., None]
        words = heard.sum(dim=1)  # (B, D)
        weights = torch.linspace(0.2, 1, words.shape[1], dtype=x.dtype, device=x.device)
        said = (words * weights).sum(dim=1).view(shape)
        time = torch.as_tensor(t, device=x.device).to(x.dtype).view(shape)
        return torch.sin(x + 0.1 * time) * (1 + 0.3 * said) + said


def _two(mix: Callable[..., Tensor]) -> Callable:
    """A guidance whose denoise is mix(D(cond), D(null), scale, x)."""

    def guidance(denoiser: Callable, cond: Cond, null: Cond, scale: float) -> Callable:
        return lambda x, t: mix(denoiser(x, t, cond), denoiser(x, t, null), scale, x)

    return guidance


def _remembered(denoiser: Callable, cond: Cond, null: Cond, scale: float) -> Callable:
    kept: list[Tensor] = []

    def denoise(x: Tensor, t: int) -> Tensor:
        kept.append(denoiser(x, t, null))
        return kept[0] + scale * (denoiser(x, t, cond) - kept[0])

    return denoise


def _walked(guidance: Callable) -> Callable[..., Tensor]:
    """One tensor of a guidance's denoise: its second answer, after one at another place and time."""

    def denoised(x: Tensor, t: int, cond: list, null: list, scale: float) -> Tensor:
        denoise = guidance(Listener(), Cond(*cond), Cond(*null), scale)
        if not callable(denoise):
            raise Wrong(
                "`guidance` should return a function denoise(x, t), and returned "
                f"{'None' if denoise is None else f'an object of type {type(denoise).__name__}'}.",
                "guidance is asked once, before the walk; what it returns is called at each step",
                "none" if denoise is None else "type",
            )
        call(denoise, 1 - x, t + 1, name="denoise")
        return as_tensor(call(denoise, x, t, name="denoise"), "denoise")

    return denoised


GUIDANCE_MISTAKES = [
    Mistake(
        "not guided",
        "only D(cond) comes out: the unconditional answer, which training took such pains over, "
        "is never used",
        _two(lambda c, n, s, x: c),
    ),
    Mistake(
        "null alone", "only D(null) comes out: nobody hears the prompt", _two(lambda c, n, s, x: n)
    ),
    Mistake(
        "counts from zero",
        "this is (1 + scale) D(cond) - scale D(null), the paper's form: its w = 0 is no guidance. "
        "Here scale 1 is",
        _two(lambda c, n, s, x: c + s * (c - n)),
    ),
    Mistake(
        "counts from two",
        "you guide by scale - 1 from the null; that leaves scale 1 without any prompt",
        _two(lambda c, n, s, x: n + (s - 1) * (c - n)),
    ),
    Mistake(
        "sign",
        "you walk from the null *away* from the prompt: the difference has the wrong sign",
        _two(lambda c, n, s, x: n - s * (c - n)),
    ),
    Mistake(
        "exchanged",
        "cond and null have changed places: scale 0 should ignore the prompt, not obey it",
        _two(lambda c, n, s, x: c + s * (n - c)),
    ),
    Mistake(
        "null scaled",
        "the scale belongs to the difference, not to D(null)",
        _two(lambda c, n, s, x: s * n + (c - n)),
    ),
    Mistake(
        "all scaled",
        "the scale multiplies D(cond) whole; it belongs to what the prompt *changes*",
        _two(lambda c, n, s, x: s * c),
    ),
    Mistake(
        "no difference",
        "scale · D(cond) is added to D(null): the scale belongs to their difference",
        _two(lambda c, n, s, x: n + s * c),
    ),
    Mistake(
        "difference alone",
        "the difference is only a direction: it starts from D(null), which is missing",
        _two(lambda c, n, s, x: s * (c - n)),
    ),
    Mistake(
        "added to x",
        "the difference is added to the noisy x; it starts from D(null)",
        _two(lambda c, n, s, x: x + s * (c - n)),
    ),
    Mistake(
        "clamped",
        "the answer is clamped to [-1, 1]; the sampler takes the noise from x - alpha D, so an "
        "altered D alters the noise. Clamp the finished picture, if you must",
        _two(lambda c, n, s, x: (n + s * (c - n)).clamp(-1, 1)),
    ),
    Mistake(
        "null remembered",
        "D(null) is computed once and kept: but x changes at every step, and D(null) with it",
        _remembered,
    ),
]


def _guidance_case(i: int, scale: float, shape: tuple, dtype=torch.float32, mask=True) -> tuple:
    generator = torch.Generator().manual_seed(190 + i)
    x = 1.5 * torch.randn(shape, generator=generator, dtype=dtype)
    context, null = (torch.randn(shape[0], 3, 4, generator=generator) for _ in range(2))
    heard, null_heard = torch.ones(shape[0], 3).bool(), torch.zeros(shape[0], 3).bool()
    heard[0, 2], null_heard[:, 0] = False, True
    return x, 3 + i, [context, heard if mask else None], [null, null_heard if mask else None], scale


@exercise(
    19,
    "The prompt is only half heard",
    'notebook 06, "Guidance: listening harder"',
    "D_w(x, t, c) = D(x, t, null) + w · (D(x, t, c) - D(x, t, null))",
    "Now the prompt has a volume knob: 0 is deaf, 1 is plain, and beyond it listens harder.",
    slow_start=True,
)
def guidance(answer) -> None:
    """answer(denoiser, cond, null, scale) -> denoise(x, t), as diffusion_lib.guided returns."""
    guided_by = lambda *a: call(answer, *a, name="guidance")  # noqa: E731
    cases = [
        _guidance_case(0, 3.0, (4, 2)),
        _guidance_case(1, 0.4, (2, 3, 4, 4)),
        _guidance_case(2, 7.5, (4, 1, 2, 3)),
        _guidance_case(3, 2.0, (2, 5), mask=False),
    ]
    right = _walked(
        lambda d, c, null, scale: guided(partial(d, cond=c), partial(d, cond=null), scale)
    )
    mistakes = [Mistake(m.name, m.cause, _walked(m.answer)) for m in GUIDANCE_MISTAKES]
    judge(_walked(guided_by), cases, right, mistakes, name="guidance")
    more = [
        _guidance_case(4, 1.0, (3, 2)),
        _guidance_case(5, 0.0, (2, 3, 4, 4)),
        _guidance_case(6, -1.0, (1, 2)),
        _guidance_case(7, 5.0, (3, 2), torch.float64),
    ]
    judge(_walked(guided_by), more, right, name="guidance")
    x, t, (context, mask), (null, null_mask), scale = cases[0]

    def once(x: Tensor, context: Tensor, null: Tensor, mask: Tensor, null_mask: Tensor) -> Tensor:
        return answer(Listener(), Cond(context, mask), Cond(null, null_mask), scale)(x, t)

    on_another_device(once, x, context, null, mask, null_mask, name="denoise")
    listener = Listener()
    answer(listener, Cond(context, mask), Cond(null, null_mask), scale)(x, t)
    if listener.rows > 2 * len(x):
        raise Wrong(
            f"`denoise` is right, but asks for {listener.rows / len(x):.0f} answers a picture; two "
            "are enough.",
            "the answer for the null is computed twice: keep it in a variable",
            "too many calls",
        )
