"""Exercise 20 in three parts: words to numbers, numbers to vectors, and pixels that listen to them."""

import difflib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.checks._core import (
    Mistake,
    Wrong,
    as_tensor,
    call,
    difference,
    judge,
    on_another_device,
)

VOCABULARY = "<pad> <start> shield a red potion an blue with cat facing night dragon left".split()


def _words(prompt: str) -> list[int]:
    return [VOCABULARY.index(word) for word in prompt.lower().split()]


def _padded(ids: list[int], length: int) -> Tensor:
    """(2, L): ids and mask."""
    ids = torch.tensor(ids + [0] * (length - len(ids)))
    return torch.stack([ids, (ids != 0).long()])


def _tokens(prompt: str, vocabulary: list[str], length: int) -> Tensor:
    return _padded([1, *_words(prompt)], length)


def _masked(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Right ids, and a mask that is the right one changed."""

    def changed(*case) -> Tensor:
        ids, mask = _tokens(*case)
        return torch.stack([ids, change(mask)])

    return changed


def _padded_before(prompt: str, vocabulary: list[str], length: int) -> Tensor:
    ids, mask = _tokens(prompt, vocabulary, length)
    shift = length - int(mask.sum())
    return torch.stack([ids.roll(shift), mask.roll(shift)])


def _started(*case) -> Tensor:
    ids, mask = _tokens(*case)
    return torch.stack([ids.where(mask > 0, 1), mask])


def _no_start_masked(mask: Tensor) -> Tensor:
    return mask * (torch.arange(len(mask)) > 0)


_START = (
    "the start token is missing: an empty prompt would leave nothing to attend to, and softmax would "
    'divide 0 by 0 (notebook 07, "Why a start token")'
)

TOKEN_MISTAKES = [
    Mistake("start missing", _START, lambda p, v, n: _padded(_words(p), n)),
    Mistake(
        "two added",
        "the numbers are two too large: <pad> and <start> have their places in the list already",
        lambda p, v, n: _padded([1, *(i + 2 for i in _words(p))], n),
    ),
    Mistake(
        "start at the end",
        "the start token stands after the words, not before them",
        lambda p, v, n: _padded([*_words(p), 1], n),
    ),
    Mistake(
        "mask inverted",
        "the mask is True at the padding; True means: attend to this one",
        _masked(lambda mask: 1 - mask),
    ),
    Mistake(
        "padding attended", "the mask is True at the padding as well", _masked(torch.ones_like)
    ),
    Mistake(
        "start not attended",
        "the mask is False at the start token: the empty prompt needs it",
        _masked(_no_start_masked),
    ),
    Mistake(
        "padded before",
        "the padding comes before the words: they must begin at place 0",
        _padded_before,
    ),
    Mistake(
        "not padded",
        "the padding is missing: all prompts must have the same length",
        lambda p, v, n: _tokens(p, v, 1 + len(_words(p))),
    ),
    Mistake(
        "padded with start",
        "the rest is filled with token 1, <start>; <pad> is token 0",
        _started,
    ),
]


ACCEPTED = [  # prompt, length, what it is called to refuse it, and why that is wrong
    ("a Red DRAGON", 6, "capitals", "capitals should not matter"),
    (
        "  a red  dragon ",
        6,
        "empty words",
        "an empty string is taken for a word: split() cuts at any run of blanks, split(' ') at each",
    ),
    (
        "a potion with a shield",
        6,
        "one too strict",
        "the start token and five words take exactly 6 places: that still fits",
    ),
    ("", 4, "empty prompt", "the empty prompt is valid: guidance needs it"),
    ("   ", 4, "empty prompt", "blanks alone are an empty prompt, and that is valid"),
]


def _pair(answer: Callable) -> Callable[..., Tensor]:
    """tokenize's (ids, mask) as one tensor (2, L)."""

    def pair(prompt: str, vocabulary: list[str], length: int) -> Tensor:
        given = answer(prompt, vocabulary, length)
        if given is None:
            return as_tensor(given, "tokenize")
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise Wrong("`tokenize` should return two tensors: return ids, mask", mistake="type")
        ids, mask = given
        ids = as_tensor(ids, "tokenize", "two tensors, ids and mask")
        if ids.is_floating_point():
            raise Wrong(f"The ids are numbers of rows: integers, not {ids.dtype}.", mistake="type")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            what = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise Wrong(f"The mask should be a torch.bool tensor, not {what}.", mistake="type")
        if ids.shape != mask.shape or ids.ndim != 1:
            raise Wrong(
                f"ids have shape {tuple(ids.shape)}, the mask {tuple(mask.shape)}: expected "
                f"({length},) for both."
            )
        return torch.stack([ids.long(), mask.long()])

    return pair


def _reads(pair: Callable, prompt: str, length: int) -> tuple[Tensor | None, Exception | None, str]:
    """What tokenize makes of a prompt: (result, None, "") or (None, the error, its words)."""
    try:
        return call(pair, prompt, list(VOCABULARY), length, name="tokenize"), None, ""
    except Wrong as wrong:
        if wrong.__cause__ is None:  # no error of the learner's: a wrong type, say
            raise
        error = wrong.__cause__
        return None, error, f"{type(error).__name__}: {error}"


def _accepts(pair: Callable, prompt: str, length: int, mistake: str, cause: str) -> None:
    """That tokenize reads a prompt which it may not refuse."""
    result, error, said = _reads(pair, prompt, length)
    want = _tokens(prompt, VOCABULARY, length)
    if error:
        said = f"`tokenize` refused {prompt!r} with length {length}: {said}"
        raise Wrong(said, cause, mistake) from None
    if not torch.equal(result, want):
        raise Wrong(
            f"{difference(result, want, name='tokenize', rows=('ids', 'mask'))}\n"
            f"    It was called with the prompt {prompt!r} and length {length}.\n"
            "    It is wrong in a way that I do not recognise."
        )


def _refuses(pair: Callable, prompt: str, length: int, why: str, silent: dict) -> str:
    """The words of the ValueError that tokenize should raise. silent: mistake -> (cause, ids)."""
    result, error, said = _reads(pair, prompt, length)
    if isinstance(error, ValueError):
        return str(error)
    if error:
        raise Wrong(
            f"{prompt!r} {why}. `tokenize` stopped with {said}\n    A ValueError was asked for.",
            "a prompt that cannot be read is a wrong *value*: look for it, and raise ValueError",
            "wrong error",
        ) from None
    for mistake, (cause, ids) in silent.items():
        if torch.equal(result[0], _padded(ids, length)[0]):
            break
    else:
        mistake = cause = None
    raise Wrong(
        f"{prompt!r} {why}. `tokenize` returned ids {result[0].tolist()} in place of a ValueError.",
        cause,
        mistake,
    )


def check_tokenize(tokenize: Callable) -> None:
    """tokenize(prompt, vocabulary, length) -> ids, mask, both (L,)."""
    pair = _pair(tokenize)
    cases = [
        (prompt, list(VOCABULARY), length)
        for prompt, length in [("a red dragon", 8), ("a cat with a blue shield", 12)]
    ]
    judge(pair, cases, _tokens, TOKEN_MISTAKES, name="tokenize", rows=("ids", "mask"))
    for case in ACCEPTED:
        _accepts(pair, *case)

    for prompt in ("a potion with a blue shield facing left", "a potion with a blue shield"):
        why = (
            f"has {len(prompt.split())} words, and beside the start token only 5 fit into 6 places"
        )
        full = len(prompt.split()) > 6
        cut = "the end is cut off in silence: what you asked for is missing, and nobody is told"
        silent = {
            "silent truncation": (cut, [1, *_words(prompt)][:6]),
            "not refused" if full else "start not counted": (
                "nothing refuses a prompt that is too long"
                if full
                else "the start token takes a place, too",
                [1, *_words(prompt)],
            ),
        }
        _refuses(pair, prompt, 6, why, silent)

    for prompt, word in (("a red dragn", "dragn"), ("a sheild", "sheild")):
        known = [1, *_words(prompt.replace(word, ""))]
        dropped = (
            "unknown words are left out in silence: it paints something else than was asked for"
        )
        silent = {"unknown word dropped": (dropped, known)}
        said = _refuses(pair, prompt, 8, f"has an unknown word, {word!r}", silent)
        (near,) = difflib.get_close_matches(word, VOCABULARY, n=1)
        complaint = f"Of {prompt!r} `tokenize` says: {said or 'nothing'}\n    It should name "
        if near not in said.lower():
            raise Wrong(
                f"{complaint}the known word that is nearest to {word!r}: {near!r}.",
                "the word is refused without help",
                "nearest not named",
            )
        if word not in said.lower():
            raise Wrong(f"{complaint}the unknown word as well: {word!r}.")
        if "potion" in said.lower():
            raise Wrong(f"{complaint}what is like {word!r}, not the whole vocabulary.")
    _refuses(pair, "a xyzzq", 8, "has a word that is like no known one", {})


def _embed(ids: Tensor, table: Tensor, places: Tensor) -> Tensor:
    return table[ids] + places[: ids.shape[1]]


EMBED_MISTAKES = [
    Mistake(
        "places forgotten",
        'the places are not used: "a red knight with a blue shield" and "a blue knight with a red '
        'shield" become the same bag of words (notebook 07, "Why places")',
        lambda ids, table, places: table[ids],
    ),
    Mistake(
        "places by word",
        "the place vector is looked up by the word's number; it belongs to where the word stands",
        lambda ids, table, places: table[ids] + places[ids],
    ),
    Mistake(
        "one place for all",
        "all words get the first place's vector",
        lambda ids, table, places: table[ids] + places[0],
    ),
    Mistake(
        "one place late",
        "places count from 0: the start token stands at place 0",
        lambda ids, table, places: table[ids] + places[1 : ids.shape[1] + 1],
    ),
    Mistake(
        "last places",
        "these are the *last* rows of the places; the prompt begins at the first",
        lambda ids, table, places: table[ids] + places[-ids.shape[1] :],
    ),
    Mistake(
        "words forgotten",
        "only the places are left: the words themselves are missing",
        lambda ids, table, places: torch.zeros_like(table[ids]) + places[: ids.shape[1]],
    ),
    Mistake(
        "multiplied",
        "word and place are multiplied; add them",
        lambda ids, table, places: table[ids] * places[: ids.shape[1]],
    ),
]


def check_embed(embed: Callable) -> None:
    """embed(ids, table, places) -> (B, L, D). ids: (B, L); table: (V, D); places: (at least L, D)."""
    generator = torch.Generator().manual_seed(20)
    cases = []
    for batch, length, rows, dim in ((2, 5, 14, 4), (5, 5, 20, 5), (1, 7, 9, 3)):
        ids = torch.randint(0, rows - 3, (batch, length), generator=generator)
        table = torch.randn(rows - 2, dim, generator=generator)
        cases.append((ids, table, torch.randn(rows, dim, generator=generator)))
    judge(embed, cases, _embed, EMBED_MISTAKES, name="embed")
    ids, table, places = cases[0]
    judge(embed, [(ids, table.double(), places[:5].double())], _embed, name="embed")
    on_another_device(embed, *cases[0], name="embed")


def _rooted(q: Tensor, x: Tensor) -> float:
    return q.shape[-1] ** -0.5


def _hear(
    scale: Callable[[Tensor, Tensor], float] = _rooted,
    fill: float = -math.inf,
    after: bool = False,
    hearing: Callable[[Tensor], Tensor] = lambda mask: mask,
    axis: int = -1,
    weigh: bool = True,
) -> Callable[..., Tensor]:
    """Cross-attention, with any one of its parts exchanged."""

    def listen(x, context, mask, query, key, value):
        q, k, v = x @ query, context @ key, context @ value
        scores = q @ k.transpose(1, 2) * scale(q, x)
        mask = hearing(mask)[:, None]
        if not after:
            scores = scores.masked_fill(~mask, fill)
        weights = scores.softmax(axis) if weigh else scores
        return (weights * mask if after else weights) @ v

    return listen


_AXIS = "softmax runs over the pixels that ask; the weights that one pixel gives its words must sum to 1"
_PADDING = ' (notebook 07, "Why a mask")'

LISTEN_MISTAKES = [
    Mistake(
        "infinity times zero",
        "-inf is multiplied by the mask, and 0 · inf is NaN: fill it in where the mask says so",
        _hear(hearing=lambda mask: torch.full(mask.shape, math.nan)),
    ),
    Mistake(
        "mask inverted",
        "the pixels listen to the padding only; True in the mask means: attend" + _PADDING,
        _hear(hearing=lambda mask: ~mask),
    ),
    Mistake(
        "mask after softmax",
        "the mask comes after softmax: padding is silenced, but it has already taken its share, and "
        "the weights no longer sum to 1" + _PADDING,
        _hear(after=True),
    ),
    Mistake(
        "scores set to 0",
        "the padding's scores are 0, and exp(0) is 1: it is still heard" + _PADDING,
        _hear(fill=0.0),
    ),
    Mistake(
        "padding heard",
        "the mask is not used: what 'a cat' means would depend on the blanks after it" + _PADDING,
        _hear(hearing=torch.ones_like),
    ),
    Mistake(
        "first mask for all",
        "every prompt has a mask of its own; you use the first one's for all" + _PADDING,
        _hear(hearing=lambda mask: mask[:1].expand_as(mask)),
    ),
    Mistake(
        "not scaled",
        "the products q·k are not divided by √d: one word takes all the weight",
        _hear(scale=lambda q, x: 1.0),
    ),
    Mistake(
        "root missing",
        "the products q·k are divided by d, not by its root",
        _hear(scale=lambda q, x: 1 / q.shape[-1]),
    ),
    Mistake(
        "root of x's width",
        "d is the length of a query, not the number of channels in x",
        _hear(scale=lambda q, x: x.shape[-1] ** -0.5),
    ),
    Mistake("wrong axis", _AXIS, _hear(axis=-2, after=True)),
    Mistake(
        "no softmax",
        "the products are used as weights as they are, without softmax",
        _hear(fill=0.0, weigh=False),
    ),
]


def check_listen(listen: Callable) -> None:
    """listen(x, context, mask, query, key, value) -> (B, N, d'). mask: (B, L), True = attend."""
    generator = torch.Generator().manual_seed(21)
    cases = []
    for batch, pixels, length, channels, dim, d, out in (
        (2, 6, 5, 8, 7, 4, 3),
        (3, 4, 6, 5, 5, 9, 9),
        (2, 1, 4, 3, 6, 2, 5),
    ):
        x = torch.randn(batch, pixels, channels, generator=generator)
        context = torch.randn(batch, length, dim, generator=generator)
        counts = torch.arange(batch) % (length - 2) + 1
        mask = torch.arange(length) < counts[:, None]
        mask[-1] = torch.arange(length) % 3 == 1  # it may have holes, and begin with one
        widths = ((channels, d), (dim, d), (dim, out))
        matrices = [torch.randn(w, generator=generator) * 2 * w[0] ** -0.5 for w in widths]
        cases.append((x, context, mask, *matrices))
    right = _hear()
    full = [(x, c, torch.ones_like(mask), *m) for x, c, mask, *m in cases[:2]]  # no padding at all
    try:
        judge(listen, cases, right, LISTEN_MISTAKES, name="listen")
    except Wrong as wrong:
        if wrong.mistake is None:  # with padding this mistake may give NaN, as many others do
            judge(
                listen, full, right, [Mistake("wrong axis", _AXIS, _hear(axis=-2))], name="listen"
            )
        raise
    x, context, mask, *matrices = cases[0]
    double = x.double(), context.double(), mask, *(m.double() for m in matrices)
    loud = x, context + 1e5 * ~mask[..., None], mask, torch.zeros_like(matrices[0]), *matrices[1:]
    judge(listen, [*full, double, loud], right, name="listen")
    on_another_device(listen, *cases[0], name="listen")
