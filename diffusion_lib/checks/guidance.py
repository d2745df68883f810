"""Exercise 19: guidance, within an interval of times."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks._call import call, kind
from diffusion_lib.checks._compare import as_tensor
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._guards import on_another_device
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._own import own
from diffusion_lib.checks._wrong import Wrong
from diffusion_lib.conditions import Cond
from diffusion_lib.denoiser import guided


def right(denoiser, cond, null, scale, interval):
    (low, high), kept = interval, {}  # noqa: F841 (kept: for mistakes)

    def denoise(x, t):
        told = denoiser(x, t, cond)
        if not low <= t <= high:
            return told
        without = denoiser(x, t, null)
        return without + scale * (told - without)

    return denoise


def interleaved(denoiser, x, t, one, other):
    """One stacked call, in which pictures and conditions do not belong together."""
    return denoiser(x.repeat_interleave(2, 0), t, Cond.cat([one, other]))


def first_row(cond):
    return Cond(*(None if part is None else part[:1].expand_as(part) for part in cond))


TABLE = Table(
    right,
    """
not guided | without + scale * (told - without) -> told
    only D(cond) comes out: the unconditional answer, which training took such pains over, is never used
null alone | without + scale * (told - without) -> without
null alone | denoiser(x, t, cond) -> denoiser(x, t, null)
    only D(null) comes out: nobody hears the prompt
counts from zero | without + scale * -> told + scale *
    this is (1 + scale) D(cond) - scale D(null), the paper's form: its w = 0 is no guidance. Here
    scale 1 is
counts from two | without + scale * -> without + (scale - 1) *
    you guide by scale - 1 from the null; that leaves scale 1 without any prompt
sign | without + scale * -> without - scale *
    you walk from the null *away* from the prompt: the difference has the wrong sign
exchanged | without + scale * (told - without) -> told + scale * (without - told)
    cond and null have changed places: scale 0 should ignore the prompt, not obey it
null scaled | without + scale * (told - without) -> scale * without + (told - without)
    the scale belongs to the difference, not to D(null)
all scaled | without + scale * (told - without) -> scale * told
    the scale multiplies D(cond) whole; it belongs to what the prompt *changes*
no difference | (told - without) -> told
    scale · D(cond) is added to D(null): the scale belongs to their difference
difference alone | without + scale * -> scale *
    the difference is only a direction: it starts from D(null), which is missing
added to x | without + scale * -> x + scale *
    the difference is added to the noisy x; it starts from D(null)
clamped | without + scale * (told - without) -> (without + scale * (told - without)).clamp(-1, 1)
clamped | without + scale * (told - without) -> (without + scale * (told - without)).clamp(-1, 1) ;; return told -> return told.clamp(-1, 1)
    the answer is clamped to [-1, 1]; the sampler takes the noise from x - alpha D, so an altered D
    alters the noise. Clamp the finished picture, if you must
