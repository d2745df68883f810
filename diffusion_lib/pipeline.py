"""From words to a picture: tokenizer, text encoder, denoiser and (later) autoencoder in one model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from diffusion_lib import schedules
from diffusion_lib.autoencoder import Autoencoder, AutoencoderConfig
from diffusion_lib.checkpoints import finished, load_checkpoint
from diffusion_lib.conditions import Cond
from diffusion_lib.cores import by_core
from diffusion_lib.denoiser import Denoise, Denoiser, clipped, guided, logit_normal
from diffusion_lib.guards import pictures, texts, whole
from diffusion_lib.minilm import load_minilm
from diffusion_lib.noise import seeded
from diffusion_lib.parallel import drawn
from diffusion_lib.sampling import Step, ddim, last
from diffusion_lib.stable_diffusion import MINILM
from diffusion_lib.text import TextConfig, TextEncoder, Tokenizer
from diffusion_lib.unet import UNet, UNetConfig

PRETRAINED = Path(__file__).parent / "pretrained"
SCHEDULES: dict[str, Callable[..., schedules.Schedule]] = {
    "linear": schedules.linear_schedule,
    "scaled_linear": schedules.scaled_linear_schedule,
    "cosine": schedules.cosine_schedule,
    "sigmoid": schedules.sigmoid_schedule,
    "flow": schedules.flow_schedule,
}
FRESH = dict(schedule="cosine", T=1000, prediction="flow", times="logit-normal")
TIMES: dict[str, Callable] = {"uniform": lambda T: None, "logit-normal": logit_normal}
Sampler = Callable[[Denoise, schedules.Schedule, Tensor, int], Iterator[Step]]


class TextToImage(nn.Module):
    """A model with `loss(x0, captions)` to train and `generate(prompts)` to use it.

    autoencoder: None when the denoiser works on pixels; else a module with `encode` and `decode`.
    """

    drop = 0.1  # the share of captions replaced by "" in training, so that guidance has its null
    guidance = 2.0  # where nothing else is said

    def __init__(
        self,
        tokenizer: Tokenizer,
        text_encoder: TextEncoder,
        denoiser: Denoiser,
        autoencoder: nn.Module | None = None,
        size: int | tuple[int, int] = 16,
    ) -> None:
        """size: height and width, or both in one number, of what the denoiser works on."""
        super().__init__()
        if len(tokenizer) != text_encoder.config.vocabulary:
            raise ValueError("the tokenizer and the text encoder have other numbers of tokens")
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.denoiser = denoiser
        self.autoencoder = autoencoder
        height, width = (size, size) if not isinstance(size, Sequence) else size
        height, width = whole("size", height, 1), whole("size", width, 1)
        net = getattr(denoiser.net, "module", denoiser.net)  # within a DataParallel
        self.shape = (net.config.in_channels, height, width)  # of one x_t

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def pixels(self) -> int:
        """Height of its pictures."""
        return self.shape[1] * (1 if self.autoencoder is None else self.autoencoder.config.factor)

    def encode(self, prompts: Sequence[str]) -> Cond:
        """B texts -> context (B, L, D) and mask (B, L). Raises ValueError for unknown words."""
        ids, mask = (tensor.to(self.device) for tensor in self.tokenizer(prompts))
        return Cond(self.text_encoder(ids, mask), mask)

    def loss(
        self, x0: Tensor, captions: Sequence[str], generator: torch.Generator | None = None
    ) -> Tensor:
        """x0: (B, 3, H, W) in [-1, 1], or their latents, with a caption each. Returns a scalar."""
        latent = self.autoencoder is not None and x0.shape[1:] == self.shape
        captions = texts(
            captions, "captions", len(x0 if latent else pictures("pictures", x0, few=7))
        )
        dropped = drawn(lambda n: torch.rand(n, generator=generator), len(captions)) < self.drop
        cond = self.encode(["" if d else c for c, d in zip(captions, dropped)])
        if self.autoencoder is not None and not latent:
            x0 = self.latents(x0)
        return self.denoiser.loss(x0, cond, generator)

    @torch.no_grad()
    def denoise_with(
        self,
        prompts: Sequence[str],
        guidance: float | None = None,
        negative: str | Sequence[str] | None = None,
        clip: bool = True,
    ) -> Denoise:
        """denoise(x, t) for any sampler: the prompts are encoded here, once. See `generate`."""
        cond, guidance = self.encode(prompts), self.guidance if guidance is None else guidance
        away = [negative or ""] if isinstance(negative, str | None) else texts(negative, "negative")
        null = partial(self.denoiser, cond=self.encode(away)) if guidance != 1 else None
        denoise = guided(partial(self.denoiser, cond=cond), null, guidance)
        return clipped(denoise) if clip and self.autoencoder is None else denoise

    def noise(self, n: int, seed: int | None = None) -> Tensor:
        """x_T for n pictures; picture i has the same noise whatever n is, and on every device."""
        generator = seeded(torch.Generator().seed() % 2**63 if seed is None else seed)
        rows = [torch.randn(self.shape, generator=generator) for _ in range(whole("n", n, 1))]
        return (torch.stack(rows) * float(self.denoiser.schedule.sigma[-1])).to(self.device)

    @torch.no_grad()
    def film(
        self,
        prompts: Sequence[str],
        *,
        steps: int = 20,
        guidance: float | None = None,
        negative: str | Sequence[str] | None = None,
        seed: int | None = None,
        sampler: Sampler = ddim,
        clip: bool = True,
    ) -> Iterator[Step]:
        """`generate` step by step."""
        prompts = texts(prompts)
        denoise = self.denoise_with(prompts, guidance, negative, clip)
        x = self.noise(len(prompts), seed)
        for step in sampler(denoise, self.denoiser.schedule, x, steps):
            yield step._replace(x=self.decode(step.x), x0=self.decode(step.x0))

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """What the denoiser works on, from pixels (B, 3, H, W). ValueError for another size."""
        x = images if self.autoencoder is None else self._through(self.autoencoder.encode, images)
        if x.shape[1:] != self.shape:
            side = images.shape[-1] * self.shape[-1] // x.shape[-1]
            raise ValueError(f"this model paints {side} pixels a side, not {images.shape[2:]}")
        return x

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) from what the denoiser works on."""
        return x if self.autoencoder is None else self._through(self.autoencoder.decode, x)

    def _through(self, half: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """half(x) in the precision of the autoencoder's weights, and back in x's."""
        return by_core(half, x.to(next(self.autoencoder.parameters(), x).dtype)).to(x.dtype)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        steps: int = 20,
        guidance: float | None = None,
        negative: str | Sequence[str] | None = None,
        seed: int | None = None,
        sampler: Sampler = ddim,
        clip: bool = True,
    ) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], one a prompt.

        steps: 1…T (network calls; `heun` makes 2 steps - 1); guidance: 1 = none, more = closer to
        the words, less varied, None = the model's own; negative: what to guide away from, one text
        or one a prompt (not heard at guidance 1, painted at 0; 1.5 is plenty for one that is near
        the prompt); seed: the same one gives the same pictures; sampler: ddim, heun or dpm_solver
        (with eta, it wants its own generator too); clip: keep each answer of the denoiser in
        [-1, 1] (pixels only).
        Raises ValueError or TypeError for bad input.
        """
        prompts = texts(prompts)
        denoise = self.denoise_with(prompts, guidance, negative, clip)
        x = self.noise(len(prompts), seed)
        return self.decode(last(sampler(denoise, self.denoiser.schedule, x, steps))).clamp(-1, 1)

    @classmethod
    def from_config(cls, config: dict, device: torch.device | str = "cpu") -> "TextToImage":
        """A model with fresh weights from a plain dictionary (see `sprite_config`).

        Its "text" is a TextConfig's fields, or "minilm" for the pretrained encoder; "autoencoder",
        if there is one, an AutoencoderConfig's.
        """
        schedule = SCHEDULES[config["schedule"]](config["T"])
        autoencoder = None
        with torch.device(device):
            net = UNet(UNetConfig(**config["unet"]))
            if config.get("autoencoder"):
                autoencoder = Autoencoder(AutoencoderConfig(**config["autoencoder"]))
            if config["text"] != "minilm":
                encoder = TextEncoder(TextConfig(**config["text"]))
        if config["text"] == "minilm":
            tokenizer, encoder = load_minilm()
        else:
            tokenizer = Tokenizer(config["vocabulary"], config["text"]["length"])
        times = TIMES[config.get("times", "uniform")]
        denoiser = Denoiser(net, schedule, config["prediction"], times(schedule.T))
        model = cls(tokenizer, encoder, denoiser, autoencoder, config["size"])
        model.guidance = config.get("guidance", cls.guidance)
        model.config = config
        return model


def sprite_config(words: Sequence[str]) -> dict:
    """The sprite model's configuration: what `make train` trains and the checkpoint holds."""
    text = TextConfig(vocabulary=len(Tokenizer(words)))
    return {
        "unet": as_json(UNetConfig(layers=1, context_dim=text.dim)),
        "text": as_json(text),
        "vocabulary": sorted(words),
        "size": 16,
        **FRESH,
    }


