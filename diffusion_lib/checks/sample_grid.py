"""Exercise 17: a sheet of samples while the training goes on."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from diffusion_lib.checks._call import call, kind
from diffusion_lib.checks._compare import close, difference
from diffusion_lib.checks._folder import elsewhere
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, tell
from diffusion_lib.checks._wrong import Wrong, unknown
from diffusion_lib.images import tile


def right(images):
    return torch.tensor(np.asarray(tile(images))) / 255


SHADE = 1.1 / 255  # a difference of one shade is none

TABLE = Table(
    right,
    """
negative values are black | tile(images) -> tile(images.clamp(0, 1) * 2 - 1)
    the pictures lie in [-1, 1], and you treat them as if in [0, 1]: what is below 0 is black
made for [0, 1] | tile(images) -> tile((images + 1) / 2)
    `tile` takes pictures in [-1, 1]; yours were brought to [0, 1] before, so they are pale
first picture alone | tile(images) -> tile(images[:1])
    the sheet holds the first picture only
stretched | tile(images) -> tile((images - images.min()) / (images.max() - images.min()) * 2 - 1)
    you stretch the pictures to their own least and greatest value, so their colours lie
no folder
    the folder does not exist yet: the hook makes it, and those above it
folder exists
    the folder exists from the second call on, and that is no error
changed noise
    the noise was changed on its way
new noise
    new noise at each call: then the pictures differ by chance, and one cannot see what the model has
    learned in between
not in eval mode
    nobody switches it to evaluation: layers like dropout behave otherwise in training, so the pictures
    are worse than the model, and change from call to call
gradients kept
    nobody switches them off: every step of a sampler is then kept in memory for a backward pass that
    never comes
left in eval mode
    nobody puts the model back, or only its outermost module (`model.train()` reaches all): it trains
    on without its dropout
random numbers
    the hook draws random numbers itself, so a run with pictures is another run than one without
random numbers of paint
    the state of the random numbers is not put back, or it was taken when some had been drawn already:
    a run with pictures is another run than one without
global seed
    all that training draws after a picture is then the same each time: do not seed, put the old state
    back
model changed
    a hook leaves the weights as they are, and able to learn (requires_grad)
same name
    each call writes over the file of the one before
a file a picture
    each picture has a file of its own
no leading zeros
    the step is written without leading zeros: files sorted by name are not in the order of their steps
""",
)


class Seen(NamedTuple):
    """What `paint` was called with, and in what circumstances."""

    model: Any
    noise: Any
    training: bool
    grad: bool


def painted(model: nn.Module, noise: Tensor) -> Tensor:
    """The pictures that model paints in evaluation mode."""
    with torch.no_grad():
        return 0.7 * torch.tanh(copy.deepcopy(model).eval()(noise))


def called(answer, paint, model: nn.Module, noise: Tensor, folder: Path, step: int) -> Any:
    """answer(...), with the errors of files in words."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        result = call(answer, paint, model, noise, folder, step, name="sample_grid")
    except Wrong as wrong:
        if wrong.mistake == "global seed":
            raise TABLE.wrong("global seed", "`sample_grid` sets the global seed.") from None
        if isinstance(wrong.__cause__, FileNotFoundError) and not folder.is_dir():
            raise TABLE.wrong("no folder", wrong.reason) from None
        if isinstance(wrong.__cause__, FileExistsError):
            raise TABLE.wrong("folder exists", wrong.reason) from None
        raise
    same = all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    learns = all(p.requires_grad for p in model.parameters())
    reason = "After `sample_grid` the model's weights are others, or they learn no more."
    TABLE.demand(same and learns, "model changed", reason)
    return result


def check_manners(seen: list[Seen], model: nn.Module, noise: Tensor) -> None:
    """Whether one call of the hook asked `paint` as wanted, and left training as it was."""
    if len(seen) != 1:
        raise unknown(f"`sample_grid` called `paint` {len(seen)} times, expected once.")
    (asked,) = seen
    if not isinstance(asked.noise, Tensor) or not isinstance(asked.model, nn.Module):
        raise Wrong("`paint` takes the model and the noise, in this order.", "type")
    if not torch.equal(asked.noise, noise):
        reason = "`paint` was not given the very noise that `sample_grid` was given."
        changed = asked.noise.shape != noise.shape or (asked.noise * noise).mean() > 0.3
        raise TABLE.wrong("changed noise" if changed else "new noise", reason)
    reason = "The model was in training mode when `paint` was called."
    TABLE.demand(not asked.training, "not in eval mode", reason)
    reason = "Gradients were switched on when `paint` was called."
    TABLE.demand(not asked.grad, "gradients kept", reason)
    left = [name or "the model" for name, m in model.named_modules() if not m.training]
    reason = f"After `sample_grid` {', '.join(left)} is in evaluation mode, expected training mode."
    TABLE.demand(not left, "left in eval mode", reason)


