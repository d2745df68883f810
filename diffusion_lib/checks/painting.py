"""Checks of what is painted with a model: inpainting, and grids of samples while it trains."""

import copy
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from diffusion_lib.checks._core import Mistake, Wrong, call, exercise, judge
from diffusion_lib.images import tile
from diffusion_lib.schedules import Schedule, cosine_schedule, flow_schedule, linear_schedule

# --- 22 ------------------------------------------------------------------------------------------


class _Moment(NamedTuple):
    """One update of the sampler, from t to s: all that a way of pasting may look at."""

    x: Tensor  # arrived at s, not pasted yet
    eps: Tensor  # the noise that the update saw in x_t
    known: Tensor
    noise: Tensor
    t: tuple[Tensor, Tensor]  # alpha, sigma
    s: tuple[Tensor, Tensor]
    end: bool


def _guess(x: Tensor, t: Any, T: int) -> Tensor:
    """A stand-in for a network, which looks at the neighbours, so that a paste is felt next door."""
    t = torch.as_tensor(t, device=x.device).reshape(-1, 1, 1, 1) / T
    near = x.roll(1, -1) + x.roll(1, -2) - 0.5 * x.roll(2, -1) + 0.3 * x.flip(-1)
    return torch.tanh((0.4 + 0.6 * (1 - t)) * x + 0.5 * near + 0.2 * t)


def _pasting(
    paste, invert: bool = False, before: bool = False, estimate: bool = False, early: bool = False
):
    """The sampler that puts `paste(moment)` where the mask is 0; None leaves x as it is."""

    def painted(denoise, schedule: Schedule, x, known, mask, steps: int, noise) -> Tensor:
        mask = 1 - mask if invert else mask
        times = schedule.timesteps(steps)
        for t, s in zip(times, times[1:]):
            at_t, at_s = ((schedule.alpha[i], schedule.sigma[i]) for i in (t, s))
            if before:
                x = mask * x + (1 - mask) * (at_t[0] * known + at_t[1] * noise)
            x0 = denoise(x, s if early else t)
            if estimate:
                x0 = mask * x0 + (1 - mask) * known
            eps = (x - at_t[0] * x0) / at_t[1]
            x = at_s[0] * x0 + at_s[1] * eps
            new = paste(_Moment(x, eps, known, noise, at_t, at_s, s == 0))
            x = x if new is None else mask * x + (1 - mask) * new
        return x

    return painted


def _noised(m: _Moment, late: bool = False) -> Tensor:
    alpha, sigma = m.t if late else m.s
    return alpha * m.known + sigma * m.noise


_NEVER = _pasting(lambda m: None)
_right = _pasting(_noised)

INPAINTING_MISTAKES = [
    Mistake(
        "only at the end",
        "the known picture is pasted at the end alone: while painting, the network never saw it, so "
        "what it painted does not fit",
        _pasting(lambda m: m.known if m.end else None),
    ),
    Mistake("nothing pasted", "the known picture is not pasted anywhere", _NEVER),
    Mistake(
        "clean at each step",
        "the known picture is pasted clean at each step; the task is to paste it noised to level s, so "
        "that all of x has one noise level, as in training (here the clean paste may look well too)",
        _pasting(lambda m: m.known),
    ),
    Mistake(
        "asked at s",
        "the network is asked at time s, where x is still as noisy as at t: ask at t, then step to s",
        _pasting(_noised, early=True),
    ),
    Mistake(
        "noised at t",
        "the known part gets the noise of time t, where the step began; x has arrived at s",
        _pasting(lambda m: _noised(m, late=True)),
    ),
    Mistake(
        "mask inverted",
        "the mask is the wrong way round: 1 is where something new is painted",
        _pasting(_noised, invert=True),
    ),
    Mistake(
        "left noisy at the end",
        "the last paste has noise in it: at time 0 the known part is the clean picture",
        _pasting(lambda m: _noised(m, late=m.end)),
    ),
    Mistake(
        "not pasted at the end",
        "the last step is not followed by a paste, so the network's copy of the known part is "
        "returned in place of the known picture",
        _pasting(lambda m: None if m.end else _noised(m)),
    ),
    Mistake(
        "pasted before the update",
        "you paste at t, before the update, and nothing is pasted after the last one: paste at s, "
        "after the update",
        _pasting(lambda m: None, before=True),
    ),
    Mistake(
        "pasted before the update",
        "you paste at t, before the update; the task is to paste at s, after it (the first x stays "
        "as it is given)",
        _pasting(lambda m: m.known if m.end else None, before=True),
    ),
    Mistake(
        "exchanged",
        "alpha and sigma have changed places: the known picture is scaled by alpha_s, the noise by "
        "sigma_s",
        _pasting(lambda m: m.s[1] * m.known + m.s[0] * m.noise),
    ),
    Mistake(
        "picture does not fade",
        "the noise is added to the known picture, which is not scaled: it must fade by alpha_s",
        _pasting(lambda m: m.known + m.s[1] * m.noise),
    ),
    Mistake(
        "variance",
        "the noise is scaled by its variance, sigma², not by its standard deviation, sigma",
        _pasting(lambda m: m.s[0] * m.known + m.s[1] ** 2 * m.noise),
    ),
    Mistake(
        "no noise",
        "the known picture fades by alpha_s, but no noise is added to it",
        _pasting(lambda m: m.s[0] * m.known),
    ),
    Mistake(
        "noise of the sampler",
        "the known part gets the noise that the sampler sees in x, not the one that you are given",
        _pasting(lambda m: m.s[0] * m.known + m.s[1] * m.eps),
    ),
    Mistake(
        "into the estimate",
        "you paste the known picture into the estimate of x_0; here it is to be pasted, noised, "
        "into x, after the update",
        _pasting(lambda m: None, estimate=True),
    ),
]


