"""A small library for text-to-image diffusion, built step by step by the notebooks beside it."""

from diffusion_lib.course import course_config
from diffusion_lib.data import Sprites
from diffusion_lib.denoiser import Cond, Denoiser, guided
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
from diffusion_lib.training import load_checkpoint, save_checkpoint, shuffled, state_of, train
from diffusion_lib.unet import UNet, UNetConfig

__all__ = [
    "Cond",
    "Denoiser",
    "Schedule",
    "Sprites",
    "TextToImage",
    "UNet",
    "UNetConfig",
    "cosine_schedule",
    "course_config",
    "ddim",
    "dpm_solver",
    "flow_schedule",
    "guided",
    "heun",
    "last",
    "linear_schedule",
    "load_checkpoint",
    "load_pretrained",
    "save_checkpoint",
    "scaled_linear_schedule",
    "shuffled",
    "sigmoid_schedule",
    "state_of",
    "train",
    "zero_terminal_snr",
]
