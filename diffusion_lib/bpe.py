"""CLIP's tokenizer: from letters, or rather bytes, pairs are joined again and again to known pieces."""

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lib.guards import whole
from diffusion_lib.text import laid_out

START, END = "<|startoftext|>", "<|endoftext|>"
SHORTENED = re.compile("'(?:s|t|re|ve|m|ll|d)")  # it's, don't, we're, …
RUN = re.compile("L+|N|O+")  # letters; one digit; what is neither, nor a space


def byte_letters() -> dict[int, str]:
    """A visible letter for each of the 256 bytes, so that any text at all is a text of letters.

    Most bytes of printable letters stand for themselves, the others for letters from 256 upwards.
    """
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return {b: chr(b) for b in own} | {b: chr(256 + i) for i, b in enumerate(others)}


class BytePair:
    """ "a doggo" -> <|startoftext|> a</w> dog go</w> <|endoftext|> …, filled up with <|endoftext|>.

    vocabulary: {piece: id}; merges: pairs of pieces that are joined, the most urgent first.
    (Sennrich et al. 2016, algorithm 1; Radford et al. 2021) "</w>" marks a word's end. Longer
    prompts than `length` are refused. What looks like a special token in a prompt stays text.
    """

    def __init__(
        self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], length: int = 77
    ) -> None:
        self.ids, self.length = dict(vocabulary), whole("length", length, 2)
        self.rank = {tuple(pair): i for i, pair in enumerate(merges)}
        self.letters = byte_letters()
        wanted = [START, END, *(a + b for a, b in self.rank), *self.letters.values()]
        if missing := [piece for piece in wanted if piece not in self.ids]:
            raise ValueError(f"the vocabulary lacks {len(missing)} pieces: {missing[0]!r}, …")
        self.pieces = lru_cache(maxsize=10_000)(self._pieces)

    @classmethod
    def read(cls, folder: str | Path, length: int = 77) -> "BytePair":
        """From `vocab.json` and `merges.txt`, as Stable Diffusion's folder `tokenizer` has them."""
        vocabulary = json.loads((Path(folder) / "vocab.json").read_text(encoding="utf-8"))
        lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#v")]
        return cls(vocabulary, merges, length)

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def split(text: str) -> Iterator[str]:
        """Lower-case words, single digits, runs of other signs; "'s" and the like by themselves."""
        text = "".join(c.lower() for c in unicodedata.normalize("NFC", text))
        kinds = "".join(
            " " if c.isspace() else kind if (kind := unicodedata.category(c)[0]) in "LN" else "O"
            for c in text
        )
        at = 0
        while at < len(text):
            found = SHORTENED.match(text, at) or RUN.match(kinds, at)
            end = found.end() if found else at + 1
            if found:
                yield text[at:end]
            at = end

    def _pieces(self, word: str) -> list[str]:
        """The word's bytes, joined until no pair of neighbours can be: always the pair of least rank."""
        parts = [self.letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            ranks = [self.rank.get(pair, math.inf) for pair in zip(parts, parts[1:])]
            i = ranks.index(min(ranks))
            if ranks[i] == math.inf:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return parts

    def tokens(self, prompt: str) -> list[int]:
        """All ids of a prompt, however many."""
        middle = [piece for word in self.split(prompt) for piece in self.pieces(word)]
        return [self.ids[piece] for piece in [START, *middle, END]]

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) and a mask (B, L), all True: CLIP was trained to look at the filling too."""
        ids = laid_out(prompts, self.tokens, self.length, self.ids[END])
        return ids, torch.ones_like(ids, dtype=torch.bool)
