"""Key maps from the field's checkpoints to this library's classes.

The tensors are the same, only their names differ: a UNet and an AutoencoderKL of diffusers and a
CLIP or BERT of transformers load strictly into `UNet`, `Autoencoder` and `TextEncoder`. Newer releases and older ones are served.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from diffusion_lib.autoencoder import AutoencoderConfig
from diffusion_lib.text import TextConfig
from diffusion_lib.unet import UNetConfig

# Stable Diffusion v1: 859,520,964 parameters in the UNet, 83,653,863 in the autoencoder, CLIP ViT-L/14's text encoder.
SD1_UNET = UNetConfig(
    in_channels=4,
    out_channels=4,
    channels=(320, 640, 1280, 1280),
    layers=2,
    attention=(True, True, True, False),
    heads=8,  # diffusers' configuration calls this attention_head_dim
    groups=32,
    context_dim=768,
)
SD1_AUTOENCODER = AutoencoderConfig((128, 256, 512, 512), latent_channels=4, layers=2, groups=32)
SD1_SCALE = 0.18215  # measured by its authors on their data
SD1_TEXT = TextConfig(49408, length=77, dim=768, layers=12, heads=12, causal=True, quick_gelu=True)

# (theirs, ours), applied in this order to every name
UNET_NAMES = [
    (r"^time_embedding\.linear_1", "time.0"),
    (r"^time_embedding\.linear_2", "time.2"),
    (r"^conv_norm_out", "norm_out"),
    (r"^(down|up)_blocks", r"\1"),
    (r"^mid_block", "middle"),
    (r"\.resnets\.", ".blocks."),
    (r"\.(down|up)samplers\.0\.", ".resize."),
    (r"\.time_emb_proj\.", ".time."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.proj_in\.", ".conv_in."),
    (r"\.proj_out\.", ".conv_out."),
    (r"\.transformer_blocks\.0\.", ".block."),
    (r"\.attn1\.", ".self_attention."),
    (r"\.attn2\.", ".cross_attention."),
    (r"\.to_q\.", ".query."),
    (r"\.to_k\.", ".key."),
    (r"\.to_v\.", ".value."),
    (r"\.to_out\.0\.", ".out."),
    (r"\.ff\.net\.0\.proj\.", ".feed_forward.wide."),
    (r"\.ff\.net\.2\.", ".feed_forward.out."),
]

AUTOENCODER_NAMES = [
    (r"^quant_conv", "quant"),
    (r"^post_quant_conv", "post_quant"),
    (r"\.(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r".\1\2_block\3"),
    (r"\.(down|up)_blocks\.(\d+)\.(down|up)samplers\.0", r".\1\2_resize"),
    (r"\.mid_block\.resnets\.(\d+)", r".middle_block\1"),
    (r"\.mid_block\.attentions\.0\.group_norm", ".attention.norm"),
    (r"\.mid_block\.attentions\.0\.", ".attention.attention."),
    (r"\.(to_q|query)\.", ".query."),
    (r"\.(to_k|key)\.", ".key."),
    (r"\.(to_v|value)\.", ".value."),
    (r"\.(to_out\.0|proj_attn)\.", ".out."),
    (r"\.conv_norm_out", ".norm_out"),
    (r"\.conv_shortcut\.", ".shortcut."),
]

TEXT_NAMES = [
    (r"^text_model\.", ""),
    (r"^embeddings\.token_embedding", "token"),
    (r"^embeddings\.position_embedding", "position"),
    (r"^encoder\.layers", "layers"),
    (r"^final_layer_norm", "norm"),
    (r"\.self_attn\.out_proj\.", ".attention.out."),
    (r"\.self_attn\.q_proj\.", ".attention.query."),
    (r"\.self_attn\.k_proj\.", ".attention.key."),
    (r"\.self_attn\.v_proj\.", ".attention.value."),
    (r"\.layer_norm(1|2)\.", r".norm\1."),
    (r"\.mlp\.fc1\.", ".wide."),
    (r"\.mlp\.fc2\.", ".out."),
]

# MiniLM (Wang et al. 2020), trained to tell what a sentence means (Reimers & Gurevych 2019)
MINILM = TextConfig(30522, length=512, dim=384, layers=6, heads=12, post_norm=True, eps=1e-12)
BERT_NAMES = [
    (r"^bert\.", ""),
    (r"^embeddings\.word_embeddings", "token"),
    (r"^embeddings\.position_embeddings", "position"),
    (r"^embeddings\.LayerNorm", "norm"),
    (r"^encoder\.layer", "layers"),
    (r"\.attention\.self\.", ".attention."),
    (r"\.attention\.output\.dense\.", ".attention.out."),
    (r"\.attention\.output\.LayerNorm\.", ".norm1."),
    (r"\.intermediate\.dense\.", ".wide."),
    (r"\.output\.dense\.", ".out."),
    (r"\.output\.LayerNorm\.", ".norm2."),
]


COPY = "transformer_blocks.0.norm1.emb."
DIT_NAMES = [
    (r"^pos_embed\.proj", "patches"),
    (r"^proj_out_1", "modulation"),
    (r"^proj_out_2", "out"),
    (r"^transformer_blocks\.0\.norm1\.emb\.timestep_embedder\.linear_1", "time.0"),
    (r"^transformer_blocks\.0\.norm1\.emb\.timestep_embedder\.linear_2", "time.2"),
    (r"^transformer_blocks", "blocks"),
    (r"\.norm1\.linear\.", ".modulation."),
    (r"\.attn1\.to_q\.", ".self_attention.query."),
    (r"\.attn1\.to_k\.", ".self_attention.key."),
    (r"\.attn1\.to_v\.", ".self_attention.value."),
    (r"\.attn1\.to_out\.0\.", ".self_attention.out."),
    (r"\.ff\.net\.0\.proj\.", ".wide."),
    (r"\.ff\.net\.2\.", ".out."),
]


def dit_weights(theirs: Mapping[str, Tensor], label: int) -> dict[str, Tensor]:
    """The state_dict of diffusers' DiTTransformer2DModel, with our names, for one of its classes.

    Its class's vector is added to the time's, which a bias does as well; each of its blocks has
    its own copy of both.
    """
    kept = {k: w for k, w in theirs.items() if ".norm1.emb." not in k or k.startswith(COPY)}
    classes = kept.pop(f"{COPY}class_embedder.embedding_table.weight")
    ours = _renamed(kept, DIT_NAMES)
    return ours | {"time.2.bias": ours["time.2.bias"] + classes[label]}


def unet_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of diffusers' UNet2DConditionModel, with our names."""
    return _renamed(theirs, UNET_NAMES)


