"""Words for the UNet: a tokenizer and a text encoder with the structure of CLIP's."""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.guards import texts, whole
from diffusion_lib.layers import Attention

PAD, START = "<pad>", "<start>"
SEPARATES = re.compile("Z|P|Cc|Cf").match  # Unicode categories: spaces, punctuation, control marks


class Tokenizer:
    """One token a word, from a fixed vocabulary: "a red dragon" -> <start> a red dragon <pad> ….

    Every prompt begins with <start>, so that an empty one is a valid condition too.
    """

    def __init__(self, words: Iterable[str], length: int = 16) -> None:
        """words: the vocabulary, without the two special tokens; length: L, tokens a prompt."""
        self.words = sorted(set(texts(words, "the vocabulary's words")))
        odd = [word for word in self.words if self.split(word) != [word] or word in (PAD, START)]
        if odd:
            raise ValueError(f"{odd[0]!r} is no word: prompts are split into {self.split(odd[0])}")
        self.length = whole("length", length, 1)
        self.ids = {word: i for i, word in enumerate([PAD, START, *self.words])}

    @classmethod
    def from_captions(cls, captions: Iterable[str], length: int = 16) -> "Tokenizer":
        """The vocabulary is every word that occurs in the captions."""
        captions = texts(captions, "captions")
        return cls((word for caption in captions for word in cls.split(caption)), length)

    @staticmethod
    def split(text: str) -> list[str]:
        """Lower-case words in composed Unicode (NFC), split at spaces and punctuation.

        Hyphens and apostrophes inside a word stay, and so does all that is no punctuation: accents,
        vowel signs, emoji.
        """
        text = unicodedata.normalize("NFC", text.lower().replace("’", "'"))
        apart = "".join(
            c if c in "-'" or not SEPARATES(unicodedata.category(c)) else " " for c in text
        )
        return [word for word in (part.strip("-'") for part in apart.split()) if word]

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) and a mask (B, L), True where there is a word (or <start>).

        Raises ValueError for an empty list, an unknown word (naming the nearest), a long prompt, or
        one without any word that is not just "".
        """
        prompts = texts(prompts)
        if not prompts:
            raise ValueError("the list of prompts is empty: give at least one, even if it is ''")
        ids = torch.zeros(len(prompts), self.length, dtype=torch.long)  # 0 is <pad>, 1 is <start>
        for row, prompt in zip(ids, prompts):
            words = self.split(prompt)
            if not words and prompt.strip():
                raise ValueError(f"there is no word in {prompt!r}; for no prompt at all, write ''")
            if len(words) >= self.length:
                most = self.length - 1
                raise ValueError(f"{prompt!r} has {len(words)} words; at most {most} fit")
            row[: len(words) + 1] = torch.tensor([1] + [self._id(w, prompt) for w in words])
        return ids, ids != 0

    def _id(self, word: str, prompt: str) -> int:
        if word in self.ids and word not in (PAD, START):
            return self.ids[word]
        near = difflib.get_close_matches(word, self.words, n=3, cutoff=0.6)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else "I know: " + ", ".join(self.words)
        )
        raise ValueError(f"unknown word {word!r} in {prompt!r}; {hint}")


def laid_out(
    prompts: Sequence[str], tokens: Callable[[str], list[int]], length: int, filling: int
) -> Tensor:
    """Ids (B, length), row by row tokens(prompt), which begin and end with a mark, then `filling`.

    Raises ValueError for an empty list and for a prompt that is too long.
    """
    prompts = texts(prompts)
    if not prompts:
        raise ValueError("the list of prompts is empty: give at least one, even if it is ''")
    ids = torch.full((len(prompts), length), filling)
    for row, prompt in zip(ids, prompts):
        found = tokens(prompt)
        if len(found) > length:
            n, most = len(found) - 2, length - 2
            raise ValueError(f"{prompt!r} has {n} tokens; at most {most} fit")
        row[: len(found)] = torch.tensor(found)
    return ids


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a TextEncoder. CLIP's, for Stable Diffusion: 49408, 77, 768, 12, 12, True, True.

    post_norm: each sum is normalised, as BERT does it, not each branch.
    """

    vocabulary: int
    length: int = 16
    dim: int = 64
    layers: int = 2
    heads: int = 4
    causal: bool = False
    quick_gelu: bool = False
    post_norm: bool = False
    eps: float = 1e-5  # of LayerNorm

    def __post_init__(self) -> None:
        for name in ("vocabulary", "length", "dim", "layers", "heads"):
            whole(name, getattr(self, name), 1)


class TextLayer(nn.Module):
    """A transformer layer, as a rule pre-norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.norm1 = nn.LayerNorm(dim, config.eps)
        self.attention = Attention(dim, config.heads, bias=True)
        self.norm2 = nn.LayerNorm(dim, config.eps)
        self.wide = nn.Linear(dim, 4 * dim)
        self.out = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.config.post_norm:
            x = self.norm1(x + self.attention(x, mask=mask, causal=self.config.causal))
            return self.norm2(x + self.think(x))
        x = x + self.attention(self.norm1(x), mask=mask, causal=self.config.causal)
        return x + self.think(self.norm2(x))

    def think(self, x: Tensor) -> Tensor:
        """Each token by itself."""
        h = self.wide(x)
        return self.out(h * torch.sigmoid(1.702 * h) if self.config.quick_gelu else F.gelu(h))


class TextEncoder(nn.Module):
    """Token ids (B, L) -> one vector a token (B, L, D). (Radford et al. 2021, section 2.4)"""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.dim)
        self.position = nn.Embedding(config.length, config.dim)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim, config.eps)
        nn.init.normal_(self.position.weight, std=0.3)  # the words are louder: theirs is 1

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """ids: (B, L) integers; mask: (B, L), True = a word to attend to. Returns (B, L, D)."""
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        if self.config.post_norm:
            x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask)
        return x if self.config.post_norm else self.norm(x)
