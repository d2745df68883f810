"""Whatever comes in, a right result goes out, or an error that names what was wrong with it."""

import math
import re
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from diffusion_lib import (
    Cond,
    Denoiser,
    Ideal,
    Sprites,
    UNet,
    UNetConfig,
    cosine_schedule,
    ddim,
    dpm_solver,
    flow_schedule,
    heun,
    last,
    linear_schedule,
    load_checkpoint,
    load_pretrained,
    save_checkpoint,
    scaled_linear_schedule,
    shuffled,
    sigmoid_schedule,
)
from diffusion_lib.checkpoints import Checkpoint
from diffusion_lib.data import parse
from diffusion_lib.data.sprites import Attributes
from diffusion_lib.guards import real, texts, whole
from diffusion_lib.images import tile, to_uint8
from diffusion_lib.metrics import clustered_interval, correct
from diffusion_lib.text import Tokenizer

settings.register_profile(
    "course",
    deadline=None,
    max_examples=60,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no fault
)
settings.load_profile("course")

DTYPES = [torch.bool, torch.uint8, torch.int32, torch.int64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SCHEDULE = cosine_schedule(20)
ODDITIES = st.one_of(
    st.integers(-5, 40),
    st.floats(),
    st.text(max_size=3),
    st.none(),
    st.booleans(),
    st.integers(-5, 40).map(np.int64),
    st.integers(-5, 40).map(torch.tensor),
    st.lists(st.integers(), max_size=2),
)


@st.composite
def tensors(draw, dtypes=tuple(DTYPES + FLOATS), ndim=(0, 4), sizes=(0, 5)):
    shape = draw(st.lists(st.integers(*sizes), min_size=ndim[0], max_size=ndim[1]))
    seed, dtype = draw(st.integers(0, 99)), draw(st.sampled_from(dtypes))
    numbers = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    if dtype not in FLOATS:
        return (numbers * 100).abs().to(dtype)
    for value in draw(st.sampled_from([(), (), (math.nan,), (-math.inf, math.inf)])):
        if numbers.numel():
            numbers.view(-1)[0] = value
    return numbers.to(dtype)


def outcome(function, *arguments, names: str):
    """The result; or None after an error of a kind and with words that a user can act on."""
    try:
        return function(*arguments)
    except (ValueError, TypeError, IndexError) as error:
        assert re.search(names, str(error)), f"{type(error).__name__}: {error}"
        assert type(error).__module__ == "builtins"
    return None


def is_whole(value, low, high=math.inf):
    integral = isinstance(value, (int, np.integer, torch.Tensor)) and not isinstance(value, bool)
    return integral and low <= int(value) <= high


@given(ODDITIES)
def test_whole_and_real(value):
    got = outcome(whole, "steps", value, 1, 30, names="^steps must be")
    assert got == (int(value) if is_whole(value, 1, 30) else None)
    assert got is None or type(got) is int
    got = outcome(real, "lr", value, 0, 10, names="^lr must be")
    assert got is None or (type(got) is float and 0 <= got <= 10)


@given(st.one_of(ODDITIES, st.lists(st.one_of(st.text(), st.none(), st.binary(), st.integers()))))
def test_texts(values):
    got = outcome(texts, values, "captions", 2, names="captions")
    assert got is None or (len(got) == 2 and all(isinstance(text, str) for text in got))


@given(
    st.sampled_from(
        [linear_schedule, scaled_linear_schedule, cosine_schedule, sigmoid_schedule, flow_schedule]
    ),
    ODDITIES,
)
def test_schedules_of_any_length(make, T):
    schedule = outcome(make, T, names="^T must be")
    assert (schedule is not None) == is_whole(T, 1)
    if schedule is not None:
        assert schedule.T == T and (schedule.snr(torch.arange(schedule.T + 1)).diff() <= 0).all()


@given(st.one_of(ODDITIES, tensors()), st.integers(1, 4))
def test_times(t, batch):
    like = torch.zeros(batch, 3, 2)
    got = outcome(SCHEDULE.at, t, like, names=r"^t (must be|=|has shape)")
    if got is not None:
        alpha, sigma = got
        assert (alpha * like + sigma).shape == like.shape
        assert torch.equal(alpha.flatten(), SCHEDULE.alpha[torch.as_tensor(t).long().view(-1)])


@given(tensors(), st.integers(0, 20))
def test_denoiser_and_samplers_take_any_float_batch(x, t):
    denoiser = Denoiser(lambda x, time: x / 2, SCHEDULE)
    got = outcome(denoiser, x, t, names="^x (must be a float|is empty)")
    assert got is None or (got.shape == x.shape and got.dtype == x.dtype)
    loss = outcome(denoiser.loss, x, names="^x0 (must be a float|is empty)")
    assert (loss is None) == (got is None)
    for sampler in (ddim, heun, dpm_solver):
        end = outcome(
            lambda: last(sampler(denoiser, SCHEDULE, x, 3)), names="^x (must be a float|is empty)"
        )
        assert (end is None) == (got is None)
        assert end is None or (end.shape == x.shape and end.dtype == x.dtype)


NET = UNet(UNetConfig(channels=(8, 8), layers=1, attention=(False, True), heads=2, context_dim=4))


@given(
    tensors(FLOATS, ndim=(2, 5), sizes=(1, 6)),
    st.one_of(st.none(), tensors([torch.float32], ndim=(2, 3), sizes=(1, 5))),
)
def test_unet_takes_what_it_was_built_for(x, context):
    cond = None if context is None else Cond(context)
    words = "this UNet|as many .* or one|the network answers"
    got = outcome(Denoiser(NET, SCHEDULE), x, 5, cond, names=words)
    fits = x.ndim == 4 and x.shape[1] == 3 and not (x.shape[2] % 2 or x.shape[3] % 2)
    told = context is not None and context.ndim == 3 and context.shape[2] == 4
    assert (got is not None) == bool(fits and told and len(context) in (1, len(x)))


TOKENIZER = Tokenizer(["a", "red", "dragon", "जादू", "größe", "rock-'n'-roll"], length=8)


@given(st.text())
@example("Größe")
@example("की का कि")
@example("\U0001f409 🐲‍🔥 e\u0301")
@example("dra\u200bgon\ufeff")
def test_no_letter_accent_or_picture_of_a_text_is_lost(text):
    words = Tokenizer.split(text)
    normal = unicodedata.normalize("NFC", text.lower().replace("’", "'"))
    kept = [c for c in normal if unicodedata.category(c)[0] not in "ZP"]
    kept = [c for c in kept if unicodedata.category(c) not in ("Cc", "Cf")]
    assert [c for c in "".join(words) if c not in "-'"] == kept
    assert Tokenizer.split(" ".join(words)) == words
    got = outcome(TOKENIZER, [text], names="unknown word|no word in|words; at most")
    if got is not None:
        assert bool(kept) == (int(got[1].sum()) > 1) or not text.strip()


def test_words_that_differ_are_other_tokens_and_spellings_of_one_word_are_not():
    assert Tokenizer.split("की") != Tokenizer.split("का") and len(Tokenizer.split("जादू की")) == 2
    assert Tokenizer.split("Gro\u0308ße") == Tokenizer.split("größe") == ["größe"]
    for text in ("🐉", "!!!", "…"):
        with pytest.raises(ValueError, match="unknown word '🐉'|there is no word in"):
            TOKENIZER([text])
    ids, mask = TOKENIZER(["", "  \n", "a red, dragon!"])
    assert mask.sum(dim=1).tolist() == [1, 1, 4]


@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from([*Sprites.words, "&", "dragn"]), max_size=8).map(" ".join),
    )
)
def test_parse_reads_or_says_what_it_cannot_read(prompt):
    got = outcome(parse, prompt, names="unknown word|names no kind|cannot read|has no|carries|two ")
    assert got is None or isinstance(got, Attributes)