def as_json(config) -> dict:
    """A configuration's fields as a checkpoint will give them back: JSON has lists for tuples."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


def latent_config(
    autoencoder: AutoencoderConfig, size: int, words: Sequence[str] | None = None, length: int = 32
) -> dict:
    """The configuration of a model that paints latents of size x size of such an autoencoder.

    words: the vocabulary of a text encoder of its own, prompts of `length` tokens; None: MiniLM.
    """
    text = words is not None and TextConfig(len(Tokenizer(words)), length, dim=192)
    latent, width = autoencoder.latent_channels, text.dim if text else MINILM.dim
    unet = UNetConfig(latent, latent, channels=(48, 96, 96), layers=1, context_dim=width)
    return {
        "unet": as_json(unet),
        "autoencoder": as_json(autoencoder),
        "text": as_json(text) if text else "minilm",
        "vocabulary": sorted(words or ()),
        "guidance": 4.0,
        "size": size,
        **FRESH,
    }


def load_pretrained(name: str | Path = "sprites") -> TextToImage:
    """A trained model, ready to `generate`: a shipped one by name, or a checkpoint file by path.

    Raises FileNotFoundError or ValueError, saying what is there or what is wrong with the file.
    """

    def build(config: dict, weights: dict) -> TextToImage:
        unet, text = config["unet"], config["text"]
        layers = 0 if text == "minilm" else text["layers"]
        if max(unet["layers"] * len(unet["channels"]), layers) > len(weights):
            raise ValueError("its weights are not those that its configuration speaks of")
        return TextToImage.from_config(config, device="meta")  # no memory, no drawing

    return restored(name, build)


def load_autoencoder(name: str | Path = "emoji") -> Autoencoder:
    """The trained autoencoder within a shipped model, or in a checkpoint file; raises as above."""

    def build(config: dict, weights: dict) -> Autoencoder:
        with torch.device("meta"):
            return Autoencoder(AutoencoderConfig(**config["autoencoder"]))

    return restored(name, build, within="autoencoder.")


Model = TypeVar("Model", bound=nn.Module)


def restored(
    name: str | Path, build: Callable[[dict, dict[str, Tensor]], Model], within: str = ""
) -> Model:
    """What build(configuration, weights) lays out, with its weights, to be used and not trained.

    within: where the weights begin with it, the others are another part's and not asked for.
    """
    path = PRETRAINED / f"{name}.safetensors"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in PRETRAINED.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(f"no checkpoint named or at {str(name)!r}; shipped: {shipped}")
    checkpoint = load_checkpoint(path)
    weights = finished(checkpoint).part("model")
    inner = {k[len(within) :]: w for k, w in weights.items() if k.startswith(within)} or weights
    try:
        if not all(w.is_floating_point() for w in inner.values()):
            raise ValueError("its weights are no floating-point numbers")
        model = build(checkpoint.config, inner)
        model.load_state_dict({k: w.float() for k, w in inner.items()}, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit this version of the library: {error}") from error
    model.to(memory_format=torch.channels_last)  # a fifth faster on CPUs
    return model.eval().requires_grad_(False)
