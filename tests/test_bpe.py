"""CLIP's tokenizer against transformers', with the vocabulary that open-clip-torch brings."""

import gzip
import json
import random
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from diffusion_lib.bpe import END, START, BytePair, byte_letters

SIZE = 49408


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`vocab.json` and `merges.txt`, written from OpenAI's list of merges."""
    spec = find_spec("open_clip")
    assert spec is not None, "the tests need CLIP's vocabulary: pip install open-clip-torch"
    packed = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.open(packed, "rt", encoding="utf-8").read().split("\n")
    merges = lines[1 : SIZE - 256 - 256 - 2 + 1]
    letters = list(byte_letters().values())
    pieces = [*letters, *(letter + "</w>" for letter in letters)]
    pieces += ["".join(merge.split()) for merge in merges] + [START, END]
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    return BytePair.read(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return CLIPTokenizer.from_pretrained(folder)


def test_known_ids(ours):
    """As in the documentation of CLIP and in every Stable Diffusion."""
    assert len(ours) == SIZE and ours.ids[START] == 49406 and ours.ids[END] == 49407
    assert ours.tokens("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]
    ids, mask = ours(["a photo of a cat", ""])
    assert ids.shape == mask.shape == (2, 77) and mask.all() and (ids[1, 1:] == 49407).all()


def strings():
    rng = random.Random(0)
    blocks = (33, 0x500), (0x5D0, 0x5EB), (0x2000, 0x2070), (0x3040, 0x3097), (0x4E00, 0x9FA0)
    blocks += (0xAC00, 0xD7A0), (0x900, 0x970), (0x2150, 0x2190), (0x1F300, 0x1F600)
    letters = [chr(c) for low, high in blocks for c in range(low, high)]
    letters = [c for c in letters if unicodedata.category(c) not in ("Cn", "Cc")]
    plain = "aaabcdeeefghiiijklmnooopqrstuuuvwxyz  éüñÅß'-,.!?0123☕🐙ΣσİⅫ²½_\u0301\u200d\t\n\u3000"
    words = (
        "it's don't WE'RE you've I'm she'll they'd ''s 's' rock'n'roll <b> &amp; http://x.y".split()
    )
    yield from ("", " ", "\n", "'", "''", "a" * 500, "🐙" * 50, "!?" * 40, "don't" * 9)
    for i in range(10_000):
        if i % 4 == 0:
            yield "".join(rng.choices(letters, k=rng.randrange(20)))
        elif i % 4 == 1:
            yield " ".join(rng.choices(words, k=6))
        elif i % 4 == 2:
            yield "".join(rng.choices(letters + [*plain] * 50, k=60))
        else:
            yield "".join(rng.choices(plain, k=rng.randrange(200)))


def test_ten_thousand_strings_have_the_same_tokens(ours, theirs):
    every = list(strings())
    expected = theirs(every)["input_ids"]
    wrong = [text for text, ids in zip(every, expected) if ours.tokens(text) != ids]
    assert not wrong, f"{len(wrong)}: {wrong[0]!r}"


def test_what_looks_like_a_special_token_stays_text(ours):
    assert ours.tokens(f"a {END} b")[1:-1].count(ours.ids[END]) == 0


def test_the_least_rank_goes_first():
    letters = list(byte_letters().values())
    pieces = [*letters, *(c + "</w>" for c in letters), "bc", "ab", "abc</w>", "bc</w>", START, END]
    ids = {piece: i for i, piece in enumerate(pieces)}
    first = BytePair(ids, [("b", "c</w>"), ("a", "b"), ("a", "bc</w>")])
    assert first.pieces("abc") == ["abc</w>"]
    other = BytePair(ids, [("a", "b"), ("b", "c</w>"), ("a", "bc</w>")])
    assert other.pieces("abc") == ["ab", "c</w>"]


def test_what_is_refused(ours, folder):
    with pytest.raises(ValueError, match="has 76 tokens; at most 75 fit"):
        ours([" ".join(["cat"] * 76)])
    assert ours([" ".join(["cat"] * 75)])[0].shape == (1, 77)
    with pytest.raises(TypeError, match=r"write \['a cat'\]"):
        ours("a cat")
    with pytest.raises(ValueError, match="empty"):
        ours([])
    with pytest.raises(ValueError, match="lacks 1 pieces: '!'"):
        BytePair({p: i for p, i in ours.ids.items() if p != "!"}, [("a", "b")])
    with pytest.raises(FileNotFoundError):
        BytePair.read(folder / "elsewhere")
