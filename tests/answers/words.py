import difflib
import math
import re
import sys
from typing import NamedTuple

import torch
import torch.nn.functional as F

# --- right -----------------------------------------------------------------------------------------


def tokenize(prompt, vocabulary, length):
    words = prompt.lower().split()
    if len(words) > length - 1:
        raise ValueError(f"{prompt!r}: {len(words)} words, {length - 1} fit")
    ids = torch.zeros(length, dtype=torch.long)
    for place, word in enumerate(["<start>", *words]):
        if word not in vocabulary:
            near = difflib.get_close_matches(word, vocabulary)
            raise ValueError(f"unknown word {word!r}" + (f": {near[0]!r}?" if near else ""))
        ids[place] = vocabulary.index(word)
    return ids, torch.arange(length) <= len(words)


def embed(ids, table, places):
    return F.embedding(ids, table) + places[: ids.shape[1]]


def listen(x, context, mask, query, key, value):
    return F.scaled_dot_product_attention(x @ query, context @ key, context @ value, mask[:, None])


def tokenize_by_pattern(prompt, vocabulary, length):
    numbers = {word: i for i, word in enumerate(vocabulary)}
    row = [numbers["<start>"]]
    for word in re.findall(r"\S+", prompt):
        try:
            row.append(numbers[word.casefold()])
        except KeyError:
            ratio = lambda known: difflib.SequenceMatcher(None, known, word).ratio()  # noqa: E731
            raise ValueError(f"{word}? Perhaps {max(vocabulary[2:], key=ratio)}.") from None
    if len(row) > length:
        raise ValueError("too long")
    row += [0] * (length - len(row))
    ids = torch.tensor(row, dtype=torch.int32)
    return [ids, ids.bool()]


def embed_by_loop(ids, table, places):
    return torch.stack(
        [torch.stack([table[w] + places[i] for i, w in enumerate(row)]) for row in ids]
    )


def listen_large_negative(x, context, mask, query, key, value):
    scores = (x @ query) @ (context @ key).mT / math.sqrt(query.shape[1])
    scores = scores + (~mask[:, None]) * -1e9
    return scores.softmax(-1) @ (context @ value)


def embed_one_hot(ids, table, places):
    return (
        F.one_hot(ids.long(), len(table)).to(table.dtype) @ table
        + places.narrow(0, 0, ids.shape[-1])[None]
    )


def listen_renormalised(x, context, mask, query, key, value):
    q, k, v = x @ query, context @ key, context @ value
    e = torch.einsum("bnd,bld->bnl", q, k).div(query.shape[-1] ** 0.5).exp() * mask[:, None].to(
        x.dtype
    )
    return e / e.sum(2, keepdim=True) @ v


def listen_one_by_one(x, context, mask, query, key, value):
    out = []
    for pixels, words, heard in zip(x, context, mask):
        words = words[heard]
        w = (pixels @ query @ (words @ key).T * query.shape[1] ** -0.5).softmax(1)
        out.append(w @ (words @ value))
    return torch.stack(out)


class Read(NamedTuple):
    ids: torch.Tensor
    mask: torch.Tensor


def tokenize_by_index(prompt, vocabulary, length):
    mask = torch.zeros(length).bool()
    ids = mask.long()
    row = prompt.lower().split()
    if 1 + len(row) > length:
        raise ValueError(prompt)
    for place, word in enumerate(row, 1):
        try:
            ids[place] = vocabulary.index(word)
        except ValueError:
            others = ", ".join(difflib.get_close_matches(word, vocabulary))
            raise ValueError(f"{prompt!r}: {word.upper()}? {others.upper()}") from None
    ids[0] = 1
    mask[: 1 + len(row)] = True
    return Read(ids.int(), mask)


def embed_in_places(ids, table, places):
    out = places[: ids.shape[1]].repeat(len(ids), 1, 1)
    out += table.index_select(0, ids.reshape(-1)).view_as(out)
    return out


def listen_logarithm(x, context, mask, query, key, value):
    bias = mask.to(x.dtype).log()[:, None]
    scores = torch.einsum("bnc,cd,ed,ble->bnl", x, query, key, context) / query.shape[1] ** 0.5
    return torch.softmax(scores + bias, 2).matmul(context).matmul(value)


def embed_twice(ids, table, places):
    where = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    return F.embedding(ids, table).add(F.embedding(where, places))