scale fixed | (low, -> scale = 3.0; (low,
scale fixed | (low, -> scale = 2.0; (low,
scale fixed | (low, -> scale = 5.0; (low,
scale fixed | (low, -> scale = 7.5; (low,
    your scale is always the same number; take the `scale` that you are given
scale 0 ignored | (low, -> scale = scale or 1; (low,
    `scale or 1` turns scale 0 into 1: but 0 is a scale like any other, that does not hear the prompt
scale bounded | (low, -> scale = max(scale, 0); (low,
scale bounded | (low, -> scale = max(scale, 1); (low,
    small scales are raised to a bound; any number is allowed, negative ones too
scale lost | + scale * -> + kept.get(0, scale) * ;; return told -> kept[0] = 1; return told
    after one time outside of the interval the scale stays 1: `denoise` is asked again
words guided | without + scale * (told - without) -> denoiser(x, t, Cond(null.context + scale * (cond.context - null.context), cond.mask))
    you go beyond the prompt's context; go beyond the denoiser's *answers*
cond's mask twice | denoiser(x, t, null) -> denoiser(x, t, Cond(null.context, cond.mask))
    the null's context is given with the mask of `cond`; it has its own
first null for all | denoiser(x, t, null) -> denoiser(x, t, first_row(null))
    each picture has its own row of `null`; yours all get the first
x overwritten | without = denoiser(x, t, null) -> without = denoiser(x, t, null); told = denoiser(without, t, cond)
    the second answer is asked for another x than the first
ends alone | low <= t <= high -> t in (low, high)
    `t in interval` looks whether t is one of the two ends; in between it must be guided, too
second sign | without + scale * (told - without) -> scale * told - (1 - scale) * without
    multiplied out it is scale · D(cond) + (1 - scale) · D(null): your second term is subtracted
null remembered | without = denoiser(x, t, null) -> without = kept.setdefault(0, denoiser(x, t, null))
    D(null) is computed once and kept: but x changes at every step, and D(null) with it
answers remembered | without = denoiser(x, t, null) -> without = kept.setdefault(t, denoiser(x, t, null))
answers remembered | told = denoiser(x, t, cond) -> told = kept.setdefault((t,), denoiser(x, t, cond)) ;; without = denoiser(x, t, null) -> without = kept.setdefault(t, denoiser(x, t, null))
answers remembered | told = denoiser(x, t, cond) -> told = kept.setdefault((t,), denoiser(x, t, cond))
    answers are kept by their time, and given again for another x
halves mixed up | told = denoiser(x, t, cond) -> told, without = interleaved(denoiser, x, t, cond, null).chunk(2) ;; without = denoiser(x, t, null) -> pass
halves mixed up | without = denoiser(x, t, null) -> told, without = interleaved(denoiser, x, t, cond, null).chunk(2)
halves mixed up | without = denoiser(x, t, null) -> both = interleaved(denoiser, x, t, null, cond) ; without, told = both[::2], both[1::2]
    in the stacked call pictures and conditions stand in different orders: with Cond.cat of the two
    conditions, x must be repeated as a whole, by torch.cat([x, x])
always guided | if not low <= t <= high: -> if False:
    the interval is not looked at: outside of it the answer is D(cond)
outside guided | if not low <= t <= high: -> if low <= t <= high:
    you guide outside of the interval, not inside
without the ends | low <= t <= high -> low < t < high
without the ends | low <= t <= high -> low < t <= high
without the ends | low <= t <= high -> low <= t < high
    the interval's ends, low and high, belong to it
null outside | return told -> return denoiser(x, t, null)
    outside of the interval the answer is D(cond), not D(null)
too many calls
    two answers a picture are enough, and outside of the interval one: keep them in variables, and ask
    for the null's only where it is used
""",
)


class Listener:
    """A denoiser D(x, t, cond) of no network: bent in x and in each row's words, moved by t."""

    rows = 0  # pictures that it was asked for

    def __call__(self, x: Tensor, t: int | Tensor, cond: Cond | None = None) -> Tensor:
        if not isinstance(cond, tuple) or len(cond) != 2:
            raise Wrong(
                "Your `denoise` calls denoiser(x, t, cond) with something that is no Cond.",
                None,
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
        return torch.sin(x + 0.1 * time) * (1 + 0.3 * said) + said.sin()


def walked(guidance: Callable) -> Callable[..., Tensor]:
    """One tensor of a guidance: what denoise says inside and outside of the interval, on a walk."""

    def denoised(x: Tensor, t: int, cond: tuple, null: tuple, scale: float, interval: tuple) -> Any:
        listener = Listener()
        denoise = own(guidance, guided)(listener, Cond(*cond), Cond(*null), scale, interval)
        if not callable(denoise):
            raise Wrong(
                f"`guidance` should return a function denoise(x, t), and returned {kind(denoise)}.",
                "none" if denoise is None else "type",
                "guidance is asked once, before the walk; what it returns is called at each step",
            )
        denoise, out, (low, high) = own(denoise, guided), [], interval
        for time in (low, t, high, low - 1, high + 2, t + 1):
            call(denoise, 1 - x, time, name="denoise")
            listener.rows = 0
            out.append(as_tensor(call(denoise, x, time, name="denoise"), "denoise"))
            denoised.calls.append(listener.rows / len(x) - 1 - (low <= time <= high))
        return torch.stack(out)

    denoised.calls = []  # answers a picture, too many or too few
    return denoised


def case(i: int, scale: float, shape: tuple, dtype=torch.float32, masks=(True, True)) -> tuple:
    generator = torch.Generator().manual_seed(190 + i)
    x = 1.5 * torch.randn(shape, generator=generator, dtype=dtype)
    context, null = (torch.randn(shape[0], 3, 4, generator=generator) for _ in range(2))
    heard, null_heard = torch.ones(shape[0], 3).bool(), torch.zeros(shape[0], 3).bool()
    heard[0, 2], null_heard[:, 0] = False, True
    cond, null = (context, heard if masks[0] else None), (null, null_heard if masks[1] else None)
    return x, 5 + i, cond, null, scale, (3 + i, 7 + 2 * i)


@exercise(
    19,
    "The prompt is only half heard",
    'notebook 06, "Guidance: listening harder"',
    "D_w(x, t, c) = D(x, t, null) + w · (D(x, t, c) - D(x, t, null)), but D(x, t, c) outside the interval",
    "Now the prompt has a volume knob, and it is paid for only where it is of use.",
)
def guidance(answer) -> None:
    """answer(denoiser, cond, null, scale, interval) -> denoise(x, t). interval: (low, high)."""
    rows = "low", "t between", "high", "low - 1", "high + 2", "t + 1, after a time outside"
    rows = [f"denoise at t = {row}, entry " for row in rows]
    cases = [
        case(0, 3.7, (4, 2)),
        case(1, 0.4, (2, 3, 4, 4)),
        case(2, 7.1, (4, 1, 2, 3)),
        case(3, 2.2, (2, 5), masks=(False, False)),
        case(8, 1.6, (3, 2), masks=(False, True)),
        case(9, 4.4, (2, 3), masks=(True, False)),
    ]
    judge(answer, cases, TABLE, "guidance", rows=rows, observe=walked)
    more = [
        case(4, 1.0, (3, 2)),
        case(5, 0.0, (2, 3, 4, 4)),
        case(6, -1.0, (1, 2)),
        case(7, 5.3, (3, 2), torch.float64),
    ]
    judge(answer, more, TABLE, "guidance", rows=rows, observe=walked)
    x, t, (context, mask), (null, null_mask), scale, interval = cases[0]

    def once(x: Tensor, context: Tensor, null: Tensor, mask: Tensor, null_mask: Tensor) -> Tensor:
        conds = Cond(context, mask), Cond(null, null_mask)
        return answer(Listener(), *conds, scale, interval)(x, t)

    on_another_device(once, (x, context, null, mask, null_mask), name="denoise")
    counted = walked(answer)
    counted(*cases[0])
    extra = max(counted.calls)
    many = "one answer" if extra == 1 else f"{extra:.0f} answers"
    reason = f"`denoise` is right, but asks for {many} a picture more than needed."
    TABLE.demand(extra <= 0, "too many calls", reason)
