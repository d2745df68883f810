"""Models as the field publishes them: Stable Diffusion's folder, read into this library's classes.

    folder/unet, vae, text_encoder, tokenizer, scheduler      each with a config and its weights

Only safetensors are read, never pickles; and only structures that are Stable Diffusion v1's. What is
another (version 2's linear projections, SDXL's second encoder) is named and refused.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion_lib.autoencoder import Autoencoder, AutoencoderConfig
from diffusion_lib.bpe import BytePair
from diffusion_lib.denoiser import Denoiser
from diffusion_lib.pipeline import TextToImage, load_pretrained
from diffusion_lib.schedules import Schedule, linear_schedule, scaled_linear_schedule
from diffusion_lib.stable_diffusion import autoencoder_weights, text_weights, unet_weights
from diffusion_lib.text import TextConfig, TextEncoder
from diffusion_lib.unet import UNet, UNetConfig

SCHEDULES = {"linear": linear_schedule, "scaled_linear": scaled_linear_schedule}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
# What must stand in a config if it stands there at all, because the classes know nothing else
ASSUMED = {
    "unet": dict(
        act_fn="silu",
        addition_embed_type=None,
        class_embed_type=None,
        conv_in_kernel=3,
        downsample_padding=1,
        dual_cross_attention=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        mid_block_type="UNetMidBlock2DCrossAttn",
        norm_eps=1e-5,
        only_cross_attention=False,
        resnet_time_scale_shift="default",
        transformer_layers_per_block=1,
        use_linear_projection=False,
    ),
    "vae": dict(act_fn="silu", mid_block_add_attention=True, shift_factor=None),
    "text_encoder": dict(model_type="clip_text_model"),
    "scheduler": dict(rescale_betas_zero_snr=False, trained_betas=None),
}


def load_model(name: str | Path, device: torch.device | str = "cpu") -> TextToImage:
    """A shipped model by name, a checkpoint by path, or a folder with a Stable Diffusion in it."""
    if Path(name).is_dir():
        return load_stable_diffusion(name, device)
    return load_pretrained(name).to(device)


def load_stable_diffusion(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> TextToImage:
    """Stable Diffusion v1, or a model of its structure in any size, ready to `generate`.

    dtype: of the weights; by default float16 on a GPU, float32 on a CPU. Raises FileNotFoundError
    or ValueError, saying what is missing or what the classes do not know.
    """
    folder, device = Path(folder), torch.device(device)
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)

    def filled(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
        try:
            weights = {k: w.to(dtype) if w.ndim else w for k, w in weights.items()}  # not the scale
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            said = str(error).splitlines()[1].strip()
            raise ValueError(
                f"{folder}: its weights are not what its config says: {said}"
            ) from None
        return model.to(device).eval().requires_grad_(False)

    unet, vae, text = (config(folder, part) for part in ("unet", "vae", "text_encoder"))
    noise = config(folder, "scheduler")
    with torch.device("meta"):
        net, size = UNet(unet_config(unet)), unet["sample_size"]
        autoencoder = Autoencoder(autoencoder_config(vae))
        encoder = TextEncoder(text_config(text))
    factor = vae.get("scaling_factor", 0.18215)  # releases of 2022 do not say it
    net = filled(net, unet_weights(weights(folder, "unet")))
    autoencoder = filled(autoencoder, autoencoder_weights(weights(folder, "vae"), factor))
    encoder = filled(encoder, text_weights(weights(folder, "text_encoder")))
    tokenizer = BytePair.read(folder / "tokenizer", encoder.config.length)
    told = noise.get("prediction_type", "epsilon")
    if told not in PREDICTIONS:
        raise ValueError(
            f"{folder}/scheduler: prediction_type {told!r} is none of {[*PREDICTIONS]}"
        )
    denoiser = Denoiser(net, schedule(noise), PREDICTIONS[told])
    model = TextToImage(tokenizer, encoder, denoiser, autoencoder, size).eval()
    model.guidance = 7.5  # diffusers' default
    return model.to(memory_format=torch.channels_last)


def config(folder: Path, part: str) -> dict:
    """A part's config. Raises ValueError where it tells of a structure that is not v1's."""
    path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: is {folder} a Stable Diffusion's folder?")
    told = json.loads(path.read_text(encoding="utf-8"))
    for name, value in ASSUMED[part].items():
        if told.get(name, value) != value:
            raise ValueError(
                f"{path}: {name} is {told[name]!r}; this library knows Stable Diffusion v1's {value!r}"
            )
    return told


def weights(folder: Path, part: str) -> dict[str, Tensor]:
    """A part's tensors, from the first of its safetensors files: those of full precision before
    those of half, those without a variant's name before others."""
    files = sorted((folder / part).glob("*.safetensors"), key=lambda f: (f.name.count("."), f.name))
    if not files:
        pickled = any((folder / part).glob("*.bin"))
        why = " (a .bin is a pickle, which can run code: it is not read)" * pickled
        raise FileNotFoundError(f"there is no safetensors file in {folder / part}{why}")
    return load_file(files[0])


def unet_config(told: dict) -> UNetConfig:
    down, up = told["down_block_types"], told["up_block_types"]
    attention = tuple(name == "CrossAttnDownBlock2D" for name in down)
    mirrored = tuple(name == "CrossAttnUpBlock2D" for name in reversed(up))
    known = {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}
    heads = told.get("num_attention_heads") or told.get("attention_head_dim", 8)
    if attention != mirrored or not {*down, *up} <= known or not isinstance(heads, int):
        raise ValueError(f"a UNet of {down}, {up} with {heads} heads is not Stable Diffusion v1's")
    return UNetConfig(
        in_channels=told["in_channels"],
        out_channels=told["out_channels"],
        channels=tuple(told["block_out_channels"]),
        layers=told["layers_per_block"],
        attention=attention,
        heads=heads,
        groups=told.get("norm_num_groups", 32),
        context_dim=told["cross_attention_dim"],
    )


def autoencoder_config(told: dict) -> AutoencoderConfig:
    return AutoencoderConfig(
        channels=tuple(told["block_out_channels"]),
        latent_channels=told["latent_channels"],
        layers=told["layers_per_block"],
        groups=told.get("norm_num_groups", 32),
    )


def text_config(told: dict) -> TextConfig:
    activation = told.get("hidden_act", "quick_gelu")
    if activation not in ("quick_gelu", "gelu"):
        raise ValueError(f"a text encoder with the activation {activation!r} is not CLIP's")
    return TextConfig(
        vocabulary=told["vocab_size"],
        length=told["max_position_embeddings"],
        dim=told["hidden_size"],
        layers=told["num_hidden_layers"],
        heads=told["num_attention_heads"],
        causal=True,
        quick_gelu=activation == "quick_gelu",
        eps=told.get("layer_norm_eps", 1e-5),
    )


def schedule(told: dict) -> Schedule:
    make = SCHEDULES.get(told["beta_schedule"])
    if make is None:
        raise ValueError(
            f"the beta schedule {told['beta_schedule']!r} is not Stable Diffusion v1's"
        )
    return make(told.get("num_train_timesteps", 1000), told["beta_start"], told["beta_end"])
