"""Exercise 28: the scale of the latents."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from diffusion_lib.checks._call import call, kind
from diffusion_lib.checks._compare import as_tensor, close
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, judge
from diffusion_lib.checks._wrong import Wrong, stopped, unknown


def right(encode, decode, batches):
    parts = [encode(x) for x in batches]
    latents = torch.cat(parts)  # (N, C, h, w)
    deviation = latents.std()
    return lambda x: encode(x) / deviation, lambda z: decode(z * deviation)


TABLE = Table(
    right,
    """
forgotten | latents.std() -> 1.0
    nothing is scaled: the latents are as wide as before
variance | latents.std() -> latents.var()
    the latents are divided by their variance; the standard deviation is its root
upside down | encode(x) / deviation -> encode(x) * deviation ;; z * deviation -> z / deviation
    the latents are multiplied by their deviation: what was too wide becomes wider still. Divide
decode unscaled | z * deviation -> z
    `encode` scales, but `decode` hands on scaled latents: the old `decode` wants them as they were
encode unscaled | encode(x) / deviation -> encode(x)
    `decode` takes a scale back that `encode` never put on
decode scaled like encode | z * deviation -> z / deviation
    `decode` scales in the same direction as `encode`; it must take the scale back
deviation of the pictures | torch.cat(parts) -> torch.cat(list(batches))
    this is the deviation of the pictures; that of their latents counts
first batch | in batches] -> in list(batches)[:1]]
last batch | in batches] -> in list(batches)[-1:]]
    one batch decides alone; measure the latents of all batches
mean of deviations | latents.std() -> torch.stack([p.std() for p in parts]).mean()
mean of deviations | latents.std() -> torch.stack([p.var() for p in parts]).mean().sqrt()
mean of deviations | latents.std() -> (sum(p.var() * len(p) for p in parts) / len(latents)).sqrt()
    each batch is measured by itself, and then the mean taken: how much the batches differ from each
    other is lost. Put all latents together first
each channel | latents.std() -> latents.std((0, 2, 3), keepdim=True)
    each channel has a deviation of its own; one number for all is wanted
each number | latents.std() -> latents.std(0)
    each of a picture's numbers has a deviation of its own; one number for all is wanted
each picture | latents.std() -> latents.flatten(1).std(1).mean()
    each picture is measured by itself, and then the mean taken: how much the pictures differ from
    each other is lost. Put all latents together first
measured anew | encode(x) / deviation -> (y := encode(x)) / y.std()
measured anew | encode(x) / deviation -> (y := encode(x)) / y.flatten(1).std(1)[:, None, None, None]
    what is encoded is measured each time anew, so that bright and pale pictures become alike, and
    nobody can decode them; measure once
around zero | latents.std() -> latents.square().mean().sqrt()
    this is the distance from 0; the standard deviation is that from the mean
centred | encode(x) / deviation -> (encode(x) - latents.mean()) / deviation
centred | encode(x) / deviation -> (encode(x) - latents.mean()) / deviation ;; z * deviation -> z * deviation + latents.mean()
    the mean is taken off as well; one factor alone is wanted
largest | latents.std() -> latents.abs().max()
    the largest latent becomes 1; their standard deviation should
gone through once
    `batches` may be a generator, which can be gone through only once: keep what you need of it
""",
)


def two_rows(answer: Callable, x: Tensor, z: Tensor, batches: Iterable, width: float) -> Tensor:
    """What the two functions of an answer say: encode(x) and decode(z), flattened.

    width: of the latents that patches of 2x2 pixels are turned into, by a linear map.
    """
    matrix = width * torch.randn(12, 12, generator=torch.Generator().manual_seed(280))

    def encode(x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 12, H / 2, W / 2)
        return torch.einsum("ij,bjhw->bihw", matrix, pixel_unshuffle(x, 2)) + 0.7

    def decode(z: Tensor) -> Tensor:
        return pixel_shuffle(torch.einsum("ji,bjhw->bihw", matrix, z.sin() + 2 * z), 2)

    pair = call(answer, encode, decode, batches, name="latent_scale")
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(map(callable, pair)):
        raise Wrong(
            f"`latent_scale` should return two functions, and returned {kind(pair)}.",
            "none" if pair is None else "type",
        )
    rows = []
    for f, given, name in zip(pair, (x, z), ("encode", "decode")):
        out = as_tensor(call(f, given, name=name), name)
        if out.numel() != given.numel():
            raise unknown(f"Your `{name}` turns {tuple(given.shape)} into {tuple(out.shape)}.")
        rows.append(out.flatten())
    return torch.stack(rows)


@exercise(
    28,
    "Everything comes out dull",
    'notebook 10, "The scale factor"',
    "z = encode(x) / s,   x = decode(z · s),   s: the standard deviation of all latents",
    "Latents as wide as the noise that is to cover them.",
)
def latent_scale(answer) -> None:
    """answer(encode, decode, batches) -> (encode, decode), with latents of deviation 1."""
    generator = torch.Generator().manual_seed(28)

    def case(width: float, n: int) -> tuple:
        def pictures(n: int, mean: float = 0.0, spread: float = 0.4) -> Tensor:
            return mean + spread * torch.randn(n, 3, 8, 8, generator=generator)

        z = torch.randn(n, 12, 4, 4, generator=generator)
        batches = [pictures(60, -0.5), pictures(60, 0.5, 0.2), pictures(25, 0.9)]
        return pictures(n, 0.2), z, batches, width

    def observe(answer: Callable) -> Callable[..., Tensor]:
        return partial(two_rows, answer)

    cases = [case(1.3, 4), case(0.05, 2), case(0.4, 1)]
    judge(answer, cases, TABLE, "latent_scale", 3e-4, ["encode(x)", "decode(z)"], observe)
    reason = "`latent_scale` is right, but not where `batches` is a generator: "
    x, z, batches, width = cases[0]
    want = two_rows(right, *cases[0])
    try:
        got = two_rows(answer, x, z, iter(batches), width)
    except Wrong as wrong:
        if not (error := wrong.__cause__):
            raise
        raise TABLE.wrong("gone through once", reason + stopped(None, error)) from error
    TABLE.demand(close(got, want, 3e-4), "gone through once", f"{reason}then the scale is another.")
