"""Checks of who listens to whom: pixels to each other, and pixels to words."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.checks._core import (
    Mistake,
    Part,
    exercise,
    in_parts,
    judge,
    on_another_device,
)
from diffusion_lib.checks._words import check_embed, check_listen, check_tokenize

# --- 18 ------------------------------------------------------------------------------------------

Matrices = tuple[Tensor, Tensor, Tensor, Tensor]


def _rows(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, N, C)


def _folded(tokens: Tensor, x: Tensor) -> Tensor:
    return tokens.transpose(1, 2).reshape(x.shape)


def _split(tokens: Tensor, heads: int) -> Tensor:
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)  # (B, N, C) -> (B, h, N, d)


def _joined(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).flatten(2)  # (B, h, N, d) -> (B, N, C)


def _split_interleaved(tokens: Tensor, heads: int) -> Tensor:
    return tokens.unflatten(2, (-1, heads)).permute(0, 3, 1, 2)


def _joined_interleaved(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 2, 3, 1).flatten(2)


def _split_bare(tokens: Tensor, heads: int) -> Tensor:
    batch, n, channels = tokens.shape
    return tokens.reshape(batch, heads, n, channels // heads)


def _joined_bare(tokens: Tensor) -> Tensor:
    batch, heads, n, d = tokens.shape
    return tokens.reshape(batch, n, heads * d)


def _rooted(q: Tensor, x: Tensor) -> float:
    return q.shape[-1] ** -0.5


def _attention(
    rows: Callable = _rows,
    folded: Callable = _folded,
    split: Callable = _split,
    joined: Callable = _joined,
    scale: Callable[[Tensor, Tensor], float] = _rooted,
    weigh: Callable[[Tensor], Tensor] = lambda scores: scores.softmax(-1),
    matrices: Callable[..., Matrices] = lambda *given: given,
    residual: bool = True,
    one_head: bool = False,
) -> Callable[..., Tensor]:
    """Self-attention over a feature map, with any one of its parts exchanged."""

    def attention(x, query, key, value, out, heads):
        query, key, value, out = matrices(query, key, value, out)
        tokens, heads = rows(x), 1 if one_head else heads
        q, k, v = (split(tokens @ matrix, heads) for matrix in (query, key, value))
        weights = weigh(q @ k.transpose(-1, -2) * scale(q, x))
        h = folded(joined(weights @ v) @ out, x)
        return x + h if residual else h

    return attention


def _bare_rows(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1, x.shape[1])


def _bare_fold(tokens: Tensor, x: Tensor) -> Tensor:
    return tokens.reshape(x.shape)


def _turned(tokens: Tensor, x: Tensor) -> Tensor:
    return tokens.transpose(1, 2).reshape(*x.shape[:2], x.shape[3], x.shape[2]).transpose(2, 3)


_BARE = (
    "a bare reshape mixes pixels and channels: the channels come first in memory, so an axis must be "
    "moved (transpose, permute, movedim) before the shape is changed, on the way in"
)
_HEADS = "the heads' axis must be moved before the shape is changed, not reshaped away"

SELF_MISTAKES = [
    Mistake(
        "nobody asks",
        "the map comes back as it went in: no pixel has asked another",
        lambda x, *_: x,
    ),
    Mistake(
        "not scaled",
        "the products q·k are not divided by √d: with many channels one pixel takes all the weight",
        _attention(scale=lambda q, x: 1.0),
    ),
    Mistake(
        "root missing",
        "the products q·k are divided by d, not by its root",
        _attention(scale=lambda q, x: 1 / q.shape[-1]),
    ),
    Mistake(
        "root of all channels",
        "you divide by √C; d is the number of channels of *one head*",
        _attention(scale=lambda q, x: x.shape[1] ** -0.5),
    ),
    Mistake(
        "scaled up",
        "the products q·k are multiplied by √d; divide",
        _attention(scale=lambda q, x: q.shape[-1] ** 0.5),
    ),
    Mistake(
        "wrong axis",
        "softmax runs over the pixels that *ask*: the weights that one pixel gives must sum to 1",
        _attention(weigh=lambda scores: scores.softmax(-2)),
    ),
    Mistake(
        "softmax over heads",
        "softmax runs over the heads; it belongs to the pixels that are asked",
        _attention(weigh=lambda scores: scores.softmax(1)),
    ),
    Mistake(
        "no softmax",
        "the products are used as weights as they are, without softmax",
        _attention(weigh=lambda scores: scores),
    ),
    Mistake(
        "interleaved heads",
        "the channels are dealt to the heads like cards; each head owns a block of neighbours",
        _attention(split=_split_interleaved, joined=_joined_interleaved),
    ),
    Mistake(
        "interleaved heads",
        "the channels are dealt to the heads like cards; each head owns a block of neighbours",
        _attention(split=_split_interleaved),
    ),
    Mistake(
        "heads ask each other",
        "the heads of one pixel ask each other, and no pixel another: move the heads' axis in front of "
        "the tokens'",
        _attention(
            split=lambda t, heads: t.unflatten(2, (heads, -1)), joined=lambda t: t.flatten(2)
        ),
    ),
    Mistake("bare reshape", _BARE + " and out", _attention(rows=_bare_rows, folded=_bare_fold)),
    Mistake("bare reshape", _BARE, _attention(rows=_bare_rows)),
    Mistake("bare reshape", _BARE.replace("way in", "way out"), _attention(folded=_bare_fold)),
    Mistake("heads not split", _HEADS, _attention(split=_split_bare)),
    Mistake("heads not split", _HEADS, _attention(split=_split_bare, joined=_joined_bare)),
    Mistake(
        "heads not joined",
        "the heads' answers are put into the wrong channels: " + _HEADS,
        _attention(joined=_joined_bare),
    ),
    Mistake(
        "height and width",
        "height and width have changed places on the way out",
        _attention(folded=_turned),
    ),
    Mistake(
        "residual missing",
        "the answer replaces the map; it should be *added* to it",
        _attention(residual=False),
    ),
    Mistake("one head", "the number of heads is not used", _attention(one_head=True)),
    Mistake(
        "weights transposed",
        "the matrices are used transposed, as nn.Linear stores them; here it is tokens @ matrix",
        _attention(matrices=lambda q, k, v, o: (q.T, k.T, v.T, o.T)),
    ),
    Mistake(
        "weights transposed",
        "query, key and value are used transposed, as nn.Linear stores them; here it is tokens @ matrix",
        _attention(matrices=lambda q, k, v, o: (q.T, k.T, v.T, o)),
    ),
    Mistake(
        "query and key exchanged",
        "query and key have changed places: row i of QKᵀ is what pixel i asks",
        _attention(matrices=lambda q, k, v, o: (k, q, v, o)),
    ),
    Mistake(
        "out missing",
        "the last matrix, `out`, is not used: the heads' answers stay apart",
        _attention(matrices=lambda q, k, v, o: (q, k, v, torch.eye(len(o), dtype=o.dtype))),
    ),
    Mistake(
        "value missing",
        "the matrix `value` is not used: the pixels tell what they are, not what they would tell",
        _attention(matrices=lambda q, k, v, o: (q, k, torch.eye(len(v), dtype=v.dtype), o)),
    ),
]


@exercise(
    18,
    "The left hand does not know what the right hand paints",
    'notebook 03, "Self-attention"',
    "softmax(QKᵀ/√d) V in each head, d = C/heads;   then x + (heads side by side) · out",
    "Every place has asked every other.",
    slow_start=True,
)
def self_attention(answer) -> None:
    """answer(x, query, key, value, out, heads) -> x's shape. x: (B, C, H, W); matrices (C, C)."""
    generator = torch.Generator().manual_seed(18)
    cases = []
    for shape, heads in [((2, 8, 3, 4), 2), ((1, 12, 4, 3), 3), ((3, 6, 2, 5), 1)]:
        x = torch.randn(shape, generator=generator)
        matrices = torch.randn(4, shape[1], shape[1], generator=generator) * shape[1] ** -0.5
        cases.append((x, *(matrices * torch.tensor([2.0, 2.0, 1, 1]).view(4, 1, 1)), heads))
    right = _attention()
    judge(answer, cases, right, SELF_MISTAKES, name="self_attention")
    x, *matrices, heads = cases[0]
    more = [
        (x.double(), *(m.double() for m in matrices), 4),
        (x[:, :, :1, :1], *matrices, 8),  # a map of one pixel, heads of one channel
        (x.transpose(2, 3), *matrices, 2),  # a view, not contiguous in memory
    ]
    judge(answer, more, right, name="self_attention")
    on_another_device(answer, *cases[0], name="self_attention")


# --- 20 ------------------------------------------------------------------------------------------


@exercise(
    20,
    "Five numbers cannot say what I mean",
    'notebook 07, "Numbers become vectors"',
    "x_i = E[word i] + P[i],   then   softmax(QKᵀ/√d + (0 where attended, -inf at padding)) V",
    "Your painter can read, and every pixel listens.",
    slow_start=True,
)
def words(tokenize, embed, listen) -> None:
    """The ear of a text-to-image model, in three functions.

    tokenize(prompt, vocabulary, length) -> ids, mask, both (L,); embed(ids, table, places) ->
    (B, L, D); listen(x, context, mask, query, key, value) -> (B, N, d').
    """
    in_parts(
        Part(
            "tokenize", lambda: check_tokenize(tokenize), 'notebook 07, "1. Words become numbers"'
        ),
        Part(
            "embed",
            lambda: check_embed(embed),
            'notebook 07, "2. Numbers become vectors"',
            "x_i = E[word i] + P[i]",
        ),
        Part(
            "listen",
            lambda: check_listen(listen),
            'notebook 07, "3. Pixels ask words"',
            "softmax(QKᵀ/√d + (0 where attended, -inf at padding)) V",
        ),
    )
