"""Exercise 29: a draw that lets the gradient through."""

import torch
from torch import Tensor

from diffusion_lib.checks._call import call
from diffusion_lib.checks._compare import as_tensor, close, difference, fine
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table, tell
from diffusion_lib.checks._stages import use_of_generator
from diffusion_lib.checks._wrong import Wrong, unknown


def right(mean, log_variance, noise):
    return mean + (log_variance / 2).exp() * noise


TABLE = Table(
    right,
    """
variance | (log_variance / 2).exp() -> log_variance.exp()
    exp(log_variance) is the variance; noise is multiplied by the standard deviation, its root
taken as deviation | (log_variance / 2).exp() -> log_variance
taken as deviation | (log_variance / 2).exp() -> log_variance.abs()
    `log_variance` is used as if it were the deviation itself
taken as variance | (log_variance / 2).exp() -> log_variance.sqrt()
taken as variance | (log_variance / 2).exp() -> log_variance.abs().sqrt()
    `log_variance` is used as if it were the variance: its logarithm is to be undone first
taken as log deviation | log_variance / 2 -> log_variance * 2
    half of the logarithm, not twice it: the root of exp(a) is exp(a / 2)
upside down | (log_variance / 2).exp() -> (-log_variance / 2).exp()
    the deviation has become 1 / deviation: a minus too many
another base | (log_variance / 2).exp() -> 2 ** (log_variance / 2)
another base | (log_variance / 2).exp() -> 10 ** (log_variance / 2)
    the logarithm is the natural one: exp undoes it
mean left out | mean + -> 0 * mean +
    the cloud has its centre at 0: add the mean
mean subtracted | mean + -> -mean +
    the cloud has its centre at minus the mean
all scaled | mean + (log_variance / 2).exp() * noise -> (log_variance / 2).exp() * (mean + noise)
    the deviation multiplies the mean as well; it belongs to the noise alone
no deviation | (log_variance / 2).exp() * ->
    all clouds are equally wide: the noise is to be multiplied by the deviation
no noise
    this is the mean itself; a latent is to be *drawn*
uniform noise
    torch.rand is uniform from 0 to 1; torch.randn is standard normal
shared in the batch
    one draw serves all pictures of a batch: draw noise for each of them, in the shape of the mean
shared in a picture
    one draw serves several numbers of a picture: draw noise in the shape of the mean
generator ignored
    use the generator that you are given, itself, in the draw: no copy, and none of your own
generator set back
    your code seeds the generator, or sets it back: then every batch hears the same noise. Draw from
    it as it is
gradient of a draw
    a draw whose mean and deviation are handed to torch.normal has no way back: torch makes its
    gradient zero, and says nothing. Draw noise that depends on nothing, and compute the rest
cut off
    .detach(), .data, .item() or torch.no_grad() on the way cuts the gradient off
""",
)


def drawn(answer, mean: Tensor, log_variance: Tensor, seed: int | torch.Generator = 1) -> Tensor:
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    result = call(answer, mean, log_variance, generator, name="reparameterise")
    result = as_tensor(result, "reparameterise")
    if result.shape != mean.shape or result.dtype != mean.dtype:
        raise Wrong(
            f"`reparameterise` returned shape {tuple(result.shape)}, {result.dtype}, expected "
            f"{tuple(mean.shape)}, {mean.dtype}."
        )
    return result


def noise_of(answer, like: Tensor) -> Tensor:
    """The noise that the answer draws: its result where the mean is 0 and the deviation 1."""
    zero = torch.zeros_like(like)
    noise = drawn(answer, zero, zero)
    if not noise.any():  # of an answer that does not take exp, 0 is the deviation
        noise = drawn(answer, zero, torch.ones_like(like))
    return noise


