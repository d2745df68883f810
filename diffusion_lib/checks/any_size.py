"""Exercise 09: pictures of any size."""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from diffusion_lib.checks._call import call
from diffusion_lib.checks._compare import as_tensor, close
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._modules import gradients, need_class
from diffusion_lib.checks._wrong import Wrong

UNET = "SmallUNet"


def right(x, w=None):
    """The exercise's UNet. w: its weights by name; if None, those of `checkpoint`."""
    w = w or checkpoint(4)

    def layer(name, x, **options):
        conv = F.conv_transpose2d if name.startswith("up") else F.conv2d
        return conv(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    height, width = x.shape[2:]
    a = F.silu(layer("enter", x, padding=1))
    b = F.silu(layer("down1", a, stride=2, padding=1))
    c = F.silu(layer("down2", b, stride=2, padding=1))
    pooled = c.mean((2, 3), True)
    v = F.silu(layer("vector", pooled)).expand_as(c)
    b = torch.cat([F.silu(layer("up2", torch.cat([c, v], 1), stride=2)), b], 1)
    a = torch.cat([F.silu(layer("up1", b, stride=2)), a], 1)
    y = layer("leave", a, padding=1)
    return y


TABLE = Table(
    right,
    """
tiles | c.mean((2, 3), True) -> F.interpolate(F.avg_pool2d(c, 4), scale_factor=4)
    the map is still pooled in windows of 4x4: a larger picture gets several vectors, and none of them
    knows the whole
maximum | c.mean((2, 3), True) -> c.amax((2, 3), True)
    the vector is the map's maximum, not its mean
sum | c.mean((2, 3), True) -> c.sum((2, 3), True)
    the map is summed and never divided by its size
divided by 16 | c.mean((2, 3), True) -> c.sum((2, 3), True) / 16
    the sum over the map is divided by 16, whatever the map's size
mean over the batch | c.mean((2, 3), True) -> c.mean((0, 2, 3), True)
    the mean goes over the pictures of the batch, too; each needs a vector of its own
one corner | c.mean((2, 3), True) -> c[:, :, :4, :4].mean((2, 3), True)
    the vector sees the first 4x4 window of the map alone
no vector | c.mean((2, 3), True) -> 0 * c
    the pooled vector plays no part
no pooling | c.mean((2, 3), True) -> c
    nothing is pooled: each place keeps its own vector
rows | c.mean((2, 3), True) -> c.mean(2, True).expand_as(c)
rows | c.mean((2, 3), True) -> c.mean(3, True).expand_as(c)
    the mean goes along one axis only
resized | a = F.silu(layer("enter" -> x = F.interpolate(x, 16); a = F.silu(layer("enter" ;; return y -> return F.interpolate(y, (height, width))
resized | a = F.silu(layer("enter" -> x = F.interpolate(x, 16, mode="bilinear"); a = F.silu(layer("enter" ;; return y -> return F.interpolate(y, (height, width), mode="bilinear")
    the picture is shrunk to 16x16 and its answer enlarged: the detail is lost on the way
padded | a = F.silu(layer("enter" -> x = F.pad(x, (0, -width % 16, 0, -height % 16)); a = F.silu(layer("enter" ;; return y -> return y[:, :, :height, :width]
    the picture is padded to a multiple of 16, and the padding is averaged with it
uneven windows | c.mean((2, 3), True) -> F.adaptive_avg_pool2d(c, 4).mean((2, 3), True)
    the map is brought to 4x4 first, in windows that overlap where 4 does not divide it: some places
    count twice
other weights
    weights were added, removed, renamed or reshaped; none of that is needed
refuses
    a size is refused that can be halved twice
accepts
    sizes that cannot work are not refused: something was cut, padded or resized in silence
far from the cause
    no ValueError came before the network ran: the size is not checked, or wrongly, or late
late
    look at the size first: nothing need be computed before
one side
    each of height and width must be divisible by 4
another error
    this is another kind of error than was wanted
message without the size
    whoever reads it should find the size, both numbers, and what they must be divisible by
gradient
    .detach(), .item(), .numpy(), .data or torch.no_grad() on the way cuts it off
""",
)


def checkpoint(c: int) -> dict[str, Tensor]:
    """The weights of an old UNet, with c channels at full resolution."""
    generator, weights = torch.Generator().manual_seed(9), {}
    shapes = {
        "enter": (c, 3, 3, 3),
        "down1": (2 * c, c, 4, 4),
        "down2": (2 * c, 2 * c, 4, 4),
        "vector": (2 * c, 2 * c, 1, 1),
        "up2": (4 * c, 2 * c, 2, 2),
        "up1": (4 * c, c, 2, 2),
        "leave": (3, 2 * c, 3, 3),
    }
    for name, shape in shapes.items():
        fan_in = shape[0] if name.startswith("up") else torch.tensor(shape[1:]).prod().item()
        bias = shape[1 if name.startswith("up") else 0]
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        weights[f"{name}.bias"] = torch.randn(bias, generator=generator) * 0.2
    return weights


class Convolutions(TorchFunctionMode):
    """Counts them."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += "conv" in getattr(func, "__name__", "")
        return func(*args, **(kwargs or {}))


def check_refusal(net: nn.Module, h: int, w: int, one_side: bool) -> None:
    """Raises Wrong unless a picture of h x w is met with a ValueError that says so, at once."""
    asked = f"A picture of {h}x{w} cannot be halved twice. "
    try:
        with Convolutions() as done:
            got = call(lambda x: net(x), torch.zeros(1, 3, h, w), name=UNET)
    except Wrong as wrong:
        error = wrong.__cause__
        if error is None:
            raise
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        reason = f"{asked}Wanted is a ValueError; it came to\n    {said}"
        if not isinstance(error, ValueError):
            TABLE.demand(done.count, "another error", reason)
            TABLE.demand(not one_side, "one side", reason)
            raise TABLE.wrong("far from the cause", reason) from None
        missing = {str(number) for number in (h, w, 4)} - {*re.findall(r"\d+", str(error))}
        reason = f"{asked}You refuse it, with these words:\n    {said}\nIn them is no "
        reason += f"{' and no '.join(sorted(missing))}."
        TABLE.demand(not missing, "message without the size", reason)
        reason = f"{asked}You refuse it when {done.count} convolutions have been computed already."
        TABLE.demand(not done.count, "late", reason)
        return
    shape = tuple(as_tensor(got, UNET).shape)
    reason = f"{asked}Wanted is a ValueError, and it returned shape {shape}."
    raise TABLE.wrong("accepts", reason)


@exercise(
    9,
    "Only 16x16 will do",
    'notebook 03, "The whole U"',
    "vector = mean of the map over all its places, whatever its height and width",
    "Any size that can be halved twice works; others are refused at the door.",
)
def any_size(answer) -> None:
    """answer(channels) -> a UNet, nn.Module, (B, 3, H, W) -> (B, 3, H, W) for H, W divisible by 4."""
    need_class(answer, UNET)
    net, old = call(answer, 4, name=UNET), checkpoint(4)
    shapes = {name: p.shape for name, p in net.state_dict().items()}
    odd = [n for n in {**old, **shapes} if n not in old or shapes.get(n) != old[n].shape]
    reason = f"A checkpoint of the old network does not load any more; differing: {', '.join(odd)}."
    TABLE.demand(not odd, "other weights", reason)
    net.load_state_dict(old)
    generator = torch.Generator().manual_seed(10)
    even = [(2, 16, 16), (2, 32, 32), (1, 16, 48)]
    more = [(2, 24, 24), (1, 12, 20), (2, 40, 28), (1, 4, 4), (1, 8, 64)]
    for sizes in (even, more):
        cases = [(torch.randn(b, 3, h, w, generator=generator),) for b, h, w in sizes]
        try:
            judge(lambda x: net.eval()(x), cases, TABLE, UNET)
        except Wrong as wrong:
            if isinstance(wrong.__cause__, ValueError):
                raise TABLE.wrong("refuses", wrong.reason) from None
            raise
    check_refusal(net, 18, 22, one_side=False)
    for h, w in [(16, 22), (18, 16), (20, 15), (2, 8)]:
        check_refusal(net, h, w, one_side=True)
    x, got = cases[1][0], gradients(net, cases[1][0])
    leaves = {name: p.clone().requires_grad_() for name, p in (("x", x), *old.items())}
    out = right(leaves["x"], leaves)
    (out * torch.linspace(0.5, 1.5, out.numel()).view(out.shape)).sum().backward()
    blind = [f"`{name}`" for name in leaves if got[name] is None]
    reason = f"The answer is right, but backward() brings no gradient to {', '.join(blind)}."
    TABLE.demand(not blind, "gradient", reason)
    off = [f"`{name}`" for name, leaf in leaves.items() if not close(got[name], leaf.grad, 1e-3)]
    if off:
        reason = (
            f"The answer is right, but the gradient that comes back to {', '.join(off)} is not."
        )
        raise TABLE.wrong("gradient", reason)