def listen_by_hand(x, context, mask, query, key, value):
    scores = (context @ key) @ (x @ query).transpose(1, 2)  # words first
    scores = torch.where(mask[:, :, None], scores / key.shape[1] ** 0.5, torch.finfo(x.dtype).min)
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    return (weights / weights.sum(1, keepdim=True)).transpose(1, 2) @ (context @ value)


RIGHT = [
    (tokenize, embed, listen),
    (tokenize_by_pattern, embed_by_loop, listen_large_negative),
    (tokenize, embed_one_hot, listen_renormalised),
    (tokenize_by_pattern, embed, listen_one_by_one),
    (tokenize_by_index, embed_in_places, listen_logarithm),
    (tokenize_by_index, embed_twice, listen_by_hand),
]


# --- tokenize --------------------------------------------------------------------------------------


def rows(
    prompt, vocabulary, length, start=(1,), cut=False, skip=False, blank=False, split=str.split
):
    """A tokenizer whose parts can be spoiled; without any help for unknown words."""
    out = list(start)
    for word in split(prompt.lower()):
        if word in vocabulary:
            out.append(vocabulary.index(word))
        elif blank:
            out.append(0)
        elif not skip:
            near = difflib.get_close_matches(word, vocabulary, 1)
            raise ValueError(f"{word}: did you mean {near}?")
    if cut:
        out = out[:length]
    if len(out) > length:
        raise ValueError("too long")
    ids = torch.tensor(out + [0] * (length - len(out)))
    return ids, ids != 0


def starter(prompt, vocabulary, length):
    raise NotImplementedError


def no_start(*a):
    return rows(*a, start=())


def start_last(prompt, vocabulary, length):
    ids = rows(prompt, vocabulary, length, start=())[0]
    ids[(ids == 0).nonzero()[0]] = 1
    return ids, ids != 0


def inverted(*a):
    ids, mask = rows(*a)
    return ids, ~mask


def all_true(*a):
    ids, mask = rows(*a)
    return ids, mask | True


def words_only(*a):
    ids, _ = rows(*a)
    return ids, ids > 1


def left_padded(prompt, vocabulary, length):
    ids = [1] + [vocabulary.index(w) for w in prompt.lower().split()]
    ids = torch.tensor([0] * (length - len(ids)) + ids)
    return ids, ids != 0


def unpadded(*a):
    ids, mask = rows(*a)
    return ids[mask], mask[mask]


def start_as_padding(*a):
    ids, mask = rows(*a)
    return torch.where(mask, ids, 1), mask


def case_sensitive(prompt, vocabulary, length):
    for word in prompt.split():
        if word not in vocabulary:
            raise ValueError(f"{word}: {difflib.get_close_matches(word, vocabulary)}")
    return rows(prompt, vocabulary, length)


def case_by_dictionary(prompt, vocabulary, length):
    number = {w: i for i, w in enumerate(vocabulary)}
    ids = [1] + [number[w] for w in prompt.split()]
    return rows(" ".join(vocabulary[i] for i in ids[1:]), vocabulary, length)


def one_blank(*a):
    return rows(*a, split=lambda text: text.split(" "))


def too_strict(prompt, vocabulary, length):
    if len(prompt.split()) + 1 >= length:
        raise ValueError("too long")
    return rows(prompt, vocabulary, length)


def no_empty(prompt, vocabulary, length):
    if not prompt:
        raise ValueError("empty prompt")
    return rows(prompt, vocabulary, length)


def truncates(*a):
    return rows(*a, cut=True)


def start_for_free(prompt, vocabulary, length):
    if len(prompt.split()) > length:
        raise ValueError("too long")
    ids, mask = rows(prompt, vocabulary, length + 9)
    n = max(length, int(mask.sum()))
    return ids[:n], mask[:n]


def skips(*a):
    return rows(*a, skip=True)


def blanks(*a):
    return rows(*a, blank=True)


def by_index(prompt, vocabulary, length):
    if len(prompt.split()) >= length:
        raise ValueError("too long")
    ids = [1] + [vocabulary.index(w) for w in prompt.lower().split()]
    return rows(" ".join(vocabulary[i] for i in ids[1:]), vocabulary, length)


def key_error(prompt, vocabulary, length):
    number = {w: i for i, w in enumerate(vocabulary)}
    for w in prompt.lower().split():
        number[w]
    return rows(prompt, vocabulary, length)


def asserts(prompt, vocabulary, length):
    assert len(prompt.split()) < length, "too long"
    return rows(prompt, vocabulary, length)


