"""Key maps from the field's checkpoints to this library's classes.

The tensors are the same, only their names differ: a UNet of diffusers and a CLIP text model of
transformers load strictly into `UNet` and `TextEncoder`. Newer releases and older ones are served.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from diffusion_lib.text import TextConfig
from diffusion_lib.unet import UNetConfig

# Stable Diffusion v1: 859,520,964 parameters in the UNet, CLIP ViT-L/14's text encoder.
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


def unet_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of diffusers' UNet2DConditionModel, with our names."""
    return _renamed(theirs, UNET_NAMES)


def text_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of transformers' CLIPTextModel, with our names."""
    kept = {k: v for k, v in theirs.items() if not k.endswith("position_ids")}
    return _renamed(kept, TEXT_NAMES)


def _renamed(theirs: Mapping[str, Tensor], names: list[tuple[str, str]]) -> dict[str, Tensor]:
    ours = {}
    for name, tensor in theirs.items():
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        ours[name] = tensor
    return ours