@exercise(
    22,
    "The new half does not know the old one",
    'notebook 05, "The noise is a choice"',
    "x_s ← mask · x_s + (1 - mask) · (alpha_s · known + sigma_s · noise),   after each step to s",
    "What is painted fits what was there.",
)
def inpainting(answer) -> None:
    """answer(denoise, schedule, x, known, mask, steps, noise) -> (B, C, H, W). mask: 1 = new."""
    generator = torch.Generator().manual_seed(22)

    def case(schedule: Schedule, steps: int, *shape: int, dtype=torch.float32) -> tuple:
        x, noise = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
        known = (torch.rand(shape, generator=generator) * 3 - 1.5).to(dtype)
        mask = (torch.rand(shape[0], 1, *shape[2:], generator=generator) < 0.5).to(dtype)
        denoise = lambda x, t: _guess(x, t, schedule.T)  # noqa: E731
        return denoise, schedule, x, known, mask, steps, noise

    cases = [
        case(linear_schedule(60, 0.002, 0.1), 6, 2, 3, 8, 8),
        case(cosine_schedule(100), 9, 3, 1, 4, 10),
        case(flow_schedule(20), 4, 1, 4, 6, 6),
        case(linear_schedule(30, 0.01, 0.2), 5, 2, 3, 5, 7, dtype=torch.float64),
    ]
    before = torch.get_rng_state()
    call(answer, *cases[0], name="inpainting")
    if not torch.equal(before, torch.get_rng_state()):
        raise Wrong(
            "`inpainting` draws random numbers of its own: called twice, it would paint two "
            "pictures.",
            "new noise is drawn for the known part, in place of the one that you are given",
            "draws its own noise",
        )
    judge(answer, cases, _right, INPAINTING_MISTAKES, name="inpainting")
    ends = [case(cosine_schedule(40), 1, 2, 3, 4, 4), case(flow_schedule(7), 7, 1, 2, 3, 3)]
    judge(answer, ends, _right, name="inpainting")


# --- 17 ------------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """What `paint` was called with, and in what circumstances."""

    model: Any
    noise: Any
    training: bool
    grad: bool


class _Kept(NamedTuple):
    """What one call of the learner's hook left behind."""

    step: int
    result: Any
    want: Tensor  # the pictures


def _painter(generator: torch.Generator) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.4), nn.Conv2d(8, 3, 1))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.4)
    return model.train()


def _painted(model: nn.Module, noise: Tensor) -> Tensor:
    """The pictures that model paints in evaluation mode."""
    mode = model.training
    with torch.no_grad():
        images = 0.7 * torch.tanh(model.eval()(noise))
    model.train(mode)
    return images