def changes_vocabulary(prompt, vocabulary, length):
    vocabulary.append("<end>")
    return rows(prompt, vocabulary, length)


def nothing(*a):
    rows(*a)


def lists(*a):
    return tuple(x.tolist() for x in rows(*a))


def ids_only(*a):
    return rows(*a)[0]


def mask_of_numbers(*a):
    ids, mask = rows(*a)
    return ids, mask.long()


def refusing(refuse):
    """A tokenizer that is right but for how it refuses an unknown word."""

    def tokenize(prompt, vocabulary, length):
        for word in prompt.lower().split():
            if word not in vocabulary:
                raise refuse(word, vocabulary, difflib.get_close_matches(word, vocabulary))
        return rows(prompt, vocabulary, length)

    tokenize.__name__ = refuse.__name__
    return tokenize


@refusing
def import_missing(word, vocabulary, near):
    return ValueError(word, diflib.get_close_matches(word, vocabulary))  # noqa: F821


@refusing
def key_on_purpose(word, vocabulary, near):
    return KeyError(f"{word}: {near}")


@refusing
def leaves(word, vocabulary, near):
    sys.exit(f"{word}: {near}")


@refusing
def first_of_none(word, vocabulary, near):
    return ValueError(f"{word}: did you mean {near[0]}?")


@refusing
def next_of_none(word, vocabulary, near):
    return ValueError(f"{word}: did you mean {next(iter(near))}?")


@refusing
def one_of_none(word, vocabulary, near):
    (one,) = near[:1]
    return ValueError(f"{word}: did you mean {one}?")


@refusing
def always_a_dragon(word, vocabulary, near):
    return ValueError(f"{word}: did you mean dragon?")


@refusing
def first_that_is_known(word, vocabulary, near):
    return ValueError(f"{word}: did you mean {vocabulary[2]}?")


@refusing
def most_of_all(word, vocabulary, near):
    return ValueError(f"{word}: one of {', '.join(sorted(vocabulary)[2:])}?")


@refusing
def farthest(word, vocabulary, near):
    return ValueError(f"{word}: {difflib.get_close_matches(word, vocabulary, 99, 0)[-1]}?")


@refusing
def only_the_near_one(word, vocabulary, near):
    return ValueError(f"did you mean {near}?")


def returns_nothing(prompt, vocabulary, length):
    if set(prompt.lower().split()) <= set(vocabulary):
        return rows(prompt, vocabulary, length)


def blanks_attended(prompt, vocabulary, length):
    ids, mask = rows(prompt, vocabulary, length, blank=True)
    return ids, torch.arange(length) <= len(prompt.split())


def unknown_is_start(prompt, vocabulary, length):
    words = (word if word in vocabulary else "<start>" for word in prompt.lower().split())
    return rows(" ".join(words), vocabulary, length)


def unknown_is_near(prompt, vocabulary, length):
    near = [difflib.get_close_matches(w, vocabulary, 1, 0)[0] for w in prompt.lower().split()]
    return rows(" ".join(near), vocabulary, length)


def past_the_end(prompt, vocabulary, length):
    ids = torch.zeros(length, dtype=torch.long)
    for place, word in enumerate(["<start>", *prompt.lower().split()]):
        ids[place] = vocabulary.index(word)
    return ids, ids != 0


def mask_first(*a):
    return rows(*a)[::-1]


def as_batch(*a):
    ids, mask = rows(*a)
    return ids[None], mask[None]


def misspelt(prompt, vocabulary, length):
    return rows(promt, vocabulary, length)  # noqa: F821


def each_word_once(prompt, vocabulary, length):
    return rows(" ".join(dict.fromkeys(prompt.lower().split())), vocabulary, length)


# --- embed -----------------------------------------------------------------------------------------


def placeless(ids, table, places):
    return table[ids]


def place_of_word(ids, table, places):
    return table[ids] + places[ids]


def first_place(ids, table, places):
    return table[ids] + places[:1]


def late(ids, table, places):
    return table[ids] + places[torch.arange(ids.shape[1]) + 1]


def from_the_end(ids, table, places):
    return table[ids] + places[len(places) - ids.shape[1] :]


def wordless(ids, table, places):
    return places[: ids.shape[1]].repeat(len(ids), 1, 1)


def product(ids, table, places):
    return table[ids] * places[: ids.shape[1]]


def place_of_prompt(ids, table, places):
    return table[ids] + places[: len(ids), None]


