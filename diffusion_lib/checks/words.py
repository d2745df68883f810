"""Exercise 20: words to numbers (in `_tokenize.py`), to vectors, and pixels that listen to them."""

from collections.abc import Callable
from math import inf

import torch

from diffusion_lib.checks._frame import exercise, in_parts
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._tokenize import check_tokenize
from diffusion_lib.checks._wrong import Part


def embed(ids, table, places):
    return table[ids] + places[: ids.shape[1]]


EMBED = Table(
    embed,
    """
places forgotten | + places[: ids.shape[1]] ->
    the places are not used: "a red knight with a blue shield" and "a blue knight with a red shield"
    become the same bag of words (notebook 07, "Why places")
places by word | [: ids.shape[1]] -> [ids]
    the place vector is looked up by the word's number; it belongs to where the word stands
one place for all | [: ids.shape[1]] -> [0]
    all words get the first place's vector
one place late | [: ids.shape[1]] -> [1 : ids.shape[1] + 1]
    places count from 0: the start token stands at place 0
last places | [: ids.shape[1]] -> [-ids.shape[1] :]
    these are the *last* rows of the places; the prompt begins at the first
words forgotten | table[ids] -> 0 * table[ids]
    only the places are left: the words themselves are missing
multiplied | + places -> * places
    word and place are multiplied; add them
""",
)


def check_embed(answer: Callable) -> None:
    """answer(ids, table, places) -> (B, L, D). ids: (B, L); table: (V, D); places: (at least L, D)."""
    generator = torch.Generator().manual_seed(20)
    cases = []
    for batch, length, rows, dim in ((2, 5, 14, 4), (5, 5, 20, 5), (1, 7, 9, 3)):
        ids = torch.randint(0, rows - 3, (batch, length), generator=generator)
        table, places = torch.randn(2, rows, dim, generator=generator)
        cases.append((ids, table[2:], places))
    judge(answer, cases, EMBED, "embed")
    full = [(ids, table, places[: ids.shape[1]]) for ids, table, places in cases]
    judge(answer, full, EMBED, "embed", guards="double device gradient")


def listen(x, context, mask, query, key, value):
    q, k, v = x @ query, context @ key, context @ value
    heard = mask[:, None]
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    return scores.masked_fill(~heard, -inf).softmax(-1) @ v


LISTEN = Table(
    listen,
    """
mask inverted | ~heard -> heard
mask inverted | ~heard, -inf -> heard, -1e9
    the pixels listen to the padding only; True in the mask means: attend (notebook 07, "Why a mask")
mask after softmax | .masked_fill(~heard, -inf).softmax(-1) -> .softmax(-1) * heard
    the mask comes after softmax: padding is silenced, but it has already taken its share, and the
    weights no longer sum to 1 (notebook 07, "Why a mask")
scores set to 0 | -inf -> 0.0
    the padding's scores are 0, and exp(0) is 1: it is still heard (notebook 07, "Why a mask")
padding heard | .masked_fill(~heard, -inf) ->
    the mask is not used: what 'a cat' means would depend on the blanks after it (notebook 07, "Why a
    mask")
first mask for all | mask[:, None] -> mask[:1, None]
    every prompt has a mask of its own; you use the first one's for all
not scaled | / q.shape[-1] ** 0.5 ->
    the products q·k are not divided by √d: one word takes all the weight
root missing | ** 0.5 ->
    the products q·k are divided by d, not by its root
root of x's width | q.shape -> x.shape
root of v's width | q.shape -> v.shape
    d is the length of a query and of a key, not the number of channels in x or in the result
scaled up | / q.shape -> * q.shape
    the products q·k are multiplied by √d; divide
wrong axis | softmax(-1) -> softmax(-2)
wrong axis | -inf).softmax(-1) -> -1e9).softmax(-2)
wrong axis | .masked_fill(~heard, -inf).softmax(-1) -> .softmax(-2) * heard
    softmax runs over the pixels that ask; the weights that one pixel gives its words must sum to 1
no softmax | -inf).softmax(-1) -> 0)
    the products are used as weights as they are, without softmax
not a number | softmax(-1) -> softmax(-1) * (inf - inf)
    0 · inf, inf - inf and 0 / 0 are not a number. If -inf is multiplied by a mask somewhere, fill it in
    where the mask says so instead
""",
)


def check_listen(answer: Callable) -> None:
    """answer(x, context, mask, query, key, value) -> (B, N, d'). mask: (B, L), True = attend."""
    generator = torch.Generator().manual_seed(21)
    cases = []
    sizes = (2, 6, 5, 8, 7, 4, 3), (3, 4, 6, 5, 5, 9, 9), (2, 1, 4, 3, 6, 2, 5)
    for b, n, length, channels, dim, d, out in sizes:
        shapes = (b, n, channels), (b, length, dim), (channels, d), (dim, d), (dim, out)
        x, context, *matrices = (torch.randn(shape, generator=generator) for shape in shapes)
        mask = torch.arange(length) < (torch.arange(b) % (length - 2) + 1)[:, None]
        mask[-1] = torch.arange(length) % 3 == 1  # it may have holes, and begin with one
        cases.append((x, context, mask, *(2 * m / len(m) ** 0.5 for m in matrices)))
    full = [(x, c, torch.ones_like(mask), *m) for x, c, mask, *m in cases[:2]]  # no padding at all
    judge(answer, cases + full, LISTEN, "listen", guards="double view device gradient")
    x, context, mask, query, *rest = cases[0]
    loud = x, context + 1e5 * ~mask[..., None], mask, 0 * query, *rest
    judge(answer, [loud], LISTEN, "listen")


@exercise(
    20,
    "Five numbers cannot say what I mean",
    'notebook 07, "Numbers become vectors"',
    "x_i = E[word i] + P[i],   then   softmax(QKᵀ/√d + (0 where attended, -inf at padding)) V",
    "Your painter can read, and every pixel listens.",
)
def words(tokenize, embed, listen) -> None:
    """The ear of a text-to-image model, in three functions.

    tokenize(prompt, vocabulary, length) -> ids, mask, both (L,); embed(ids, table, places) ->
    (B, L, D); listen(x, context, mask, query, key, value) -> (B, N, d').
    """
    embedding, attention = words.about.equation.split(",   then   ")
    one, two = 'notebook 07, "1. Words become numbers"', 'notebook 07, "2. Numbers become vectors"'
    three = 'notebook 07, "3. Pixels ask words"'
    in_parts(
        Part("tokenize", lambda: check_tokenize(tokenize), one),
        Part("embed", lambda: check_embed(embed), two, embedding),
        Part("listen", lambda: check_listen(listen), three, attention),
    )
