"""The first part of exercise 20: words become numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks._call import kind
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._wrong import Wrong

VOCABULARY = "<pad> <start> shield a red potion an blue with cat facing night dragon left".split()
PLAIN = ("a red dragon", 8), ("a cat with a blue shield", 12), ("a Red DRAGON", 8)
TRICKY = ("  a red  dragon ", 8), ("a potion with a shield", 6), ("", 4), ("  ", 4)
LONG = "a potion with a blue shield facing left", "a potion with a blue shield"  # for 6 places
NEAREST = {"dragn": "dragon", "sheild": "shield", "poiton": "potion", "nihgt": "night", "xyzzq": ""}


def tokenize(prompt, vocabulary, length):
    words = prompt.lower().split()
    ids = [1, *map(vocabulary.index, words)]
    if len(ids) > length:
        raise ValueError
    ids = torch.tensor(ids + [0] * (length - len(ids)))
    return ids, ids != 0


TOKENIZE = Table(
    tokenize,
    """
start missing | [1, * -> [*
    the start token is missing: an empty prompt would leave nothing to attend to, and softmax would
    divide 0 by 0 (notebook 07, "Why a start token")
two added | map(vocabulary.index, words) -> (vocabulary.index(w) + 2 for w in words)
    the numbers are two too large: <pad> and <start> have their places in the list already
start at the end | [1, *map(vocabulary.index, words)] -> [*map(vocabulary.index, words), 1]
    the start token stands after the words, not before them
mask inverted | ids != 0 -> ids == 0
    the mask is True at the padding; True means: attend to this one
padding attended | ids != 0 -> ids >= 0
    the mask is True at the padding as well
start not attended | ids != 0 -> ids > 1
    the mask is False at the start token: the empty prompt needs it
padded before | ids + [0] * (length - len(ids)) -> [0] * (length - len(ids)) + ids
    the padding comes before the words: they must begin at place 0
not padded | + [0] * (length - len(ids)) ->
    the padding is missing: all prompts must have the same length
padded with start | return ids, -> return ids.clamp(min=1),
    the rest is filled with token 1, <start>; <pad> is token 0
capitals | .lower() ->
    capitals should not matter
empty prompt | if len -> if not words or len
    the empty prompt, of blanks or of nothing, is valid: guidance needs it
empty words | split() -> split(" ")
    an empty string is taken for a word: split() cuts at any run of blanks, split(' ') at each
one too strict | > length -> >= length
    the start token and five words take exactly 6 places: that still fits
silent truncation | raise ValueError -> ids = ids[:length]
    the end is cut off in silence: what you asked for is missing, and nobody is told
start not counted | len(ids) > length -> len(words) > length
    the start token takes a place, too
not refused | raise ValueError -> pass
    nothing refuses a prompt that is too long
unknown word dropped | map(vocabulary.index, words) -> (vocabulary.index(w) for w in words if w in vocabulary)
    unknown words are left out in silence: it paints something else than was asked for
unknown word as padding | map(vocabulary.index, words) -> (w in vocabulary and vocabulary.index(w) for w in words)
unknown word as padding | map(vocabulary.index, words) -> (w in vocabulary and vocabulary.index(w) for w in words) ;; ids != 0 -> torch.arange(length) <= len(words)
    an unknown word becomes number 0, <pad>, in silence: it paints something else than was asked for
wrong error
    either the code breaks before it comes to your ValueError, or it raises an error of another kind;
    a prompt that cannot be read is a wrong *value*
no near word
    no known word is like this one, and a list of near words is empty: look before you take its first
nearest not named
    the user is left to guess which known word was meant
another suggested
    the suggestion must be made for *this* word: of all the known ones it is not the most like it
unknown word not named
    it is to be named whether a known word is like it or not (a list of near words is empty then)
whole vocabulary
    a list of all that is known is no help: name what is near
""",
)


def both(given: Any) -> Tensor:
    """What tokenize returned, ids and mask, as one tensor (2, L)."""
    pair = given if isinstance(given, tuple | list) and len(given) == 2 else [given]
    rows = [v for v in pair if isinstance(v, Tensor) and v.ndim == 1]
    integers = rows and rows[0].dtype in (torch.int64, torch.int32)
    if not integers or rows[-1].dtype != torch.bool or len(rows[0]) != len(rows[-1]):
        wanted = "two tensors of shape (length,): ids, of torch.long, and mask, of torch.bool"
        reason = f"`tokenize` should return {wanted}. Yours: {' and '.join(map(kind, pair))}."
        raise Wrong(reason, "none" if given is None else "type")
    return torch.stack([row.long() for row in rows])


def attempt(answer: Callable, prompt: str, length: int, fault: str = "") -> str:
    """Has a prompt read, or refused if it has a fault. Returns the words of the ValueError."""
    seen: list[Tensor | Exception] = []  # of the answer; then of the right one and of mistakes

    def observe(f: Callable) -> Callable[..., Tensor]:
        def reads(*case) -> Tensor:
            try:
                seen.append(both(f(*case)))
            except (ValueError, Wrong) as error:
                if isinstance(error, Wrong) and error.__cause__ is None:  # a wrong type, say
                    raise
                seen.append(error)
            return seen[-1] if isinstance(seen[-1], Tensor) else torch.empty(0)

        return reads

    expected = f"{fault}: a ValueError was asked for" if fault else "is valid"
    said, case = f"{prompt!r} {expected}. ", (prompt, list(VOCABULARY), length)
    try:
        judge(answer, [case], TOKENIZE, "tokenize", 0, ("ids", "mask"), observe)
    except Wrong as wrong:
        got = seen[0] if seen else wrong
        if isinstance(got, Wrong) and (seen or fault):
            wrong.reason = said + got.reason
        elif fault:
            wrong.reason = f"{said}`tokenize` returned ids {got[0].tolist()}."
        raise
    error = seen[0].__cause__ if fault else ValueError()
    lost = isinstance(error, IndexError | StopIteration) and "xyzzq" in prompt
    if not isinstance(error, ValueError):
        raise TOKENIZE.wrong("no near word" if lost else "wrong error", said + seen[0].reason)
    return str(error)


def check_tokenize(answer: Callable) -> None:
    """answer(prompt, vocabulary, length) -> ids, mask, both (length,)."""
    for prompt, length in PLAIN + TRICKY:
        attempt(answer, prompt, length)
    for prompt in LONG:
        n = len(prompt.split())
        attempt(answer, prompt, 6, f"has {n} words, and beside the start token only 5 fit")
    for word, near in NEAREST.items():
        said = attempt(answer, f"a {word} with a cat", 8, f"has an unknown word, {word!r}")
        reason = f"Of {word!r} `tokenize` says: {said or 'nothing'}\n    It should name "
        said, nearest = said.lower(), f"{reason}the known word that is nearest to it, {near!r}."
        others = [w for w in VOCABULARY if len(w) > 4 and w in said and w != near]
        TOKENIZE.demand(near in said or others, "nearest not named", nearest)
        TOKENIZE.demand(near in said, "another suggested", nearest)
        TOKENIZE.demand(word in said, "unknown word not named", f"{reason}it as well.")
        TOKENIZE.demand(len(others) < 3, "whole vocabulary", f"{reason}what is like it.")
