"""Exercise 30: pictures with alpha, made smaller and put on a background."""

import torch
from torch.nn.functional import avg_pool2d

from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge


def right(pictures, colours, k):
    colour = pictures[:, :3].double() / 127.5 - 1
    alpha = pictures[:, 3:].double() / 255
    ground = colours[:, :, None, None]
    figure = avg_pool2d(alpha * colour, k)
    alpha = avg_pool2d(alpha, k)
    return (figure + (1 - alpha) * ground).float()


TABLE = Table(
    right,
    """
colours averaged alone | (alpha * colour, k) -> (colour, k) ;; figure + -> alpha * figure +
    the colours are averaged without their alpha, so that pixels which nobody sees mix in: a rim.
    What does not show must not count
as if premultiplied | figure + (1 - alpha) * ground -> avg_pool2d(colour, k) + (1 - alpha) * (ground + 1)
as if premultiplied | figure + (1 - alpha) * ground -> (avg_pool2d(colour, k) + (1 - alpha) * (ground + 1)).clamp(-1, 1)
as if premultiplied | figure + (1 - alpha) * ground -> avg_pool2d(colour, k) + (1 - alpha) * ground
as if premultiplied | figure + (1 - alpha) * ground -> (avg_pool2d(colour, k) + (1 - alpha) * ground).clamp(-1, 1)
    the colours are added as if they had been multiplied by alpha already; these are straight
alpha twice | figure + -> alpha * figure +
alpha twice | alpha * colour -> alpha * alpha * colour
    the colours are multiplied by alpha twice, before the averaging and after it, or in one place
divided again | figure + -> (figure / alpha.clamp(min=1e-9)) +
    the figure is divided by alpha again; the averaged product is what shows of it
one pixel of each | avg_pool2d(alpha * colour, k) -> (alpha * colour)[..., ::k, ::k] ;; avg_pool2d(alpha, k) -> alpha[..., ::k, ::k]
    only one pixel of each k x k is taken; average them all
0 to 255 | .double() / 255 -> .double()
    alpha lies in 0..255 here; divide it by 255
-1 to 1 | .double() / 255 -> .double() / 127.5 - 1
    alpha is a share, from 0 to 1; the colours alone are moved to [-1, 1]
hard edge | .double() / 255 -> .double().gt(127).double()
hard edge | .double() / 255 -> .double().ge(128).double()
hard edge | .double() / 255 -> .double().gt(0).double()
hard edge | .double() / 255 -> .double().eq(255).double()
    alpha is made 0 or 1: the soft edges are lost
upside down | pictures[:, 3:].double() / 255 -> 1 - pictures[:, 3:].double() / 255
    figure and background have changed places: alpha is the share of the figure
no alpha | alpha * colour -> colour ;; (1 - alpha) -> 0
    alpha is not used: the background never shows
no background | + (1 - alpha) * ground ->
    the background is left out
background in full | (1 - alpha) * ground -> ground
    the background is added in full; it shows only by 1 - alpha
pictures from 0 to 1 | / 127.5 - 1 -> / 255
    the picture's colours lie in [0, 1], and the background's in [-1, 1]: both must speak one
    language
result from 0 to 1 | (figure + (1 - alpha) * ground) -> ((figure + (1 - alpha) * ground + 1) / 2)
    the result lies in [0, 1]; [-1, 1] is wanted
alpha first | pictures[:, :3] -> pictures[:, 1:] ;; pictures[:, 3:] -> pictures[:, :1]
    alpha is the last of the four channels
not made smaller | (alpha * colour, k) -> (alpha * colour, 1) ;; (alpha, k) -> (alpha, 1)
    the picture is as large as before: each k x k pixels become one
""",
)


@exercise(
    30,
    "A dark rim around everything",
    'notebook 10, "Real pictures"',
    "y = mean( alpha · colour + (1 - alpha) · background )",
    "What nobody sees does not count.",
)
def straight_alpha(answer) -> None:
    """answer(pictures, colours, k) -> (B, 3, H / k, W / k). pictures: uint8 (B, 4, H, W)."""
    generator = torch.Generator().manual_seed(30)

    def case(n: int, size: tuple[int, int], k: int) -> tuple:
        pictures = torch.randint(256, (n, 4, *size), generator=generator).to(torch.uint8)
        pictures[:, 3, : size[0] // 2, :2] = 0  # nothing, all, and as it is
        pictures[:, 3, size[0] // 2 :, -2:] = 255
        return pictures, 2 * torch.rand(n, 3, generator=generator) - 1, k

    cases = [case(3, (8, 12), 4), case(2, (6, 6), 2), case(1, (4, 6), 1)]
    judge(answer, cases, TABLE, "straight_alpha", atol=1e-5, guards="row view")