def autoencoder_weights(
    theirs: Mapping[str, Tensor], scale: float = SD1_SCALE
) -> dict[str, Tensor]:
    """The state_dict of diffusers' AutoencoderKL, with our names; scale: its `scaling_factor`."""
    ours = _renamed(theirs, AUTOENCODER_NAMES)
    for (
        name,
        tensor,
    ) in ours.items():  # releases of 2022 hold the attention's matrices as 1x1 kernels
        if ".attention.attention." in name and tensor.ndim == 4:
            ours[name] = tensor[:, :, 0, 0]
    return ours | {"scale": torch.tensor(scale)}


def text_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of transformers' CLIPTextModel, with our names."""
    kept = {k: v for k, v in theirs.items() if not k.endswith("position_ids")}
    return _renamed(kept, TEXT_NAMES)


def bert_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of transformers' BertModel, with our names: one segment, and no pooler."""
    ours = _renamed(theirs, BERT_NAMES)
    segment = ours["embeddings.token_type_embeddings.weight"][0]  # the same for every token
    kept = {k: v for k, v in ours.items() if not k.startswith(("pooler", "embeddings", "cls"))}
    return kept | {"position.weight": kept["position.weight"] + segment}


def _renamed(theirs: Mapping[str, Tensor], names: list[tuple[str, str]]) -> dict[str, Tensor]:
    ours = {}
    for name, tensor in theirs.items():
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        ours[name] = tensor
    return ours