def _called(answer, paint, model: nn.Module, noise: Tensor, folder: Path, step: int) -> Any:
    """answer(...), with the two errors of files in words."""
    try:
        return call(answer, paint, model, noise, folder, step, name="sample_grid")
    except Wrong as wrong:
        if wrong.mistake == "global seed":
            wrong.reason = "`sample_grid` sets the global seed (torch.manual_seed)."
            wrong.cause = (
                "all that training draws after a picture is then the same each time: do not seed, put "
                "the old state back"
            )
        if isinstance(wrong.__cause__, FileNotFoundError) and not folder.is_dir():
            wrong.cause, wrong.mistake = (
                "the folder does not exist yet: the hook makes it, and those above it",
                "no folder",
            )
        if isinstance(wrong.__cause__, FileExistsError):
            wrong.cause, wrong.mistake = (
                "the folder exists from the second call on, and that is no error",
                "folder exists",
            )
        raise


def _behaved(seen: list[_Seen], model: nn.Module, noise: Tensor, moved: bool) -> None:
    """Whether one call of the hook asked `paint` as wanted, and left training as it was."""
    if len(seen) != 1:
        raise Wrong(f"`sample_grid` called `paint` {len(seen)} times, expected once.")
    (asked,) = seen
    if not isinstance(asked.noise, Tensor) or not isinstance(asked.model, nn.Module):
        raise Wrong("`paint` takes the model and the noise, in this order.")
    if not torch.equal(asked.noise, noise):
        reason = "`paint` was not given the very noise that `sample_grid` was given."
        if asked.noise.shape != noise.shape or (asked.noise * noise).mean() > 0.3:
            raise Wrong(reason, "the noise was changed on its way", "changed noise")
        raise Wrong(
            reason,
            "new noise at each call: then the pictures differ by chance, and one cannot see what the "
            "model has learned in between",
            "new noise",
        )
    if asked.training:
        raise Wrong(
            "The model was in training mode when `paint` was called.",
            "nobody switches it to evaluation: layers like dropout behave otherwise in training, so the pictures are worse than the "
            "model, and change from call to call",
            "not in eval mode",
        )
    if asked.grad:
        raise Wrong(
            "Gradients were switched on when `paint` was called.",
            "nobody switches them off: every step of a sampler is then kept in memory for a backward pass that never comes",
            "gradients kept",
        )
    if not all(m.training for m in model.modules()):
        raise Wrong(
            "After `sample_grid` the model is in evaluation mode, expected training mode.",
            "nobody puts the model back: from the first picture on it trains without its dropout",
            "left in eval mode",
        )
    if moved:
        raise Wrong(
            "After `sample_grid` torch's next global random number is another one than before it.",
            "the hook draws random numbers itself, so a run with pictures is another run than one "
            "without",
            "random numbers",
        )


def _named(kept: list[_Kept], folder: Path, pictures: int) -> None:
    """Whether there is one file a call, named by its step, and its path was returned."""
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    want = [f"{k.step:06d}.png" for k in kept]
    if files != want:
        steps = ", ".join(str(k.step) for k in kept)
        reason = (
            f"After the steps {steps} the folder holds {', '.join(files) or 'nothing'}; "
            f"expected {', '.join(want)}."
        )
        if len(files) == 1:
            raise Wrong(reason, "each call writes over the file of the one before", "same name")
        if len(files) == pictures * len(kept):
            raise Wrong(reason, "each picture has a file of its own", "a file a picture")
        digits = sorted("".join(c for c in Path(f).stem if c.isdigit()) for f in files)
        if digits == sorted(str(k.step) for k in kept):
            raise Wrong(
                reason,
                "the step is written without leading zeros: files sorted by name are not in the order of their steps",
                "no leading zeros",
            )
        raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")
    for k in kept:
        if k.result is None:
            raise Wrong("`sample_grid` returned None: is a `return` missing?", mistake="none")
        if not isinstance(k.result, str | Path):
            raise Wrong(
                f"`sample_grid` should return the file's path, and returned a "
                f"{type(k.result).__name__}.",
                mistake="type",
            )
        path = folder / f"{k.step:06d}.png"
        if Path(k.result).resolve() != path.resolve():
            where = Path(k.result)
            where = where.relative_to(folder) if where.is_relative_to(folder) else where
            raise Wrong(
                f"At step {k.step} `sample_grid` wrote <folder>/{path.name}, and returned "
                f"{'the folder itself' if Path(k.result) == folder else repr(str(where))}."
            )


def _same_sheet(got: np.ndarray, images: Tensor) -> bool:
    want = np.asarray(tile(images))
    return got.shape == want.shape and int(np.abs(got.astype(int) - want).max()) <= 1


