"""Data sets that need no download."""

from diffusion_lib.data.arrays import ArrayImages
from diffusion_lib.data.emoji import Emoji
from diffusion_lib.data.folder import Folder
from diffusion_lib.data.sprites import (
    ACCESSORIES,
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    FACINGS,
    HELD_OUT,
    KINDS,
    Attributes,
    Sprites,
    caption,
    parse,
)
