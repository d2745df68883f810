"""Exercise 08: the shortcut of a residual block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.checks._call import call
from diffusion_lib.checks._compare import as_tensor, close, difference
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._modules import gradients, need_class
from diffusion_lib.checks._wrong import Wrong, unknown

BLOCK = "ResidualBlock"


def right(block, x):  # where the channels are equal
    return x + block.body(x)


TABLE = Table(
    right,
    """
missing | x + block -> block
    the shortcut is missing: this is the body alone
twice | x + block -> 2 * x + block
    the shortcut is added twice
sign | x + block -> -x + block
    the shortcut is subtracted
over root two | x + block.body(x) -> (x + block.body(x)) / 2**0.5
over root two | x + block.body(x) -> (x + block.body(x)) / 1.414
    the sum is divided by √2, as in the original course: not wanted here, where old weights must give
    old answers
made in forward
    forward makes a new convolution at every call: its weights are random, and thrown away before
    anything can be learned
made at the first call
    the shortcut's weights are made at the first call, and not when the block is built
training mode
    there is no dropout and no noise in this block: shortcut(x) + body(x), in both modes
always there
    the shortcut has weights even where the input could pass as it is
not registered
    there are weights that PyTorch cannot see: they are kept in a plain list, a lambda or the like, so
    that no optimiser trains them and no checkpoint keeps them
padded
    the shortcut copies channels, and pads or cuts the rest; nothing mixes them
3x3
    the shortcut is a 3x3 convolution; it should mix the channels of each pixel alone
no gradient
    a buffer, requires_grad=False, no_grad() or detach() keeps it from learning, or it is not used
shared weights
    the shortcut belongs to the class, or to a table of all blocks; each block needs its own
only raises
    delete it, or make it work
setter
    the setter changes at most a number that a layer carries, and no weights
half a setter
    the setter changes one part and not the other: both convolutions of the body, its second GroupNorm
    and the shortcut depend on the number of channels
""",
)


def body(c_in: int, c_out: int) -> nn.Sequential:
    first = nn.GroupNorm(4, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1)
    second = nn.GroupNorm(4, c_out), nn.SiLU(), nn.Conv2d(c_out, c_out, 3, padding=1)
    return nn.Sequential(*first, *second)


def picture(channels: int) -> Tensor:
    return torch.randn(4, channels, 8, 7, generator=torch.Generator().manual_seed(8))


@torch.no_grad()
def is_body(theirs: object, c_in: int, c_out: int) -> bool:
    """Whether it has the weights of the one that was given, and does with them what that does."""
    ours, x = body(c_in, c_out), picture(c_in)
    weights = list(theirs.parameters()) if isinstance(theirs, nn.Module) else []
    if [w.shape for w in weights] != [w.shape for w in ours.parameters()]:
        return False
    for mine, given in zip(ours.parameters(), weights):
        mine.copy_(given)
    return close(theirs(x), ours(x))


def own(block: nn.Module) -> dict[str, Tensor]:
    """The weights, and buffers, that are not the body's; those without a shape yet left out."""
    inside = {id(w) for w in (*block.body.parameters(), *block.body.buffers())}
    named, lazy = [*block.named_parameters(), *block.named_buffers()], nn.UninitializedParameter
    return {name: w for name, w in named if id(w) not in inside and not isinstance(w, lazy)}


def shapes(block: nn.Module) -> dict[str, tuple]:
    return {name: tuple(w.shape) for name, w in own(block).items()}


