"""Exercise 10: pictures for the screen."""

import torch

from diffusion_lib.checks._call import call
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge


def right(images):
    low, high = -1, 1
    x = images.clamp(low, high)
    shades = ((x - low) / (high - low) * 255).nan_to_num(0)
    return (shades.round().long() % 256).to(torch.uint8)


TABLE = Table(
    right,
    """
own range | -1, 1 -> images.amin((1, 2, 3), True), images.amax((1, 2, 3), True)
own range | -1, 1 -> (y := images.clamp(-1, 1)).amin((1, 2, 3), True), y.amax((1, 2, 3), True)
    each picture is stretched by its own minimum and maximum: a night becomes as bright as snow
range of each channel | -1, 1 -> images.amin((2, 3), True), images.amax((2, 3), True)
    each colour channel is stretched by itself: red, green and blue drift apart
range of the batch | -1, 1 -> images.min(), images.max()
    the batch's minimum and maximum decide: a picture's colours depend on its neighbours
cut, not rounded | .round() ->
    the fraction is cut off, which makes everything half a shade darker: round
not clamped | .clamp(low, high) ->
clamped from below only | (low, high) -> (min=low)
clamped from above only | (low, high) -> (max=high)
    values beyond [-1, 1] wrap around: too bright turns black, too dark white. Clamp at both ends
0 to 1 assumed | -1, 1 -> 0, 1
0 to 1 assumed | (x - low) / (high - low) -> x
    the pictures lie in [-1, 1], not in [0, 1]
scaled by 128 | * 255 -> * 256
scaled by 128 | * 255 -> * 256).clamp(max=255
scaled by 127 | * 255 -> * 254
not halved | / (high - low) ->
not halved | / (high - low) * 255 -> * 255).clamp(max=255
    from -1 to 1 are 255 shades up, so the factor is 127.5
negative | (x - low) -> (high - x)
    this is the negative: -1 is black
dtype
    picture files take torch.uint8
""",
)


@exercise(
    10,
    "A dull painter looks brilliant",
    'notebook 04, "Something to learn"',
    "shade = round( (clamp(x, -1, 1) + 1) · 127.5 )",
    "What is dull looks dull.",
)
def picture_range(answer) -> None:
    """answer(images) -> uint8 of the same shape. images: (B, 3, H, W), nominally in [-1, 1]."""
    generator = torch.Generator().manual_seed(10)

    def pictures(low, high, *shape):
        """Of shades from low to high, none of them near a half, where rounding is a matter of taste."""
        shades = torch.randint(low, high, shape, generator=generator)
        shades = shades + 0.8 * torch.rand(shape, generator=generator) - 0.4
        return shades / 127.5 - 1

    wild, dark = pictures(-90, 340, 4, 3, 5, 6), pictures(12, 50, 2, 3, 4, 4)
    mixed, flat = torch.cat([dark, wild[:1, :, :4, :4]]), torch.full((1, 3, 2, 2), 0.3)
    cases = [(wild,), (mixed,), (flat,)]
    judge(answer, cases, TABLE, "picture_range", atol=1e-6, guards="double row view")
    dtype = call(answer, flat, name="picture_range").dtype
    TABLE.demand(dtype == torch.uint8, "dtype", f"The numbers are right, but they are {dtype}.")
