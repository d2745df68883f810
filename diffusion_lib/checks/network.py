"""Checks of the network's parts: the shortcut, and pictures of any size."""

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.checks._core import (
    Mistake,
    Wrong,
    as_tensor,
    call,
    close,
    difference,
    exercise,
    judge,
)

# --- 08 ------------------------------------------------------------------------------------------

_BLOCK = "ResidualBlock"


def _outside(block: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that are not the body's."""
    named = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    inside = {id(p) for p in (*block.body.parameters(), *block.body.buffers())}
    return {name: p for name, p in named.items() if id(p) not in inside}


def _is_body(body: object, c_in: int, c_out: int) -> bool:
    shapes = [(c_in,), (c_in,), (c_out, c_in, 3, 3), (c_out,)]
    shapes += [(c_out,), (c_out,), (c_out, c_out, 3, 3), (c_out,)]
    return isinstance(body, nn.Module) and [tuple(p.shape) for p in body.parameters()] == shapes


def _inspect(block: nn.Module, c_in: int, c_out: int) -> None:
    """Raises Wrong unless block(x) = shortcut(x) + body(x), with a shortcut that can learn."""
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(3, c_in, 6, 5, generator=generator)
    of = f"{_BLOCK}({c_in}, {c_out})"
    existed = set(_outside(block))
    if any(isinstance(p, nn.UninitializedParameter) for p in _outside(block).values()):
        existed = set()
    state = torch.get_rng_state()
    run = lambda x: block.eval()(x)  # noqa: E731
    with torch.no_grad():
        first, second = (as_tensor(call(run, x, name=_BLOCK), _BLOCK) for _ in range(2))
        body = block.body(x)
        if first.shape != (3, c_out, 6, 5):
            raise Wrong(f"In {of}: " + difference(first, body, name=_BLOCK))
        if not close(first, second):
            apart = (first - second).abs().max()
            reason = (
                f"{of}, in eval mode, answers the same picture twice, and differently: by up to "
                f"{apart:.2g}."
            )
            for bias in (True, False):
                torch.set_rng_state(state)
                if close(first, nn.Conv2d(c_in, c_out, 1, bias=bias)(x) + body):
                    raise Wrong(
                        reason,
                        "forward makes a new convolution at every call: its weights are random, "
                        "and thrown away before anything can be learned",
                        "made in forward",
                    )
            raise Wrong(f"{reason}\n    Why it does so, I do not recognise.")
        drawn = torch.get_rng_state()
        third = as_tensor(call(block.train(), x, name=_BLOCK), _BLOCK)
        if not close(first, third) or not torch.equal(drawn, torch.get_rng_state()):
            raise Wrong(
                f"{of} behaves otherwise in training mode, or draws random numbers there.",
                "there is no dropout and no noise in this block: shortcut(x) + body(x), in both modes",
                "training mode",
            )
    theirs = _outside(block)
    if set(theirs) != existed:
        raise Wrong(
            f"{of} has {'no' if not existed else 'other'} weights for its shortcut until it is called "
            "for the first time: an optimiser or a checkpoint that came before knows nothing of them.",
            "the shortcut's weights are made at the first call, and not when the block is built",
            "made at the first call",
        )
    _same_channels(block, x, first, body, of) if c_in == c_out else _other_channels(
        block, x, first, body, of
    )
    if c_in != c_out:
        (block(x) * torch.randn(first.shape, generator=generator)).sum().backward()
        for name, p in _outside(block).items():
            if p.grad is None or not p.grad.any():
                raise Wrong(
                    f"In {of}, backward() brings no gradient to `{name}`: it would stay as random as "
                    "it began.",
                    "a buffer, requires_grad=False, no_grad() or detach() keeps it from learning",
                    "no gradient",
                )


def _sums(short: Tensor, body: Tensor) -> dict[str, tuple[Tensor, str]]:
    """Usual mistakes, given both parts right."""
    return {
        "missing": (body, "the shortcut is missing: this is the body alone"),
        "twice": (2 * short + body, "the shortcut is added twice"),
        "sign": (body - short, "the shortcut is subtracted"),
        "over root two": (
            (short + body) / 2**0.5,
            "the sum is divided by √2, as in the original course: not wanted here, where old weights "
            "must give old answers",
        ),
    }


def _compare(got: Tensor, short: Tensor, body: Tensor, of: str) -> None:
    if close(got, short + body):
        return
    reason = f"{of} should be shortcut(x) + body(x). " + difference(got, short + body, name=_BLOCK)
    for name, (mistake, cause) in _sums(short, body).items():
        if close(got, mistake, 1e-3 if name == "over root two" else 1e-4):
            raise Wrong(reason, cause, name)
    raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")


def _same_channels(block: nn.Module, x: Tensor, got: Tensor, body: Tensor, of: str) -> None:
    extra = {name: tuple(p.shape) for name, p in _outside(block).items()}
    if extra:
        raise Wrong(
            f"{of} has weights beside its body's: {extra}. Where the channels are equal, x itself fits.",
            "the convolution is always there, even where the input could pass as it is",
            "always there",
        )
    _compare(got, x, body, of)


def _other_channels(block: nn.Module, x: Tensor, got: Tensor, body: Tensor, of: str) -> None:
    c_in, c_out = x.shape[1], got.shape[1]
    extra = _outside(block)
    if not extra:
        short, n = got - body, min(c_in, c_out)
        reason = (
            f"{of} has no weights beside its body's: block.parameters() and state_dict() are blind."
        )
        eye = torch.zeros_like(body)
        eye[:, :n] = x[:, :n]
        if close(short, torch.zeros_like(short)):
            raise Wrong(reason, "the shortcut is missing: this is the body alone", "missing")
        if close(short, eye):
            cause = "the shortcut copies channels, and pads or cuts the rest; nothing mixes them"
            raise Wrong(reason, cause, "padded")
        rows = torch.cat([x.movedim(1, -1).flatten(0, 2), torch.ones(90, 1)], 1)  # B·H·W of them
        wanted = short.movedim(1, -1).flatten(0, 2)
        solution = torch.linalg.lstsq(rows, wanted, driver="gelsd").solution
        mixes = solution[:-1].norm(dim=0)
        if close(rows @ solution, wanted, 1e-3) and mixes.std() / mixes.mean() > 1e-3:
            raise Wrong(
                reason,
                "there is a 1x1 convolution, but PyTorch cannot see it: it is kept in a plain list, a "
                "lambda or the like, so that no optimiser trains it and no checkpoint keeps it",
                "not registered",
            )
        raise Wrong(f"{reason}\n    What your shortcut does instead, I do not recognise.")
    by_rank = sorted(extra.values(), key=lambda p: -p.numel())
    bias = by_rank[1] if len(by_rank) > 1 else torch.zeros(c_out)
    weight = by_rank[0]
    shapes = {name: tuple(p.shape) for name, p in extra.items()}
    if weight.shape == (c_out, c_in, 3, 3) and bias.numel() == c_out:
        three = F.conv2d(x, weight, bias, padding=1)
        if close(got, three + body):
            raise Wrong(
                f"The shortcut of {of} has weights of shape {shapes}: it looks at neighbours.",
                "the shortcut is a 3x3 convolution; it should mix the channels of each pixel alone",
                "3x3",
            )
    if len(extra) > 2 or weight.numel() != c_out * c_in or bias.numel() != c_out:
        raise Wrong(
            f"{of} has these weights beside its body's: {shapes}. A 1x1 convolution has "
            f"{c_in} · {c_out} = {c_in * c_out}, and a bias for each of the {c_out} channels, or none."
        )
    matrix = weight.detach().reshape([n for n in weight.shape if n > 1])
    if matrix.ndim != 2:  # some layout of one's own
        matrix = weight.detach().reshape(c_out, c_in)
    matrix = matrix if matrix.shape[0] == c_out else matrix.T
    short = torch.einsum("oi,bihw->bohw", matrix, x) + bias.detach().view(-1, 1, 1)
    _compare(got, short, body, of)


@exercise(
    8,
    "The shortcut never learns",
    'notebook 03, "The residual block"',
    "block(x) = shortcut(x) + body(x),   shortcut(x) = x where the channels are equal",
    "The same picture gets the same answer, and the shortcut learns.",
)
def shortcut(answer) -> None:
    """answer(c_in, c_out) -> a residual block, nn.Module, with its `body`: (B, c_in, H, W) -> …"""
    if not isinstance(answer, type) or not issubclass(answer, nn.Module):
        raise Wrong(f"I need your class {_BLOCK} itself, a kind of nn.Module.", mistake="type")
    for c_in, c_out in [(8, 16), (12, 4), (8, 8)]:
        block = call(answer, c_in, c_out, name=_BLOCK)
        if not _is_body(getattr(block, "body", None), c_in, c_out):
            raise Wrong(
                f"{_BLOCK}({c_in}, {c_out}).body is not the one that you were given. Leave it as it "
                "was, so that the shortcut alone is new."
            )
        _inspect(block, c_in, c_out)
    one, two = (call(answer, 8, 16, name=_BLOCK) for _ in range(2))
    if {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in two.parameters()}:
        raise Wrong(
            f"Two blocks, both {_BLOCK}(8, 16), share weights.",
            "the shortcut belongs to the class, or to a table of all blocks; each block needs its own",
            "shared weights",
        )
    if not hasattr(answer, "set_out_channels"):
        return
    for first, c_out in ((16, 24), (16, 8), (8, 16)):
        block = call(answer, 8, first, name=_BLOCK)
        try:
            call(block.set_out_channels, c_out, name="set_out_channels")
        except Wrong as wrong:
            if "not written yet" in wrong.reason:
                wrong.reason = "`set_out_channels` is there, and only raises an error."
                wrong.cause, wrong.mistake = "delete it, or make it work", "only raises"
            raise
        after = f"After {_BLOCK}(8, {first}).set_out_channels({c_out}): "
        if _is_body(block.body, 8, first):
            with torch.no_grad():
                channels = block.eval()(torch.ones(1, 8, 4, 4)).shape[1]
            raise Wrong(
                f"{after}the block still gives {channels} channels, and its state_dict is as before.",
                "the setter changes a number that a layer carries, and not its weights",
                "setter",
            )
        try:
            _inspect(block, 8, c_out)
        except Wrong as wrong:
            if not _is_body(block.body, 8, c_out):
                wrong.cause = (
                    "part of the body is as before: its second GroupNorm has channels, too"
                )
                wrong.mistake = "half a setter"
            raise Wrong(after + wrong.reason, wrong.cause, wrong.mistake) from None


# --- 09 ------------------------------------------------------------------------------------------


def _old_weights(c: int) -> dict[str, Tensor]:
    """A checkpoint of the exercise's UNet, with c channels at full resolution."""
    generator = torch.Generator().manual_seed(9)
    shapes = {
        "enter": (c, 3, 3, 3),
        "down1": (2 * c, c, 4, 4),
        "down2": (2 * c, 2 * c, 4, 4),
        "vector": (2 * c, 2 * c, 1, 1),
        "up2": (4 * c, 2 * c, 2, 2),
        "up1": (4 * c, c, 2, 2),
        "leave": (3, 2 * c, 3, 3),
    }
    weights = {}
    for name, shape in shapes.items():
        size = shape[0] if name.startswith("up") else torch.tensor(shape[1:]).prod().item()
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / size) ** 0.5
        bias = shape[1 if name.startswith("up") else 0]
        weights[f"{name}.bias"] = torch.randn(bias, generator=generator) * 0.2
    return weights