def table_in_place(ids, table, places):
    table += 0.1
    return table[ids] + places[: ids.shape[1]] - 0.1


def new_tensor(ids, table, places):
    return torch.zeros(*ids.shape, table.shape[1]) + table[ids] + places[: ids.shape[1]]


def table_detached(ids, table, places):
    return table[ids].detach() + places[: ids.shape[1]]


def places_as_data(ids, table, places):
    return table[ids] + places.data[: ids.shape[1]]


def embed_by_numpy(ids, table, places):
    return torch.from_numpy(table.numpy()[ids.numpy()] + places.numpy()[: ids.shape[1]])


def late_product(ids, table, places):
    return table[ids] * places[1 : ids.shape[1] + 1]


def all_places(ids, table, places):
    return table[ids] + places


# --- listen ----------------------------------------------------------------------------------------


def heard(x, context, mask, query, key, value, scale=None, fill=-math.inf, axis=2, late=False):
    s = torch.bmm(x @ query, (context @ key).transpose(1, 2)) * (
        scale or 1 / math.sqrt(len(key[0]))
    )
    open_ = mask.unsqueeze(1)
    w = s.softmax(axis) * open_ if late else torch.where(open_, s, fill).softmax(axis)
    return torch.bmm(w, context @ value)


def deaf_to_words(x, context, mask, *a):
    return heard(x, context, ~mask, *a)


def masked_late(*a):
    return heard(*a, late=True)


def zero_scores(*a):
    return heard(*a, fill=0.0)


def zero_values(x, context, mask, query, key, value):
    q, k, v = x @ query, context @ key, context @ value * mask[..., None]
    return F.scaled_dot_product_attention(q, k, v)


def no_mask(x, context, mask, query, key, value):
    return F.scaled_dot_product_attention(x @ query, context @ key, context @ value)


def first_mask(x, context, mask, *a):
    return heard(x, context, mask[0].expand(len(x), -1), *a)


def unscaled(*a):
    return heard(*a, scale=1.0)


def by_d(*a):
    return heard(*a, scale=1 / a[3].shape[1])


def by_channels(*a):
    return heard(*a, scale=a[0].shape[2] ** -0.5)


def over_pixels(*a):
    return heard(*a, axis=1)


def over_pixels_late(*a):
    return heard(*a, axis=1, late=True)


def no_softmax(x, context, mask, query, key, value):
    s = x @ query @ (context @ key).mT / math.sqrt(query.shape[1])
    return (s * mask[:, None]) @ (context @ value)


def scores_in_place(x, context, mask, query, key, value):
    x *= 1 / math.sqrt(query.shape[1])
    return heard(x, context, mask, query, key, value, scale=1.0)


def own_mask(x, context, mask, query, key, value):
    fill = torch.zeros(len(x), 1, mask.shape[1]).masked_fill(~mask[:, None], -1e9)
    s = x @ query @ (context @ key).mT / math.sqrt(query.shape[1]) + fill
    return s.softmax(-1) @ (context @ value)


def seeded(*a):
    torch.manual_seed(1)
    return heard(*a)


def weights_detached(x, context, mask, query, key, value):
    scores = (x @ query).detach() @ (context @ key).mT / math.sqrt(query.shape[1])
    return scores.masked_fill(~mask[:, None], -1e9).softmax(-1) @ (context @ value)


def listen_by_numpy(x, context, mask, query, key, value):
    scores = torch.from_numpy((x @ query).numpy() @ (context @ key).mT.numpy())
    scores = scores.masked_fill(~mask[:, None], -1e9) / query.shape[1] ** 0.5
    return scores.softmax(-1) @ (context @ value)


def infinity_times_mask(x, context, mask, query, key, value):
    scores = (x @ query) @ (context @ key).mT / query.shape[1] ** 0.5
    return (scores + ~mask[:, None] * -math.inf).softmax(-1) @ (context @ value)


def inverted_large(x, context, mask, *a):
    return heard(x, context, ~mask, *a, fill=-1e4)


def over_pixels_large(*a):
    return heard(*a, axis=1, fill=-1e4)


def over_batch(*a):
    return heard(*a, axis=0, fill=-1e4)


def by_values(*a):
    return heard(*a, scale=a[5].shape[1] ** -0.5)


def scaled_up(*a):
    return heard(*a, scale=a[3].shape[1] ** 0.5)


def two_forgotten(x, context, mask, query, key, value):
    return F.scaled_dot_product_attention(x @ query, context @ key, context @ value, scale=1.0)


