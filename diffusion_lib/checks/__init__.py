"""What the exercises call: `checks.noise_schedule(your_function)` and so on.

A check prints one line if the answer is right, and raises `Wrong`, with the likely cause by name,
if it is not. It leaves random numbers, default dtype and inputs as they were. That of exercise
NN_name is in the module `name`; what all share is in those that begin with an underscore.
"""

from importlib import import_module
from pathlib import Path

from diffusion_lib.checks._patients import patients
from diffusion_lib.checks._wrong import Wrong

_names = [path.stem for path in Path(__file__).parent.glob("[!_]*.py")]
ALL = sorted(
    (getattr(import_module(f"{__name__}.{name}"), name) for name in _names),
    key=lambda check: check.about.number,
)
globals().update({check.__name__: check for check in ALL})

__all__ = ["ALL", "Wrong", "patients", *(check.__name__ for check in ALL)]