def _small_unet(pool: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The exercise's UNet with those weights. pool: (B, C, h, w) -> the same, or (B, C, 1, 1)."""
    w = _old_weights(4)

    def layer(name: str, x: Tensor, **options: int) -> Tensor:
        conv = F.conv_transpose2d if name.startswith("up") else F.conv2d
        return conv(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def net(x: Tensor) -> Tensor:
        a = F.silu(layer("enter", x, padding=1))
        b = F.silu(layer("down1", a, stride=2, padding=1))
        c = F.silu(layer("down2", b, stride=2, padding=1))
        v = F.silu(layer("vector", pool(c))).expand_as(c)
        b = torch.cat([F.silu(layer("up2", torch.cat([c, v], 1), stride=2)), b], 1)
        a = torch.cat([F.silu(layer("up1", b, stride=2)), a], 1)
        return layer("leave", a, padding=1)

    return net


def _mean(c: Tensor) -> Tensor:
    return c.mean((2, 3), True)


def _resized(mode: str) -> Callable[[Tensor], Tensor]:
    def net(x: Tensor) -> Tensor:
        small = F.interpolate(x, (16, 16), mode=mode)
        return F.interpolate(_small_unet(_mean)(small), x.shape[2:], mode=mode)

    return net


def _padded(x: Tensor) -> Tensor:
    h, w = x.shape[2:]
    return _small_unet(_mean)(F.pad(x, (0, -w % 16, 0, -h % 16)))[:, :, :h, :w]


_RESIZED = "the picture is shrunk to 16x16 and its answer enlarged: the detail is lost on the way"
_TILES = (
    "the map is still pooled in windows of 4x4: a larger picture gets several vectors, and none of "
    "them knows the whole"
)

_POOLS = [  # name, cause, pool
    ("tiles", _TILES, lambda c: F.interpolate(F.avg_pool2d(c, 4), scale_factor=4)),
    ("maximum", "the vector is the map's maximum, not its mean", lambda c: c.amax((2, 3), True)),
    ("sum", "the map is summed and never divided by its size", lambda c: c.sum((2, 3), True)),
    (
        "divided by 16",
        "the sum over the map is divided by 16, whatever the map's size",
        lambda c: c.sum((2, 3), True) / 16,
    ),
    (
        "mean over the batch",
        "the mean goes over the pictures of the batch, too; each needs a vector of its own",
        lambda c: c.mean((0, 2, 3), True),
    ),
    (
        "one corner",
        "the vector sees the first 4x4 window of the map alone",
        lambda c: _mean(c[:, :, :4, :4]),
    ),
    ("no vector", "the pooled vector plays no part", torch.zeros_like),
    ("no pooling", "nothing is pooled: each place keeps its own vector", lambda c: c),
    ("rows", "the mean goes along one axis only", lambda c: c.mean(2, True).expand_as(c)),
    ("rows", "the mean goes along one axis only", lambda c: c.mean(3, True).expand_as(c)),
]
SIZE_MISTAKES = [Mistake(name, cause, _small_unet(pool)) for name, cause, pool in _POOLS] + [
    Mistake("resized", _RESIZED, _resized(mode)) for mode in ("nearest", "bilinear")
]
ODD_SIZE_MISTAKES = [
    Mistake(
        "padded",
        "the picture is padded to a multiple of 16, and the padding is averaged with it",
        _padded,
    ),
    Mistake(
        "uneven windows",
        "the map is brought to 4x4 first, in windows that overlap where 4 does not divide it: some "
        "places count twice",
        _small_unet(lambda c: _mean(F.adaptive_avg_pool2d(c, 4))),
    ),
]


def _refuses(run: Callable[[Tensor], Tensor], h: int, w: int, one_side: bool) -> None:
    """Raises Wrong unless a picture of h x w is met with a ValueError that says so."""
    asked = f"A picture of {h}x{w} cannot be halved twice. "
    try:
        got = call(run, torch.zeros(1, 3, h, w), name=_UNET)
    except Wrong as wrong:
        error = wrong.__cause__
        if error is None:
            raise
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if isinstance(error, ValueError):
            numbers = re.findall(r"\d+", str(error))
            for number in (h, w, 4):
                if str(number) not in numbers:
                    raise Wrong(
                        f"{asked}You refuse it, with these words:\n    {said}\nWhoever reads them "
                        f"should find the size, {h} and {w}, and what it must be divisible by.",
                        f"the message does not contain the number {number}",
                        "message without the size",
                    ) from None
            return
        if one_side:
            cause, mistake = "each of height and width must be divisible by 4", "one side"
        elif isinstance(error, RuntimeError):
            cause = "no ValueError came before the network ran: the size is not checked, or wrongly, or late"
            mistake = "far from the cause"
        else:
            cause, mistake = "this is another kind of error than was wanted", "another error"
        raise Wrong(
            f"{asked}Wanted is a ValueError; it came to\n    {said}", cause, mistake
        ) from None
    shape = tuple(as_tensor(got, _UNET).shape)
    raise Wrong(
        f"{asked}Wanted is a ValueError, and it returned shape {shape}.",
        "sizes that cannot work are not refused: something was cut, padded or resized in silence",
        "accepts",
    )


_UNET = "SmallUNet"


@exercise(
    9,
    "Only 16x16 will do",
    'notebook 03, "The whole U"',
    "vector = mean of the map over all its places, whatever its height and width",
    "Any size that can be halved twice works; others are refused at the door.",
)
def any_size(answer) -> None:
    """answer(channels) -> a UNet, nn.Module, (B, 3, H, W) -> (B, 3, H, W) for H, W divisible by 4."""
    if not isinstance(answer, type) or not issubclass(answer, nn.Module):
        raise Wrong(f"I need your class {_UNET} itself, a kind of nn.Module.", mistake="type")
    net, old = call(answer, 4, name=_UNET), _old_weights(4)
    shapes = {name: p.shape for name, p in net.state_dict().items()}
    odd = [n for n in {**old, **shapes} if n not in old or shapes.get(n) != old[n].shape]
    if odd:
        raise Wrong(
            "A checkpoint of the old network does not load any more. It differs in: "
            + ", ".join(odd),
            "weights were added, removed, renamed or reshaped; none of that is needed",
            "other weights",
        )
    net.load_state_dict(old)
    run = lambda x: net.eval()(x)  # noqa: E731
    generator = torch.Generator().manual_seed(10)
    even = [(2, 16, 16), (2, 32, 32), (1, 16, 48)]
    more = [(2, 24, 24), (1, 12, 20), (2, 40, 28), (1, 4, 4), (1, 8, 64)]
    with torch.no_grad():
        for sizes, mistakes in ((even, SIZE_MISTAKES), (more, ODD_SIZE_MISTAKES)):
            cases = [(torch.randn(b, 3, h, w, generator=generator),) for b, h, w in sizes]
            try:
                judge(run, cases, _small_unet(_mean), mistakes, name=_UNET)
            except Wrong as wrong:
                if isinstance(wrong.__cause__, ValueError):
                    cause = "a size is refused that can be halved twice"
                    raise Wrong(wrong.reason, cause, "refuses") from None
                raise
        _refuses(run, 18, 22, one_side=False)
        for h, w in [(16, 22), (18, 16), (20, 15), (2, 8)]:
            _refuses(run, h, w, one_side=True)
