from collections import Counter

import pytest
import torch

from diffusion_lib.data import (
    ACCESSORIES,
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    HELD_OUT,
    KINDS,
    Attributes,
    Sprites,
    caption,
    parse,
)
from diffusion_lib.data.art import FIGURES, read_art
from diffusion_lib.data.sprites import FORMS, NAMES
from diffusion_lib.text import Tokenizer


@pytest.fixture(scope="module")
def data():
    return Sprites(8000, seed=3)


def named(row):
    return Attributes(*[names[i] for names, i in zip(NAMES, row.tolist())])


def test_the_world_is_large_enough():
    assert len(KINDS) >= 24 and len(COLOURS) == 8 and len(ACCESSORIES) == 4
    assert set(KINDS.values()) == set(CLASSES) and len(BACKGROUNDS) == 7


def test_what_a_data_set_holds(data):
    assert data.images.dtype == torch.uint8 and data.images.shape == (8000, 3, 16, 16)
    image, text = data[7]
    assert image.dtype == torch.float32 and -1 <= image.min() < image.max() <= 1
    assert text == data.captions[7]
    images, texts = data.batch([7, 9])
    assert torch.equal(images[0], image) and texts == [data.captions[7], data.captions[9]]
    assert [CLASSES[c] for c in data.classes[:50]] == [
        KINDS[named(row).kind] for row in data.attributes[:50]
    ]


def test_no_two_pictures_are_equal(data):
    assert len(data.images.flatten(1).unique(dim=0)) == len(data)


def test_same_seed_same_pictures():
    a, b, c = Sprites(50, seed=1), Sprites(50, seed=1), Sprites(50, seed=2)
    assert torch.equal(a.images, b.images) and a.captions == b.captions
    assert not torch.equal(a.images, c.images)