def whispers(*a):
    return heard(*a, fill=-12.0)


def reversed_words(prompt, vocabulary, length):
    return rows(" ".join(prompt.split()[::-1]), vocabulary, length)


def whole_vocabulary(prompt, vocabulary, length):
    for word in prompt.lower().split():
        if word not in vocabulary:
            raise ValueError(f"{word} is none of {vocabulary}")
    return rows(prompt, vocabulary, length)


def with_residual(x, context, mask, query, key, value):
    return heard(x, context, mask, query, key, value) + (x @ query).mean()


def half(*a):
    return heard(*a).half()


def nan(*a):
    return heard(*a) / 0 * 0


def mask_as_a_length(x, context, mask, query, key, value):
    mask = torch.arange(mask.shape[1]) < mask.sum(1, keepdim=True)
    return listen(x, context, mask, query, key, value)


def sorted_first(prompt, vocabulary, length):
    return tokenize(prompt, sorted(vocabulary), length)


def t(tokenizer):
    return tokenizer, embed, listen


def e(embedder):
    return tokenize, embedder, listen


def h(listener):
    return tokenize, embed, listener


WRONG = {
    "start missing": [t(no_start)],
    "start at the end": [t(start_last)],
    "mask inverted": [t(inverted), h(deaf_to_words), h(inverted_large)],
    "padding attended": [t(all_true)],
    "start not attended": [t(words_only)],
    "padded before": [t(left_padded)],
    "not padded": [t(unpadded)],
    "padded with start": [t(start_as_padding)],
    "capitals": [t(case_sensitive), t(case_by_dictionary)],
    "empty words": [t(one_blank)],
    "one too strict": [t(too_strict)],
    "empty prompt": [t(no_empty)],
    "silent truncation": [t(truncates)],
    "start not counted": [t(start_for_free)],
    "unknown word dropped": [t(skips)],
    "unknown word as padding": [t(blanks), t(blanks_attended)],
    "nearest not named": [t(by_index), t(farthest)],
    "another suggested": [t(always_a_dragon), t(first_that_is_known)],
    "unknown word not named": [t(only_the_near_one), t(one_of_none)],
    "whole vocabulary": [t(whole_vocabulary), t(most_of_all)],
    "wrong error": [
        t(key_error),
        t(asserts),
        t(import_missing),
        t(key_on_purpose),
        t(leaves),
        t(past_the_end),
    ],
    "no near word": [t(first_of_none), t(next_of_none)],
    "none": [t(nothing), e(lambda ids, table, places: None), t(returns_nothing)],
    "type": [t(lists), t(ids_only), t(mask_of_numbers), t(mask_first), t(as_batch)],
    "signature": [h(starter)],
    "places forgotten": [e(placeless)],
    "places by word": [e(place_of_word)],
    "one place for all": [e(first_place)],
    "one place late": [e(late)],
    "last places": [e(from_the_end)],
    "words forgotten": [e(wordless)],
    "multiplied": [e(product)],
    "one place late + multiplied": [e(late_product)],
    "mask after softmax": [h(masked_late), h(zero_values)],
    "scores set to 0": [h(zero_scores)],
    "padding heard": [h(no_mask)],
    "first mask for all": [h(first_mask)],
    "not scaled": [h(unscaled)],
    "root missing": [h(by_d)],
    "root of x's width": [h(by_channels)],
    "root of v's width": [h(by_values)],
    "scaled up": [h(scaled_up)],
    "wrong axis": [h(over_pixels), h(over_pixels_late), h(over_pixels_large)],
    "no softmax": [h(no_softmax)],
    "not a number": [h(infinity_times_mask), h(nan)],
    "padding heard + not scaled": [h(two_forgotten)],
    "gradient": [e(table_detached), e(places_as_data), h(weights_detached)],
    "in place": [t(changes_vocabulary), e(table_in_place), h(scores_in_place)],
    "device": [e(new_tensor), h(own_mask), e(embed_by_numpy), h(listen_by_numpy)],
    "global seed": [h(seeded)],
}


UNKNOWN = [
    h(mask_as_a_length),
    t(sorted_first),
    t(starter),
    t(reversed_words),
    t(unknown_is_start),
    t(unknown_is_near),
    t(misspelt),
    t(each_word_once),
    e(place_of_prompt),
    e(all_places),
    e(starter),
    h(with_residual),
    h(half),
    h(over_batch),
    h(whispers),
]
