"""Puts a finished model among the shipped ones, its weights in half precision.

python tools/ship.py runs/emoji.model.safetensors emoji
"""

import sys

from diffusion_lib.checkpoints import finished, load_checkpoint, save_checkpoint
from diffusion_lib.pipeline import PRETRAINED


def main(source: str, name: str) -> None:
    checkpoint = finished(load_checkpoint(source))
    checkpoint.tensors = {k: v.half() for k, v in checkpoint.tensors.items()}
    path = PRETRAINED / f"{name}.safetensors"
    save_checkpoint(path, checkpoint)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