def mixing(x: Tensor, y: Tensor, width: int = 1) -> Tensor | None:
    """(C_in·width², C_out): how y's pixels are mixed from windows of x; None if they are not."""
    rows = F.unfold(x, width, padding=width // 2).mT.flatten(0, 1)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], 1).double()  # the ones: for a bias
    pixels = y.flatten(2).mT.flatten(0, 1).double()
    matrix = torch.linalg.lstsq(rows, pixels, driver="gelsd").solution
    return matrix[:-1].float() if close(rows @ matrix, pixels, 1e-3) else None


def run(block: nn.Module, x: Tensor) -> Tensor:
    return as_tensor(call(lambda x: block(x), x, name=BLOCK), BLOCK).detach()


def steady(block: nn.Module, fresh: nn.Module, x: Tensor) -> None:
    """Raises Wrong unless x and the weights that state_dict() shows decide the answer."""
    at_first, drawn = shapes(block), torch.get_rng_state()
    got, again, inner = run(block.eval(), x), run(block, x), block.body(x).detach()
    if got.shape != inner.shape:
        raise Wrong(difference(got, inner, name=BLOCK))
    if not close(got, again):
        apart = (got - again).abs().max()
        reason = (
            f"in eval mode, it answers the same picture twice, and differently, by {apart:.2g}."
        )
        new = any(mixing(x, got - inner, width) is not None for width in (1, 3))
        raise TABLE.wrong("made in forward", reason) if new else unknown(reason)
    reason = "its shortcut has no weights, or others, until it is called for the first time."
    TABLE.demand(shapes(block) == at_first, "made at the first call", reason)
    if not torch.equal(drawn, torch.get_rng_state()):
        raise unknown("it draws random numbers in `forward`.")
    same = close(got, run(block.train(), x)) and torch.equal(drawn, torch.get_rng_state())
    reason = "in training mode, it gives another answer, or draws random numbers."
    TABLE.demand(same, "training mode", reason)
    fresh.load_state_dict(block.state_dict())
    reason = "another block with the same state_dict() gives another answer."
    TABLE.demand(close(got, run(fresh.eval(), x)), "not registered", reason)


def matrix_of(block: nn.Module, x: Tensor) -> Tensor:
    """The matrix of the shortcut; Wrong unless it is a 1x1 convolution, whatever its weights are."""
    inner, generator = block.body(x).detach(), torch.Generator().manual_seed(9)
    if not own(block):
        reason, short = (
            "parameters() and state_dict() show no weights beside its body's.",
            run(block, x) - inner,
        )
        padded = F.pad(x, (0, 0, 0, 0, 0, short.shape[1] - x.shape[1]))
        TABLE.demand(not close(short, 0 * short), "missing", reason)
        TABLE.demand(not close(short, padded), "padded", reason)
        raise unknown(reason)
    for weight in own(block).values():  # whatever they began with
        if isinstance(weight, nn.Parameter):
            weight.data = torch.randn(weight.shape, generator=generator) / 2
    short = run(block, x) - inner
    TABLE.demand(
        short.any(), "missing", "block(x) - body(x) is 0, whatever the shortcut's weights."
    )
    matrix, reason = (
        mixing(x, short),
        "block(x) - body(x) is not a mixture of each pixel's channels.",
    )
    if matrix is None:
        TABLE.demand(mixing(x, short, 3) is None, "3x3", reason)
    elif (matrix.abs() > 1e-5).all() and torch.linalg.matrix_rank(matrix) == min(matrix.shape):
        return matrix
    raise unknown(reason)


def learns(block: nn.Module, x: Tensor, matrix: Tensor) -> None:
    """Raises Wrong unless gradients flow through body and shortcut, to x and to every weight."""
    parts = {"shortcut": lambda x: torch.einsum("bihw,io->bohw", x, matrix), "body": block.body}
    short, inner = (gradients(block, x, part)["x"] for part in parts.values())
    got, mine = gradients(block, x), own(block)
    blind = [f"`{name}`" for name, gradient in got.items() if gradient is None]
    if not mine.keys() & got.keys():
        blind += [f"`{name}`, which is no parameter" for name in mine]
    blind += ["x through the shortcut"] * close(got["x"], inner)
    blind += ["x through the body"] * close(got["x"], short)
    reason = f"backward() brings no gradient to {', '.join(blind)}."
    TABLE.demand(not blind, "no gradient", reason)
    if not close(got["x"], short + inner, 1e-3):
        raise unknown("the answer is right, but the gradient that comes back to x is not.")


def examine(block: nn.Module, fresh: nn.Module, c_in: int, c_out: int) -> None:
    """Raises Wrong unless block(x) = shortcut(x) + body(x), as it should be. fresh: another one."""
    if not is_body(getattr(block, "body", None), c_in, c_out):
        raise Wrong("its `body` is not the one that you were given: leave it as it was.")
    x, matrix = picture(c_in), torch.eye(c_in)
    reason = f"it has weights beside its body's, {shapes(block)}, where x itself fits."
    TABLE.demand(c_in != c_out or not own(block), "always there", reason)
    steady(block, fresh, x)
    one, two = ({w.data_ptr() for w in b.parameters()} for b in (block, fresh))
    TABLE.demand(not one & two, "shared weights", "another block has the very same weights.")
    if c_in == c_out:
        judge(lambda block, x: block(x), [(block, x)], TABLE, BLOCK)
    else:
        matrix = matrix_of(block, x)
    learns(block, x, matrix)


def set_to(block: nn.Module, before: int, n: int) -> None:
    """block.set_out_channels(n), or Wrong unless it changes body and shortcut."""
    old = shapes(block)
    try:
        call(block.set_out_channels, n, name="set_out_channels")
    except Wrong as wrong:
        raises = isinstance(wrong.__context__, NotImplementedError)
        TABLE.demand(not raises, "only raises", "`set_out_channels` only raises an error.")
        raise
    TABLE.demand(not is_body(block.body, 8, before), "setter", "its body is as before.")
    done = is_body(block.body, 8, n)
    part = "its shortcut" if done else "part of its body"
    TABLE.demand(done and shapes(block) != old, "half a setter", f"{part} is as before.")


@exercise(
    8,
    "The shortcut never learns",
    'notebook 03, "The residual block"',
    "block(x) = shortcut(x) + body(x),   shortcut(x) = x where the channels are equal",
    "The same picture gets the same answer, and the shortcut learns.",
)
def shortcut(answer) -> None:
    """answer(c_in, c_out) -> a residual block, nn.Module, with its `body`: (B, c_in, H, W) -> …"""
    need_class(answer, BLOCK)
    where = ""
    try:
        for c_in, c_out in [(8, 8), (12, 8), (8, 16)]:
            where = f"{BLOCK}({c_in}, {c_out}): "
            block, fresh = (call(answer, c_in, c_out, name=BLOCK) for _ in range(2))
            examine(block, fresh, c_in, c_out)
        for before, n in (
            [(16, 24), (24, 8), (8, 16)] if hasattr(answer, "set_out_channels") else []
        ):
            where = f"{BLOCK}(8, {before}) after set_out_channels({n}): "
            set_to(block, before, n)
            examine(block, call(answer, 8, n, name=BLOCK), 8, n)
    except Wrong as wrong:
        wrong.reason = where + wrong.reason
        raise
