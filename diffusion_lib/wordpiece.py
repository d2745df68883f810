"""BERT's tokenizer: words it has never seen fall into pieces that it knows."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from diffusion_lib.guards import texts, whole
from diffusion_lib.text import laid_out

LONGEST = 100  # letters of a word; longer ones are unknown
ASCII = {c for c in map(chr, range(33, 127)) if not c.isalnum()}
HAN = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)) + (
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """ "a doggo" -> [CLS] a dog ##go [SEP] [PAD] …, ids from a vocabulary of words and pieces.

    Lower case, without accents; of a word the longest known beginning is taken, then that of the
    rest. (Wu et al. 2016, section 4.1; Devlin et al. 2019) Every prompt begins with [CLS], so that
    an empty one is a valid condition too. Longer prompts than `length` are refused.
    """

    def __init__(self, vocabulary: Sequence[str], length: int = 32) -> None:
        self.ids = {piece: i for i, piece in enumerate(texts(vocabulary, "the vocabulary"))}
        missing = {"[PAD]", "[UNK]", "[CLS]", "[SEP]"} - self.ids.keys()
        if missing:
            raise ValueError(f"the vocabulary lacks {', '.join(sorted(missing))}")
        self.length = whole("length", length, 2)

    @classmethod
    def read(cls, path: str | Path, length: int = 32) -> "WordPiece":
        """From a `vocab.txt`, a piece a line."""
        return cls(Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n"), length)

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def split(text: str) -> list[str]:
        """Lower-case words without accents; each punctuation mark and Chinese character by itself."""
        kept = []
        for c in unicodedata.normalize("NFC", text):
            category = unicodedata.category(c)
            if c in "\t\n\r" or category == "Zs":
                kept.append(" ")
            elif any(low <= ord(c) <= high for low, high in HAN):
                kept.append(f" {c} ")
            elif category[0] != "C" and c not in "\0\ufffd":
                kept.append(c)
        apart = []
        for c in unicodedata.normalize("NFD", "".join(kept).lower()):
            category = unicodedata.category(c)
            if c in ASCII or category[0] == "P":
                apart.append(f" {c} ")
            elif category != "Mn":
                apart.append(c)
        return "".join(apart).split()

    def pieces(self, word: str) -> list[str]:
        """The longest known beginning, again and again; ["[UNK]"] where there is none."""
        found, start = [], 0
        while start < len(word) <= LONGEST:
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self.ids), None)
            if end is None:
                return ["[UNK]"]
            found.append(mark + word[start:end])
            start = end
        return found or ["[UNK]"]

    def tokens(self, prompt: str) -> list[int]:
        """All ids of a prompt, however many."""
        middle = [piece for word in self.split(prompt) for piece in self.pieces(word)]
        return [self.ids[piece] for piece in ["[CLS]", *middle, "[SEP]"]]

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) and a mask (B, L), True where there is a token."""
        ids = laid_out(prompts, self.tokens, self.length, self.ids["[PAD]"])
        return ids, ids != self.ids["[PAD]"]