def check_files(kept: list[tuple[int, Any, Tensor]], folder: Path) -> None:
    """Whether there is one file a call, by the name of its step, which was returned."""
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    want = [f"{step:06d}.png" for step, *_ in kept]
    if files != want:
        reason = (
            f"After the steps {', '.join(str(step) for step, *_ in kept)} the folder holds "
            f"{', '.join(files) or 'nothing'}; expected {', '.join(want)}."
        )
        digits = sorted("".join(filter(str.isdigit, Path(file).stem)) for file in files)
        TABLE.demand(len(files) != 1, "same name", reason)
        TABLE.demand(len(files) != len(kept[0][2]) * len(kept), "a file a picture", reason)
        short = sorted(str(step) for step, *_ in kept)
        TABLE.demand(digits != short, "no leading zeros", reason)
        raise unknown(reason)
    for (step, result, _), name in zip(kept, want):
        if not isinstance(result, str | Path):
            missing = "none" if result is None else "type"
            raise Wrong(f"Wanted is the file's path; it returned {kind(result)}.", missing)
        if Path(result).resolve() != (folder / name).resolve():
            raise unknown(f"At step {step} it wrote {name}, and returned {Path(result).name!r}.")


def check_sheets(kept: list[tuple[int, Any, Tensor]], folder: Path) -> None:
    """Whether the files hold tile(images)."""
    sheets, cases = [], [(images,) for *_, images in kept]
    for step, *_ in kept:
        with Image.open(folder / f"{step:06d}.png") as image:
            if image.format != "PNG":
                raise unknown(f"{step:06d}.png is a {image.format} file inside, expected a PNG.")
            sheets.append(torch.tensor(np.asarray(image.convert("RGB"))) / 255)
    for sheet, case in zip(sheets, cases):
        if not close(sheet, right(*case), SHADE):
            reason = difference(sheet, right(*case), SHADE, "the sheet").replace("returned", "has")
            reason = f"The sheet is not tile(images). {reason}"
            tell(reason, sheets, cases, TABLE, lambda f, case: f(*case), SHADE)


@exercise(
    17,
    "No picture before the end",
    'notebook 04, "A real run"',
    solved="One sees the model learn, and the training does not notice.",
)
def sample_grid(answer) -> None:
    """answer(paint, model, noise, folder, step) -> the path of folder/{step:06d}.png."""
    generator = torch.Generator().manual_seed(17)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.4), nn.Conv2d(8, 3, 1))
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.4
    noise, kept, seen = torch.randn(5, 3, 6, 8, generator=generator), [], []

    def paint(model: nn.Module, noise: Tensor) -> Tensor:
        usable = isinstance(model, nn.Module) and isinstance(noise, Tensor)
        training = usable and any(m.training for m in model.modules())
        seen.append(Seen(model, noise, training, torch.is_grad_enabled()))
        return painted(model, noise) if usable else torch.zeros(5, 3, 6, 8)

    with elsewhere() as root:
        folder = root / "runs" / "first"
        for step in (50, 200, 1500):
            model[0].weight.data += 0.1 * torch.randn(model[0].weight.shape, generator=generator)
            seen.clear()
            before = torch.get_rng_state()
            result = called(answer, paint, model, noise, folder, step)
            check_manners(seen, model, noise)
            reason = "After `sample_grid` torch's next global random number is another than before."
            same = torch.equal(before, torch.get_rng_state())
            TABLE.demand(same, "random numbers", reason)
            kept.append((step, result, painted(model, noise)))
        check_files(kept, folder)
        check_sheets(kept, folder)

        def draws(model: nn.Module, noise: Tensor) -> Tensor:
            return painted(model, noise + torch.randn_like(noise))

        called(answer, draws, model, noise, folder, 2000)
        reason = (
            "With a `paint` that draws random numbers, torch's next one is another than without."
        )
        same = torch.equal(before, torch.get_rng_state())
        TABLE.demand(same, "random numbers of paint", reason)