def test_nothing_touches_the_global_seed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Sprites(10), Sprites.render("a cat"), Sprites.held_out_prompts(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_held_out_pairs_never_appear_whatever_the_caption_leaves_out(data):
    pairs = Counter((named(row).kind, named(row).colour) for row in data.attributes)
    assert not HELD_OUT & pairs.keys()
    assert len(pairs) == len(KINDS) * 6 and min(pairs.values()) > 10
    assert set(Counter(kind for kind, _ in HELD_OUT).values()) == {2}
    assert all(Sprites.render("a knight", seed).isfinite().all() for seed in range(20))


def test_captions_tell_the_truth_and_sometimes_less(data):
    left_out = Counter()
    for row, text in zip(data.attributes, data.captions):
        truth, said = named(row), parse(text)
        for field, a, b in zip(Attributes._fields, truth, said):
            assert b is None or a == b, (text, truth)
            left_out[field] += a is not None and b is None
    assert left_out["kind"] == 0 and all(left_out[f] > 200 for f in Attributes._fields[1:])


def test_caption_and_parse_undo_each_other(data):
    for i, row in enumerate(data.attributes[:900]):
        for fronted in (False, True):
            order = ((0, 1, 2), (2, 1, 0), (1, 2, 0))[i % 3]
            text = caption(named(row), order, i % 2 > 0, fronted, (i % 3, i // 3 % 3))
            assert parse(text) == named(row), text


def test_each_way_to_say_it_is_in_the_captions(data):
    fronted, relative, after = (sum(map(bool, map(f.match, data.captions))) for f in FORMS.values())
    assert 800 < fronted < 1600 and 1000 < relative < 1800 and 600 < after < 1300
    for form, pattern in FORMS.items():
        assert pattern.match(form) and parse(form).kind == "knight"
    plain = "a red knight with a blue shield on grass"
    assert not any(pattern.match(plain) for pattern in FORMS.values())


@pytest.mark.parametrize("kind", KINDS)
def test_no_creature_touches_the_edge(kind):
    figures = FIGURES[list(KINDS).index(kind), :, 1].view(2, 16, 16)  # its outline too, before
    assert not figures[:, :, [0, 15]].any()  # it is moved by up to one pixel


def test_the_vocabulary_is_complete_and_every_prompt_fits(data):
    words = {word for text in data.captions for word in text.split()}
    assert words == set(Sprites.words)
    longest = caption(Attributes("ninja", "red", "flag", "red", None, "desert"), sayings=(1, 1))
    Tokenizer(Sprites.words)([longest])
    Tokenizer(Sprites.words)(data.captions)


@pytest.mark.parametrize("held_out", [True, False])
def test_prompts_name_their_pair_and_cover_all(held_out):
    make = Sprites.held_out_prompts if held_out else Sprites.seen_prompts
    prompts = make(1000)
    pairs = Counter((parse(p).kind, parse(p).colour) for p in prompts)
    assert all((pair in HELD_OUT) == held_out for pair in pairs)
    assert len(pairs) == len(KINDS) * (2 if held_out else 6)
    assert max(pairs.values()) - min(pairs.values()) <= 1 and len(set(prompts)) > 500
    assert make(1000) == prompts != make(1000, seed=1)


def test_render_paints_what_is_named_and_varies_the_rest():
    a, b = (Sprites.render("a red dragon facing left at night", seed) for seed in (0, 1))
    assert a.shape == (3, 16, 16) and not torch.equal(a, b)
    assert torch.equal(a, Sprites.render("red dragon at night facing left", 0))


def test_larger_pictures_have_square_pixels():
    big, small = Sprites(5, size=32), Sprites(5)
    assert big.images.shape == (5, 3, 32, 32)
    assert torch.equal(big.images[:, :, 1::2, ::2], small.images)
    with pytest.raises(ValueError, match="multiple of 16, not 20"):
        Sprites(5, size=20)
    with pytest.raises(ValueError, match="at least 1"):
        Sprites(0)


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("a red dragon facing left", ("dragon", "red", None, None, "left", None)),
        ("  Knight  at night with BLUE shield", ("knight", None, "shield", "blue", None, "night")),
        ("A red dragon, facing left!", ("dragon", "red", None, None, "left", None)),
        ("“white” cat (in the snow)…", ("cat", "white", None, None, None, "snow")),
        ("an apple", ("apple", None, None, None, None, None)),
        ("on grass, a red dragon", ("dragon", "red", None, None, None, "grass")),
        ("a dragon, red, on grass", ("dragon", "red", None, None, None, "grass")),
        ("a dragon that is red", ("dragon", "red", None, None, None, None)),
        ("facing left at night: cat", ("cat", None, None, None, "left", "night")),
        ("a knight with a shield that is blue", ("knight", None, "shield", "blue", None, None)),
        ("knight red with sword green", ("knight", "red", "sword", "green", None, None)),
    ],
)
def test_prompts_are_read_generously(prompt, expected):
    assert parse(prompt) == expected
    model_hears = Tokenizer(Sprites.words)([prompt])[0]  # what one takes, the other takes
    assert model_hears.count_nonzero() == 1 + len(Tokenizer.split(prompt))


@pytest.mark.parametrize(
    "prompt, message",
    [
        ("a red dragn", "unknown word 'dragn'; did you mean 'dragon'?"),
        ("", "names no kind: one of knight"),
        ("…", "names no kind: one of knight"),
        ("a red", "names no kind: one of knight"),
        ("with a sword", "names no kind: one of knight"),
        ("a red blue dragon", "two colours, 'red' and 'blue'"),
        ("a red dragon that is blue", "two colours, 'red' and 'blue'"),
        ("a red knight with a red flag that is pink", "two colours of one accessory"),
        ("a red dragon a cat", "two kinds, 'dragon' and 'cat'"),
        ("a dragon that is", "cannot read 'that is': write a kind"),
        ("with a shield red knight", "cannot read 'with a shield red knight': write a kind"),
        ("a knight with a sword with a flag", "two accessories, 'sword' and 'flag'"),
        ("a cat facing left facing right", "two facings"),
        ("a cat at night in the snow", "two backgrounds, 'night' and 'snow'"),
        ("an apple facing left", "an apple has no facing; dragon"),
        ("a cake with a sword", "a cake carries nothing; knight"),
        ("a knight with", "cannot read 'with'"),
        ("a cat a dog", "unknown word 'dog'"),
    ],
)
def test_prompts_that_make_no_sense(prompt, message):
    with pytest.raises(ValueError) as caught:
        parse(prompt)
    assert message in str(caught.value)


def test_a_crooked_drawing_is_told(tmp_path):
    (tmp_path / "art.txt").write_text("blob hero\n" + "..............\n" * 13)
    with pytest.raises(ValueError, match="'blob' is not 14 rows of 14"):
        read_art(tmp_path / "art.txt")