def _drawn(kept: list[_Kept], folder: Path) -> None:
    """Whether the files hold tile(images)."""
    sheets = []
    for k in kept:
        path = folder / f"{k.step:06d}.png"
        with Image.open(path) as image:
            if image.format != "PNG":
                raise Wrong(f"{path.name} is a {image.format} file inside, expected a PNG.")
            sheets.append(np.asarray(image.convert("RGB")))
    if all(_same_sheet(sheet, k.want) for sheet, k in zip(sheets, kept)):
        return
    sheet, want = sheets[0], np.asarray(tile(kept[0].want))
    reason = f"The sheet of step {kept[0].step} is not tile(images): "
    if sheet.shape != want.shape:
        reason += "{} x {} pixels, expected {} x {}.".format(
            *sheet.shape[1::-1], *want.shape[1::-1]
        )
    else:
        off = np.abs(sheet.astype(int) - want).max(-1) > 1
        y, x = np.argwhere(off)[0] if off.any() else (0, 0)
        reason += (
            f"{int(off.sum())} of {off.size} pixels differ. The first, row {y}, column {x}: "
            f"yours {sheet[y, x].tolist()}, expected {want[y, x].tolist()}."
        )
    for name, cause, images in SHEETS:
        if all(_same_sheet(s, images(k.want)) for s, k in zip(sheets, kept)):
            raise Wrong(reason, cause, name)
    raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")


SHEETS = [
    (
        "negative values are black",
        "the pictures lie in [-1, 1], and you treat them as if in [0, 1]: what is below 0 is black",
        lambda images: images.clamp(0, 1) * 2 - 1,
    ),
    (
        "made for [0, 1]",
        "`tile` takes pictures in [-1, 1]; yours were brought to [0, 1] before, so they are pale",
        lambda images: (images + 1) / 2,
    ),
    ("first picture alone", "the sheet holds the first picture only", lambda images: images[:1]),
    (
        "stretched",
        "you stretch the pictures to their own least and greatest value, so their colours lie",
        lambda images: (images - images.min()) / (images.max() - images.min()) * 2 - 1,
    ),
]


@exercise(
    17,
    "No picture before the end",
    'notebook 04, "A real run"',
    solved="One sees the model learn, and the training does not notice.",
)
def sample_grid(answer) -> None:
    """answer(paint, model, noise, folder, step) -> the path of folder/{step:06d}.png."""
    generator = torch.Generator().manual_seed(17)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "runs" / "first"
        model = _painter(generator)
        noise = torch.randn(5, 3, 6, 8, generator=generator)
        seen: list[_Seen] = []

        def paint(model: nn.Module, noise: Tensor) -> Tensor:
            training = isinstance(model, nn.Module) and any(m.training for m in model.modules())
            seen.append(_Seen(model, noise, training, torch.is_grad_enabled()))
            usable = isinstance(model, nn.Module) and isinstance(noise, Tensor)
            return _painted(model, noise) if usable else torch.zeros(5, 3, 6, 8)

        kept = []
        for step in (50, 200, 1500):
            with torch.no_grad():
                model[0].weight.add_(0.1 * torch.randn(model[0].weight.shape, generator=generator))
            want = _painted(model, noise)
            seen.clear()
            before, weights = torch.get_rng_state(), copy.deepcopy(model.state_dict())
            result = _called(answer, paint, model, noise, folder, step)
            if any(
                not torch.equal(weights[k], v) for k, v in model.state_dict().items()
            ) or not all(p.requires_grad for p in model.parameters()):
                raise Wrong(
                    "After `sample_grid` the model's weights are others, or they learn no more "
                    "(requires_grad).",
                    mistake="model changed",
                )
            _behaved(seen, model, noise, not torch.equal(before, torch.get_rng_state()))
            kept.append(_Kept(step, result, want))
        _named(kept, folder, len(noise))
        _drawn(kept, folder)

        def draws(model: nn.Module, noise: Tensor) -> Tensor:
            return _painted(model, noise + torch.randn_like(noise))

        before = torch.get_rng_state()
        _called(answer, draws, model, noise, folder, 2000)
        if not torch.equal(before, torch.get_rng_state()):
            raise Wrong(
                "With a `paint` that draws random numbers, torch's next global random number is "
                "another one after `sample_grid` than before it.",
                "the state of the random numbers is not put back, so a run with pictures is another "
                "run than one without",
                "random numbers of paint",
            )
