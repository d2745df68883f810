"""A small library for text-to-image diffusion, built step by step by the notebooks beside it."""

import os

# Threads of torch that wait for each other by spinning slow a busy machine down, up to tenfold; those
# that give up soon do not. It must be set before torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from diffusion_lib.checkpoints import load_checkpoint, save_checkpoint, state_of
from diffusion_lib.conditions import Cond, VectorEncoder
from diffusion_lib.course import course_config
from diffusion_lib.data import Sprites
from diffusion_lib.denoiser import Denoiser, guided
from diffusion_lib.ideal import Ideal
from diffusion_lib.pipeline import TextToImage, load_pretrained
from diffusion_lib.sampling import ddim, dpm_solver, heun, last
from diffusion_lib.schedules import (
    Schedule,
    cosine_schedule,
    flow_schedule,
    linear_schedule,
    scaled_linear_schedule,
    sigmoid_schedule,
    zero_terminal_snr,
)
from diffusion_lib.training import shuffled, train
from diffusion_lib.unet import UNet, UNetConfig
