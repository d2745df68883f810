"""What the exercises call: `checks.noise_schedule(your_function)` and so on.

A check prints one line if the answer is right, and raises `Wrong`, with the likely cause by name,
if it is not. It leaves random numbers, default dtype and inputs as they were.
"""

from diffusion_lib.checks._core import Wrong
from diffusion_lib.checks.attention import self_attention, words
from diffusion_lib.checks.diagnosing import diagnosis, patients
from diffusion_lib.checks.dropping import context_dropout
from diffusion_lib.checks.embedding import time_embedding
from diffusion_lib.checks.files import checkpoint, dataset
from diffusion_lib.checks.forward import cosine, forward_process, noise_schedule
from diffusion_lib.checks.learning import faster_training, moving_average, training_recipe
from diffusion_lib.checks.network import any_size, shortcut
from diffusion_lib.checks.painting import inpainting, sample_grid
from diffusion_lib.checks.reverse import network_time, reverse_step, sampling_loop
from diffusion_lib.checks.seeing import film, picture_range
from diffusion_lib.checks.solvers import ddim, dpm_solver
from diffusion_lib.checks.steering import guidance
from diffusion_lib.checks.velocity import v_prediction

ALL = (  # in the exercises' order
    noise_schedule,
    forward_process,
    reverse_step,
    sampling_loop,
    network_time,
    training_recipe,
    context_dropout,
    shortcut,
    any_size,
    picture_range,
    checkpoint,
    dataset,
    time_embedding,
    cosine,
    moving_average,
    film,
    sample_grid,
    self_attention,
    guidance,
    words,
    v_prediction,
    inpainting,
    ddim,
    dpm_solver,
    faster_training,
    diagnosis,
)

__all__ = ["ALL", "Wrong", "patients", *(check.__name__ for check in ALL)]
