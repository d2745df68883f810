import pytest
import torch
import transformers

from diffusion_lib.conditions import VectorEncoder
from diffusion_lib.stable_diffusion import SD1_TEXT, text_weights
from diffusion_lib.text import TextConfig, TextEncoder, Tokenizer

WORDS = ["a", "red", "dragon", "knight", "with", "shield"]


def test_tokens_and_mask():
    tokenizer = Tokenizer(WORDS, length=6)
    ids, mask = tokenizer(["A red, dragon!", ""])
    names = [tokenizer.words[i - 2] for i in ids[0, 1:4]]
    assert names == ["a", "red", "dragon"] and len(tokenizer) == 8
    assert ids[:, 0].tolist() == [1, 1] and ids[0, 4:].tolist() == [0, 0]
    assert mask.tolist() == [[True] * 4 + [False] * 2, [True] + [False] * 5]


def test_vocabulary_from_captions():
    assert Tokenizer.from_captions(["a dragon", "A knight"]).words == ["a", "dragon", "knight"]


@pytest.mark.parametrize(
    "prompts, error, message",
    [
        (["a dragn"], ValueError, "unknown word 'dragn' in 'a dragn'; did you mean 'dragon'?"),
        (["a zzzzqq"], ValueError, "I know: a, dragon"),
        ([], ValueError, "list of prompts is empty"),
        (["a a a a a a"], ValueError, "has 6 words; at most 5 fit"),
        ("a dragon", TypeError, "must be a list"),
    ],
)
def test_bad_prompts(prompts, error, message):
    with pytest.raises(error) as caught:
        Tokenizer(WORDS, length=6)(prompts)
    assert message in str(caught.value)


@pytest.mark.parametrize("words", [["<pad>", "a"], ["Red"], ["red cat"], ["!"], "abc", [1]])
def test_words_that_no_prompt_could_hold(words):
    with pytest.raises(
        (ValueError, TypeError), match="is no word: prompts are split|words must be"
    ):
        Tokenizer(words)


def test_loads_clip_text_weights_and_gives_the_same_output():
    torch.manual_seed(0)
    theirs = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=12,
            eos_token_id=49,
        )
    ).eval()
    config = TextConfig(50, length=12, dim=32, layers=3, heads=4, causal=True, quick_gelu=True)
    ours = TextEncoder(config).eval()
    ours.load_state_dict(text_weights(theirs.state_dict()), strict=True)
    ids = torch.randint(0, 49, (2, 12))
    mask = torch.arange(12) < torch.tensor([[12], [5]])
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).last_hidden_state).abs().max() < 1e-5
        expected = theirs(ids, attention_mask=mask.long()).last_hidden_state
        assert (ours(ids, mask) - expected)[mask].abs().max() < 1e-5


def test_clip_has_its_123_060_480_parameters():
    with torch.device("meta"):
        encoder = TextEncoder(SD1_TEXT)
    assert sum(p.numel() for p in encoder.parameters()) == 123_060_480


def test_padding_does_not_reach_the_words():
    encoder = TextEncoder(TextConfig(20, length=8)).eval()
    ids = torch.tensor([[1, 5, 6, 7, 0, 0, 0, 0]])
    other = torch.tensor([[1, 5, 6, 7, 9, 9, 9, 9]])
    mask = ids != 0
    assert torch.allclose(encoder(ids, mask)[:, :4], encoder(other, mask)[:, :4], atol=1e-6)


def test_vector_encoder_is_linear_and_drops_to_its_null():
    encoder = VectorEncoder(dim=8)
    hero, food = torch.eye(5)[[0]], torch.eye(5)[[2]]
    mixed = encoder(0.5 * hero + 0.5 * food)
    assert mixed.shape == (1, 1, 8)
    assert torch.allclose(mixed, (encoder(hero) + encoder(food)) / 2, atol=1e-6)
    torch.nn.init.normal_(encoder.null)
    dropped = encoder(torch.cat([hero, food]), torch.tensor([True, False]))
    assert torch.equal(dropped[:1], encoder.null) and torch.equal(dropped[1:], encoder(food))


def test_the_special_tokens_cannot_be_typed():
    for word in ("<pad>", "<start>"):
        with pytest.raises(ValueError, match="unknown word"):
            Tokenizer(WORDS)([f"a {word} dragon"])
