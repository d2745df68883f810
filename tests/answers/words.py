import difflib
import math
import re

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


RIGHT = [
    (tokenize, embed, listen),
    (tokenize_by_pattern, embed_by_loop, listen_large_negative),
    (tokenize, embed_one_hot, listen_renormalised),
    (tokenize_by_pattern, embed, listen_one_by_one),
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


def t(tokenizer):
    return tokenizer, embed, listen


def e(embedder):
    return tokenize, embedder, listen


def h(listener):
    return tokenize, embed, listener


WRONG = {
    "start missing": [t(no_start)],
    "start at the end": [t(start_last)],
    "mask inverted": [t(inverted), h(deaf_to_words)],
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
    "unknown word dropped": [t(skips), t(blanks)],
    "nearest not named": [t(by_index)],
    "wrong error": [t(key_error), t(asserts)],
    "none": [t(nothing), e(lambda ids, table, places: None)],
    "type": [t(lists), t(ids_only), t(mask_of_numbers)],
    "places forgotten": [e(placeless)],
    "places by word": [e(place_of_word)],
    "one place for all": [e(first_place)],
    "one place late": [e(late)],
    "last places": [e(from_the_end)],
    "words forgotten": [e(wordless)],
    "multiplied": [e(product)],
    "mask after softmax": [h(masked_late), h(zero_values)],
    "scores set to 0": [h(zero_scores)],
    "padding heard": [h(no_mask)],
    "first mask for all": [h(first_mask)],
    "not scaled": [h(unscaled)],
    "root missing": [h(by_d)],
    "root of x's width": [h(by_channels)],
    "wrong axis": [h(over_pixels), h(over_pixels_late)],
    "no softmax": [h(no_softmax)],
    "in place": [t(changes_vocabulary), e(table_in_place), h(scores_in_place)],
    "device": [e(new_tensor), h(own_mask)],
    "global seed": [h(seeded)],
}


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


UNKNOWN = [
    h(mask_as_a_length),
    t(sorted_first),
    t(starter),
    t(reversed_words),
    t(whole_vocabulary),
    e(place_of_prompt),
    e(starter),
    h(starter),
    h(with_residual),
    h(half),
    h(nan),
]