def check_noise(answer) -> None:
    """That it is standard normal, and every number another."""
    shape = (400, 3, 4, 4)
    noise = noise_of(answer, torch.zeros(shape))
    if not noise.any():
        mean = torch.linspace(-1, 1, noise.numel()).view(shape)
        reason = "Where the mean is 0, so is all that you draw."
        TABLE.demand(not close(drawn(answer, mean, mean), mean), "no noise", reason)
        raise unknown(reason)
    first = noise[:1].expand_as(noise)
    same = torch.isclose(noise, first, atol=1e-6).float().mean()
    reason = "Two pictures of a batch hear the same noise."
    TABLE.demand(same < 0.5, "shared in the batch", reason)
    for axis, name in ((1, "channels"), (2, "rows"), (3, "columns")):
        same = torch.isclose(noise.diff(dim=axis), torch.zeros(()), atol=1e-6).float().mean()
        reason = f"The {name} of a latent hear the same noise."
        TABLE.demand(same < 0.5, "shared in a picture", reason)
    mean, std, size = noise.mean().item(), noise.std().item(), noise.abs().mean().item()
    reason = f"Your noise lies between {noise.min():.2f} and {noise.max():.2f}."
    TABLE.demand(noise.min() < 0 or noise.max() > 1, "uniform noise", reason)
    off = max(abs(mean), abs(std - 1), abs(size - (2 / torch.pi) ** 0.5))
    rows = noise.flatten(1)
    between = max(
        abs(rows.mean(1).std() * rows.shape[1] ** 0.5 - 1), abs(rows.mean(0).std() * 20 - 1)
    )
    if off > 0.04 or between > 0.4:
        raise unknown(
            f"Where mean and log variance are 0, {noise.numel()} numbers have mean {mean:.3f}, "
            f"deviation {std:.3f}, and mean size {size:.3f}; of independent standard normal noise "
            "these are 0, 1 and 0.798."
        )
    use = use_of_generator(lambda g: drawn(answer, torch.zeros(5, 2), torch.zeros(5, 2), g))
    reason = "The generator that you are given is as it was after the draw."
    TABLE.demand(use != "ignored", "generator ignored", reason)
    reason = "Batch after batch, the same noise."
    TABLE.demand(use != "set back", "generator set back", reason)
    reason = "The same generator, set to the same seed, gives another draw."
    TABLE.demand(use != "mixed", "generator ignored", reason)


def check_values(answer, cases: list[tuple[Tensor, Tensor]]) -> None:
    """The answer draws noise of its own; so what it makes of it is compared, not the noise."""
    noises = [noise_of(answer, mean) for mean, _ in cases]
    got = [drawn(answer, *case) for case in cases]
    want = [right(*case, noise) for case, noise in zip(cases, noises)]
    for g, w, noise, (mean, log_variance) in zip(got, want, noises, cases):
        if fine(g, w):
            continue
        reason = difference(g, w, name="reparameterise")
        at = tuple((~torch.isclose(g, w, rtol=1e-4, atol=1e-4)).nonzero()[0].tolist())
        reason += (
            f"\n    There the mean is {mean[at]:.4f}, the log variance {log_variance[at]:.4f}, and "
            f"your noise {noise[at]:.4f}."
        )
        given = [(*case, noise) for case, noise in zip(cases, noises)]
        tell(reason, got, given, TABLE, lambda f, case: f(*case))


def check_gradients(answer, mean: Tensor, log_variance: Tensor) -> None:
    noise = noise_of(answer, mean)
    leaves = mean.clone().requires_grad_(), log_variance.clone().requires_grad_()
    result = drawn(answer, *leaves)
    weight = torch.linspace(0.5, 1.5, result.numel()).view(result.shape)
    if result.requires_grad:
        (result * weight).sum().backward()
    wanted = weight, weight * noise * (log_variance / 2).exp() / 2
    found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    good = [close(g, w, 1e-3) for g, w in zip(found, wanted)]
    lost = [not g.any() for g in found]
    names = "`mean`", "`log_variance`"
    said = " or ".join(name for name, gone in zip(names, lost) if gone)
    reason = f"What you draw is right, but no gradient comes back to {said}."
    zero = all(lost) and all(leaf.grad is not None for leaf in leaves)  # not cut off, but zero
    TABLE.demand(not zero, "gradient of a draw", reason)
    TABLE.demand(not any(lost), "cut off", reason)
    if not all(good):
        name = names[good.index(False)]
        raise unknown(f"What you draw is right, but the gradient that comes back to {name} is not.")


@exercise(
    29,
    "All pictures in one cloud",
    'notebook 10, "A latent is a little cloud"',
    "z = mean + exp(log_variance / 2) · noise",
    "Chance at the side, so that the gradient has a way back.",
)
def reparameterise(answer) -> None:
    """answer(mean, log_variance, generator) -> a latent drawn, of their shape."""
    generator = torch.Generator().manual_seed(29)

    def case(*shape: int, dtype=torch.float32) -> tuple[Tensor, Tensor]:
        mean, log_variance = torch.randn(2, *shape, generator=generator, dtype=dtype)
        return 3 * mean, 1.5 * log_variance - 0.7

    check_noise(answer)
    check_values(answer, [case(4, 3, 5, 5), case(6, 2), case(1, 8)])
    check_values(answer, [case(3, 4, 2, 2, dtype=torch.float64)])
    check_gradients(answer, *case(5, 4, 3, 3))
