"""Exercise 07: the condition, sometimes withheld."""

import torch
from torch import Tensor

from diffusion_lib.checks._call import call
from diffusion_lib.checks._compare import as_tensor, close
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._stages import use_of_generator
from diffusion_lib.checks._wrong import Wrong, unknown

TABLE = Table(
    None,
    """
rescaled
    what is kept is scaled up by 1/(1 - p), as nn.Dropout does; a condition is kept as it is
zeros
    what is dropped becomes zeros; put the null there, which the model has learned
per token
    the tokens of a sentence are dropped one by one; drop the whole sentence or nothing
per number
    single numbers are dropped; drop all numbers of a picture's context, or none
one draw
    one draw decides for the whole batch; draw for each picture by itself
never
    nothing is ever dropped
kept with p
    p is the share that is *dropped*, not kept (or the two branches of a choice are swapped)
fixed number
    a fixed number of each batch is dropped; each picture needs a draw of its own
by its place
    where a picture stands in the batch decides; draw for each picture by itself
generator ignored
    use the generator that you are given, itself, in the draw: no copy, and none of your own
generator set back
    your code seeds the generator, or sets it back: then every batch loses the same pictures. Draw
    from it as it is
gradient
    .detach(), .data or torch.no_grad() on the way cuts it off; the null is learned, and so may be
    what the context is made of
""",
)


def drawn(answer, context: Tensor, null: Tensor, p: float, seed) -> Tensor:
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    result = call(answer, context, null, p, generator, name="context_dropout")
    result = as_tensor(result, "context_dropout")
    if result.shape != context.shape or result.dtype not in (torch.float32, torch.float64):
        raise Wrong(
            f"`context_dropout` returned shape {tuple(result.shape)}, {result.dtype}, expected "
            f"{tuple(context.shape)}, {context.dtype}."
        )
    return result.to(context.dtype)


def rows(x: Tensor, y: Tensor) -> Tensor:
    """(B,): whether all of row i agrees."""
    return torch.isclose(x, y.expand_as(x), atol=1e-5).flatten(1).all(1)


def dropped(answer, context: Tensor, null: Tensor, p: float, seed) -> Tensor:
    """(B,): which pictures lost their context. Wrong unless each row is the context's or the null's."""
    result = drawn(answer, context, null, p, seed)
    kept, gone, zero = rows(result, context), rows(result, null), torch.zeros_like(context)
    odd = ~(kept | gone)
    if not odd.any():
        return gone
    reason = (
        f"Row {int(odd.nonzero()[0])} of your result is neither that picture's context nor the null; "
        f"p = {p}, context of shape {tuple(context.shape)}."
    )
    scaled = p < 1 and rows(result, context / (1 - p))[~gone].all()
    TABLE.demand(not scaled, "rescaled", reason)
    TABLE.demand(not (kept | rows(result, zero)).all(), "zeros", reason)
    own = torch.isclose(result, context)[odd]
    other = (torch.isclose(result, null) | torch.isclose(result, zero))[odd]
    if (own | other).all():
        whole = own.ndim == 3 and (own.all(-1) | other.all(-1)).all()
        raise TABLE.wrong("per token" if whole else "per number", reason)
    raise unknown(reason)


@exercise(
    7,
    "Half a hero",
    'notebook 06, "Training, with the condition sometimes withheld"',
    "c_i becomes the null with probability p, as a whole, for each picture by itself",
    "Now and then the model paints without being told what.",
)
def context_dropout(answer) -> None:
    """answer(context, null, p, generator) -> context's shape, (B, …); null: (1, …)."""
    generator = torch.Generator().manual_seed(7)
    for shape in ((4000, 5), (3000, 4, 3)):
        context = torch.randn(shape, generator=generator) + 3
        null = torch.randn((1, *shape[1:]), generator=generator) - 3
        for p in (0.15, 0.33, 0.8):
            share = dropped(answer, context, null, p, 1).float().mean().item()
            reason = f"With p = {p}, {share:.1%} of {shape[0]} pictures lost their context."
            if share in (0, 1):
                few = {
                    dropped(answer, context, null, 0.5, s).float().mean().item() for s in range(12)
                }
                TABLE.demand(few != {0, 1}, "one draw", reason)
                TABLE.demand(few != {0}, "never", reason)
            near = 5 * (p * (1 - p) / shape[0]) ** 0.5
            TABLE.demand(abs(share - (1 - p)) > near, "kept with p", reason)
            if abs(share - p) > near:
                raise unknown(reason)
        use = use_of_generator(lambda g: drawn(answer, context, null, 0.33, g))
        reason = "The generator that you are given is as it was after the draw."
        TABLE.demand(use != "ignored", "generator ignored", reason)
        reason = "Batch after batch, the same pictures lose their context."
        TABLE.demand(use != "set back", "generator set back", reason)
        reason = "The same generator, set to the same seed, gives another result."
        TABLE.demand(use != "mixed", "generator ignored", reason)
        alone = {dropped(answer, context[:1], null, 0.5, seed).item() for seed in range(40)}
        reason = "A batch of a single picture, p = 0.5, 40 seeds: always the same outcome."
        TABLE.demand(len(alone) == 2, "fixed number", reason)
        if dropped(answer, context, null, 0.0, 3).any():
            raise unknown("With p = 0 nothing may be dropped.")
        if not dropped(answer, context, null, 1.0, 3).all():
            raise unknown("With p = 1 everything must be dropped.")
        each_by_itself(answer, context[:6], null)
        gradients(answer, context[:50], null)


def each_by_itself(answer, context: Tensor, null: Tensor, p: float = 0.3) -> None:
    """In many small batches with one generator, how many of a batch are dropped varies as it should."""
    generator = torch.Generator().manual_seed(8)
    gone = torch.stack([dropped(answer, context, null, p, generator) for _ in range(400)]).float()
    rates, spread = gone.mean(0), gone.sum(1).var().item() / (6 * p * (1 - p))
    reason = (
        f"Of 400 batches, the first picture lost its context in {rates[0]:.0%}, the last in "
        f"{rates[-1]:.0%}; each should in {p:.0%}."
    )
    TABLE.demand((rates - p).abs().max() < 0.15, "by its place", reason)  # six standard errors
    if not 0.6 < spread < 1.4:
        raise unknown(
            f"How many of 6 pictures lose their context varies {spread:.1f} times as much as it does "
            "when each is drawn by itself."
        )


def gradients(answer, context: Tensor, null: Tensor) -> None:
    """The kept contexts get their gradient, and the null that of all that it replaced."""
    gone = dropped(answer, context, null, 0.4, 5).view(-1, *[1] * (context.ndim - 1))
    context, null = context.clone().requires_grad_(), null.clone().requires_grad_()
    result = drawn(answer, context, null, 0.4, 5)
    weight = torch.linspace(0.5, 1.5, result.numel()).view(result.shape)
    if result.requires_grad:
        (result * weight).sum().backward()
    wanted = {"context": weight * ~gone, "null": (weight * gone).sum(0, keepdim=True)}
    for (name, want), leaf in zip(wanted.items(), (context, null)):
        reason = (
            f"Which pictures lose their context is right, but no gradient comes back to `{name}`."
        )
        TABLE.demand(leaf.grad is not None and close(leaf.grad, want), "gradient", reason)