@given(tensors(), ODDITIES, ODDITIES, st.one_of(st.none(), ODDITIES))
def test_sheets_of_pictures(images, scale, pad, columns):
    words = "^images|^scale|^pad|^columns|NaN or infinite|^tile takes"
    small = scale if not is_whole(scale, 6) else 5  # no posters
    sheet = outcome(tile, images, columns, pad, small, names=words)
    if sheet is not None:
        assert images.ndim in (3, 4) and images.shape[-3] == 3 and images.isfinite().all()
        assert sheet.width >= images.shape[-1] * int(small)


@given(tensors(sizes=(0, 4)))
def test_bytes_of_pictures(images):
    pixels = outcome(to_uint8, images, names="^images|NaN or infinite")
    if pixels is not None:
        assert pixels.shape == (*images.shape[:-3], *images.shape[-2:], 3)


@given(tensors(ndim=(3, 5)), st.lists(st.sampled_from(["a cat", "a dragn", ""]), max_size=4))
def test_judging_pictures(images, prompts):
    outcome(
        correct,
        images,
        prompts,
        names="^pictures|prompts|unknown word|names no kind|did it diverge",
    )


@given(ODDITIES, ODDITIES, ODDITIES)
def test_shuffled_batches(n, size, start):
    data = [torch.tensor(float(i)) for i in range(n if is_whole(n, 0) else 3)]
    words = "^batch_size must|^start must|larger than the data set"
    batch = outcome(lambda: next(shuffled(data, size, start=start)), names=words)
    assert (batch is not None) == (is_whole(size, 1, len(data)) and is_whole(start, 0))
    if batch is not None:
        assert len(batch.unique()) == size


