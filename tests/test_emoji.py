import pytest
import torch
from torch.utils.data import DataLoader

from diffusion_lib.data import emoji
from diffusion_lib.data.emoji import (
    GROUNDS,
    HELD_OUT,
    NEVER,
    STYLES,
    TABLE,
    THINGS,
    Emoji,
    Words,
    caption,
    composed,
    parse,
    with_article,
)
from diffusion_lib.text import Tokenizer
from diffusion_lib.training import shuffled


@pytest.fixture(scope="module")
def data():
    return Emoji()


def test_there_are_as_many_as_the_documents_say(data):
    assert len(THINGS) == 1069 and set(sum(TABLE.values(), ())) == set(STYLES)
    assert all(len(styles) >= 2 for styles in TABLE.values())
    cells = sum(map(len, TABLE.values()))
    assert cells == 5717
    seen = cells - len(HELD_OUT) - sum(len(TABLE[thing]) for thing in NEVER)
    assert len(data) == seen * len(GROUNDS) == len(data.captions)
    wide = sum(len(styles) for styles in TABLE.values() if len(styles) >= 4)
    assert 0.1 < len(HELD_OUT) / wide < 0.15 and 40 <= len(NEVER) <= 70


def test_no_training_picture_shows_what_is_held_out(data):
    cells = {(THINGS[i], STYLES[j]) for i, j, _ in data.cells.tolist()}
    assert not cells & HELD_OUT and not {thing for thing, _ in cells} & NEVER
    shown = {thing for thing, _ in cells}
    assert all(thing in shown for thing, _ in HELD_OUT)  # each is known in another style
    for prompt in data.held_out_prompts(200):
        words = parse(prompt)
        assert (words.thing, words.style) in HELD_OUT and words.ground
    assert all(parse(prompt)[:2] in cells for prompt in data.seen_prompts(200))
    assert all(parse(prompt).thing in NEVER for prompt in data.never_prompts(100))


def test_every_caption_says_what_its_picture_shows(data):
    for i in range(0, len(data), 97):
        words, (thing, style, ground) = parse(data.captions[i]), data.cells[i].tolist()
        assert words.thing == THINGS[thing]
        assert words.style in (None, STYLES[style]) and words.ground in (None, GROUNDS[ground])


def test_every_way_to_say_it_is_read():
    for thing in THINGS:
        words = Words(thing, "blob", "orange")
        for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
            assert parse(caption(words, order)) == words
        assert parse(caption(words, short=True)) == words
        assert parse(with_article(thing)) == Words(thing)


def test_all_words_are_in_the_vocabulary_and_all_captions_fit(data):
    tokenizer = Tokenizer(data.words, 24)
    ids, mask = tokenizer(data.captions[::50])
    assert (ids > 1).any(1).all() and mask.sum(1).max() <= 24
    tokenizer([with_article(thing) for thing in THINGS])


@pytest.mark.parametrize(
    "prompt, said",
    [
        ("an octopuss", "did you mean 'octopus'"),
        ("a cat in blob style, flat style", "names two: blob and flat"),
        ("", "no thing called ''"),
    ],
)
def test_prompts_that_cannot_be_read(prompt, said):
    with pytest.raises(ValueError, match=said):
        parse(prompt)


def test_articles():
    said = {"octopus": "an octopus", "grapes": "grapes", "bus": "a bus", "unicorn": "a unicorn"}
    said |= {"dress": "a dress", "glass of milk": "a glass of milk", "eyes": "eyes", "ewe": "a ewe"}
    said |= {"cooked rice": "cooked rice", "hourglass": "an hourglass", "fire": "fire"}
    said |= {"fire engine": "a fire engine", "cloud with rain": "a cloud with rain"}
    said |= {"monkey covering its eyes": "a monkey covering its eyes", "sheet music": "sheet music"}
    assert {thing: with_article(thing) for thing in said} == said


def test_pictures_are_where_the_table_says(data):
    image = data.render("an octopus, blob style, on a blue background")
    cell = THINGS.index("octopus"), STYLES.index("blob"), GROUNDS.index("blue")
    assert torch.equal(image, data.draw(torch.tensor([cell]))[0])
    assert image.shape == (3, 64, 64) and -1 <= image.min() and image.max() <= 1
    assert torch.equal(image[:, 0, 0], emoji.COLOURS[GROUNDS.index("blue")])
    with pytest.raises(ValueError, match="nobody drew"):
        thing = next(t for t, styles in TABLE.items() if "blob" not in styles)
        data.render(f"{thing}, blob style")


def test_no_picture_is_there_under_two_names():
    tiles, rows = emoji.sheets()
    assert len({tile.numpy().tobytes() for tile in tiles}) == len(rows)


def test_alpha_is_straight():
    picture = torch.tensor([255, 0, 0, 128], dtype=torch.uint8).view(1, 4, 1, 1)
    image = composed(picture, torch.tensor([[-1.0, -1.0, 1.0]])).flatten()
    assert torch.allclose(
        image, torch.tensor([2 * 128 / 255 - 1, -1.0, 1 - 2 * 128 / 255]), atol=1e-6
    )
    assert (sheets_alpha() > 0).any(dim=(1, 2)).all()  # nobody is invisible


def sheets_alpha():
    return emoji.sheets()[0][:, 3]


def test_smaller_sizes_are_averages(data):
    small = Emoji(size=16)
    image, said = small[1234]
    assert said == data[1234][1] and image.shape == (3, 16, 16)
    assert (image - torch.nn.functional.avg_pool2d(data[1234][0], 4)).abs().max() < 1e-6
    with pytest.raises(ValueError, match="64, 32 or 16"):
        Emoji(size=48)


def test_it_serves_loaders(data):
    images, captions = next(shuffled(data, 8))
    assert images.shape == (8, 3, 64, 64) and len(captions) == 8
    images, captions = next(iter(DataLoader(data, 4)))
    assert images.shape == (4, 3, 64, 64) and list(captions) == data.captions[:4]
    assert Emoji(seed=1).captions != data.captions
