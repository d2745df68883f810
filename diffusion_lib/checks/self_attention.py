"""Exercise 18: self-attention over a feature map."""

import torch

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge


def right(x, query, key, value, out, heads):
    B, C, H, W = x.shape
    tokens = x.flatten(2).mT
    q, k, v = tokens @ query, tokens @ key, tokens @ value
    q, k, v = (rows.unflatten(2, (heads, -1)).transpose(1, 2) for rows in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    told = scores.softmax(-1) @ v
    told = told.transpose(1, 2).flatten(2)
    return x + (told @ out).mT.reshape(x.shape)


TABLE = Table(
    right,
    """
nobody asks | + (told @ out).mT.reshape(x.shape) ->
    the map comes back as it went in: no pixel has asked another
not scaled | / q.shape[-1] ** 0.5 ->
    the products q·k are not divided by √d: with many channels one pixel takes all the weight
root missing | ** 0.5 ->
    the products q·k are divided by d, not by its root
root of all channels | q.shape[-1] -> C
    you divide by √C; d is the number of channels of *one head*
scaled up | / q.shape -> * q.shape
    the products q·k are multiplied by √d; divide
wrong axis | softmax(-1) -> softmax(-2)
    softmax runs over the pixels that *ask*: the weights that one pixel gives must sum to 1
softmax over heads | softmax(-1) -> softmax(1)
    softmax runs over the heads; it belongs to the pixels that are asked
no softmax | .softmax(-1) ->
    the products are used as weights as they are, without softmax
interleaved heads | (heads, -1)).transpose(1, 2) -> (-1, heads)).permute(0, 3, 1, 2) ;; told.transpose(1, 2) -> told.permute(0, 2, 3, 1)
interleaved heads | (heads, -1)).transpose(1, 2) -> (-1, heads)).permute(0, 3, 1, 2)
    the channels are dealt to the heads like cards; each head owns a block of neighbours
heads ask each other | .transpose(1, 2) ->
    the heads of one pixel ask each other, and no pixel another: move the heads' axis in front of the
    tokens'
bare reshape | flatten(2).mT -> reshape(B, -1, C) ;; .mT.reshape(x.shape) -> .reshape(x.shape)
    a bare reshape mixes pixels and channels, on the way in and out: an axis must be moved (transpose,
    permute, movedim), too
bare reshape | flatten(2).mT -> reshape(B, -1, C)
    a bare reshape mixes pixels and channels on the way in: the channels come first in memory, so an
    axis must be moved (transpose, permute, movedim), too
bare reshape | .mT.reshape(x.shape) -> .reshape(x.shape)
    a bare reshape mixes pixels and channels on the way out: here the pixels come first in memory, so
    an axis must be moved (transpose, permute, movedim) before
heads not split | unflatten(2, (heads, -1)).transpose(1, 2) -> reshape(B, heads, -1, C // heads)
heads not split | unflatten(2, (heads, -1)).transpose(1, 2) -> reshape(B, heads, -1, C // heads) ;; told.transpose(1, 2).flatten(2) -> told.reshape(B, -1, C)
    each head gets some of the pixels, not of the channels: the heads' axis must be moved in front of
    the tokens', not only reshaped
heads not joined | told.transpose(1, 2).flatten(2) -> told.reshape(B, -1, C)
    the heads' answers are put into the wrong channels: the heads' axis must be moved before the
    shape is changed, not reshaped away
height and width | .mT.reshape(x.shape) -> .mT.reshape(B, C, W, H).mT
    height and width have changed places on the way out
residual missing | return x + -> return
    the answer replaces the map; it should be *added* to it
subtracted | return x + -> return x -
    the answer is subtracted from the map; it should be *added* to it
one head | (heads, -1) -> (1, -1)
    the number of heads is not used
weights transposed | tokens = -> query, key, value, out = query.T, key.T, value.T, out.T; tokens =
weights transposed | tokens = -> query, key, value = query.T, key.T, value.T; tokens =
weights transposed | told @ out -> told @ out.mT
    matrices are used transposed, as nn.Linear stores them; here it is tokens @ matrix
query and key exchanged | q @ k.mT -> k @ q.mT
    query and key have changed places: row i of QKᵀ is what pixel i asks
out missing | told @ out -> told
    the last matrix, `out`, is not used: the heads' answers stay apart
value missing | tokens @ value -> tokens
    the matrix `value` is not used: the pixels tell what they are, not what they would tell
batch leak | flatten(2).mT -> flatten(2).mT.reshape(1, -1, C) ;; (told @ out) -> (told @ out).reshape(B, -1, C)
    pixels ask those of the other pictures of the batch, too: the batch must keep an axis of its own
pictures ask each other | flatten(2).mT -> flatten(2).permute(2, 0, 1) ;; (told @ out) -> (told @ out).transpose(0, 1)
    each pixel asks the same place in the other pictures, and no other of its own: batch and tokens
    have changed places
""",
)


@exercise(
    18,
    "The left hand does not know what the right hand paints",
    'notebook 03, "Self-attention"',
    "softmax(QKᵀ/√d) V in each head, d = C/heads;   then x + (heads side by side) · out",
    "Every place has asked every other.",
)
def self_attention(answer) -> None:
    """answer(x, query, key, value, out, heads) -> x's shape. x: (B, C, H, W); matrices (C, C)."""
    generator = torch.Generator().manual_seed(18)

    def case(heads, *shape):
        x = torch.randn(shape, generator=generator)
        matrices = torch.randn(4, shape[1], shape[1], generator=generator) * shape[1] ** -0.5
        return x, *(matrices * torch.tensor([2, 2, 1, 1]).view(4, 1, 1)), heads

    cases = [case(2, 2, 8, 3, 4), case(3, 1, 12, 4, 3), case(1, 3, 6, 2, 5)]
    judge(answer, cases, TABLE, "self_attention", guards="double view gradient device")
    x, *matrices, heads = cases[0]
    turned, dot = (x.mT, *matrices, heads), case(8, 2, 8, 1, 1)  # not contiguous; one pixel
    judge(answer, [turned, dot], TABLE, "self_attention")