def test_any_map_style_data_set_gives_batches():
    class Pairs:
        def __len__(self):
            return 6

        def __getitem__(self, i):
            if not 0 <= i < 6:
                raise IndexError(i)
            return torch.full((2,), float(i)), f"number {i}"

    x, names = next(shuffled(Pairs(), 3))
    assert x.shape == (3, 2) and list(names) == [f"number {int(v)}" for v in x[:, 0]]
    loader = torch.utils.data.DataLoader(Sprites(8), batch_size=4)
    images, captions = next(iter(loader))
    assert images.shape == (4, 3, 16, 16) and len(captions) == 4
    with pytest.raises(TypeError, match="train takes any iterable"):
        next(shuffled(iter([1, 2]), 1))


@given(
    st.one_of(
        st.lists(st.integers(-9, 9), max_size=5), tensors(ndim=(1, 2)), st.lists(st.booleans())
    )
)
def test_rows_of_sprites(rows):
    data = Sprites(6)
    got = outcome(data.batch, rows, names="^rows (must be integers|= )")
    if got is not None:
        wanted = torch.as_tensor(rows).long().flatten()
        assert torch.equal(got[0], data.images[wanted] / 127.5 - 1)
        assert got[1] == [data.captions[i] for i in wanted.tolist()]


MODEL = load_pretrained()


@settings(max_examples=40)
@given(
    prompts=st.lists(
        st.sampled_from(["", "a cat", "a 🐉", "ein Drache", "a red potion"]), max_size=3
    ),
    steps=st.one_of(st.sampled_from([1, 2, np.int64(2)]), ODDITIES),
    guidance=st.one_of(st.sampled_from([0, 1, 3, 15]), ODDITIES),
    negative=st.one_of(
        st.none(), st.sampled_from(["a dog", "a cat"]), st.lists(st.just("a cat"), max_size=3)
    ),
    seed=st.one_of(st.none(), ODDITIES, st.just(2**70)),
)
def test_generate(prompts, steps, guidance, negative, seed):
    if is_whole(steps, 3):
        steps = 2
    images = outcome(
        lambda: MODEL.generate(
            prompts, steps=steps, guidance=guidance, negative=negative, seed=seed
        ),
        names="prompts|unknown word|no word in|steps must|guidance|negative|seed must|^n must",
    )
    if images is not None:
        assert images.shape == (len(prompts), 3, 16, 16) and images.abs().max() <= 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
def test_an_interval_holds_its_share(pairs):
    right = torch.tensor([r for r, _ in pairs], dtype=torch.bool)
    got = outcome(
        clustered_interval, right, [c for _, c in pairs], names="outcomes need as many clusters"
    )
    if got is not None:
        assert (
            0 <= got[0] <= right.double().mean() + 1e-12
            and right.double().mean() - 1e-12 <= got[1] <= 1
        )


@given(
    tensors(FLOATS[2:], ndim=(2, 3), sizes=(1, 4)),
    st.integers(0, 20),
    st.floats(0, 2),
    st.integers(1, 5),
)
def test_the_ideal_denoiser_is_a_mean_of_its_data(x, t, spread, k):
    x = x.nan_to_num(0.5, 0.5, -0.5)
    data = torch.randn(k, *x.shape[1:], dtype=x.dtype, generator=torch.Generator().manual_seed(k))
    got = Ideal(data, SCHEDULE, spread)(x, t)
    assert got.shape == x.shape and got.dtype == x.dtype and got.isfinite().all()
    if spread == 0 and t > 0:
        slack = 1e-3
        assert (got <= data.amax(dim=0) + slack).all() and (got >= data.amin(dim=0) - slack).all()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-9, 9), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), tensors(), st.integers(0, 9))
def test_checkpoints_come_back_as_they_went(tmp_path_factory, config, tensor, step):
    path = tmp_path_factory.mktemp("c") / "ü [1]*.safetensors"
    saved = Checkpoint(config, step, {"model.größe": tensor}, recipe={"lr": 0.1})
    outcome(save_checkpoint, path, saved, names="the model has diverged")
    if path.exists():
        again = load_checkpoint(path)
        assert (again.config, again.step, again.recipe) == (config, step, {"lr": 0.1})
        assert torch.equal(again.tensors["model.größe"], tensor)
        assert again.tensors["model.größe"].dtype == tensor.dtype
