"""The check of context dropout."""

import torch
from torch import Tensor

from diffusion_lib.checks._core import Wrong, as_tensor, call, exercise


def _draw(answer, context: Tensor, null: Tensor, p: float, seed: int | torch.Generator) -> Tensor:
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    result = call(answer, context, null, p, generator, name="context_dropout")
    result = as_tensor(result, "context_dropout")
    if result.shape != context.shape:
        raise Wrong(
            f"`context_dropout` returned shape {tuple(result.shape)}, expected {tuple(context.shape)}."
        )
    if result.dtype not in (torch.float32, torch.float64):
        raise Wrong(f"`context_dropout` returned {result.dtype}, expected {context.dtype}.")
    return result.to(context.dtype)


def _rows(x: Tensor, y: Tensor) -> Tensor:
    """(B,): whether all of row i agrees."""
    return torch.isclose(x, y.expand_as(x), atol=1e-5).flatten(1).all(1)


def _explain(result: Tensor, context: Tensor, null: Tensor, p: float) -> None:
    """Raises Wrong unless every row is the context's or the null's."""
    kept, dropped = _rows(result, context), _rows(result, null)
    if (kept | dropped).all():
        return
    odd = int((~(kept | dropped)).nonzero()[0])
    reason = (
        f"Row {odd} of your result is neither that picture's context nor the null; "
        f"p = {p}, context of shape {tuple(context.shape)}."
    )
    row, own, none = result[odd], context[odd], null.expand_as(context)[odd]
    if _rows(result, context / (1 - p))[~dropped].all():
        raise Wrong(
            reason,
            "what is kept is scaled up by 1/(1 - p), as nn.Dropout does; a condition is kept as it is",
            "rescaled",
        )
    zero = torch.zeros_like(context)
    if (kept | _rows(result, zero)).all():
        raise Wrong(
            reason,
            "what is dropped becomes zeros; put the null there, which the model has learned",
            "zeros",
        )
    of_own, of_null = (
        torch.isclose(row, own),
        torch.isclose(row, none) | torch.isclose(row, zero[odd]),
    )
    if (of_own | of_null).all():
        by_token = row.ndim == 2 and all(bool(a.all() or b.all()) for a, b in zip(of_own, of_null))
        if by_token:
            raise Wrong(
                reason,
                "the tokens of a sentence are dropped one by one; drop the whole sentence or nothing",
                "per token",
            )
        raise Wrong(
            reason,
            "single numbers are dropped; drop all numbers of a picture's context, or none",
            "per number",
        )
    raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")


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
        for p in (0.15, 0.33):
            result = _draw(answer, context, null, p, seed=1)
            _explain(result, context, null, p)
            share = _rows(result, null).float().mean().item()
            spread = (p * (1 - p) / shape[0]) ** 0.5
            reason = (
                f"With p = {p}, a share of {share:.3f} of {shape[0]} pictures lost their context."
            )
            if share in (0.0, 1.0):
                several = [_draw(answer, context, null, 0.5, s) for s in range(2, 12)]
                for one in several:
                    _explain(one, context, null, 0.5)
                whole = [_rows(one, null).float().mean().item() for one in several]
                if set(whole) == {0.0, 1.0}:
                    raise Wrong(
                        reason,
                        "one draw decides for the whole batch; draw for each picture by itself",
                        "one draw",
                    )
                if set(whole) == {0.0}:
                    raise Wrong(reason, "nothing is ever dropped", "never")
            if abs(share - (1 - p)) < 5 * spread:
                raise Wrong(
                    reason,
                    "p is the share that is *dropped*, not kept (or the two branches of a choice are swapped)",
                    "kept with p",
                )
            if abs(share - p) > 5 * spread:
                raise Wrong(f"{reason}\n    It is wrong in a way that I do not recognise.")
        again, other = (_draw(answer, context, null, 0.33, seed) for seed in (1, 2))
        if not torch.equal(again, result):
            raise Wrong(
                "The same generator, set to the same seed, gives another result.",
                "hand the generator on to the draw",
                "generator ignored",
            )
        if torch.equal(other, result):
            raise Wrong(
                "Another seed of the generator gives the same result.",
                "hand the generator on to the draw",
                "generator ignored",
            )
        alone = [_rows(_draw(answer, context[:1], null, 0.5, s), null).item() for s in range(40)]
        if len(set(alone)) == 1:
            raise Wrong(
                "A batch of a single picture, p = 0.5, 40 seeds: always the same outcome.",
                "a fixed number of each batch is dropped; each picture needs a draw of its own",
                "fixed number",
            )
        never, always = (_draw(answer, context, null, p, seed=3) for p in (0.0, 1.0))
        if not _rows(never, context).all() or not _rows(always, null).all():
            raise Wrong("With p = 0 nothing may be dropped, with p = 1 everything must be.")
    _each_by_itself(answer)


def _each_by_itself(answer) -> None:
    """Many small batches with one generator: how many of a batch are dropped varies as it should."""
    batch, p, generator = 6, 0.3, torch.Generator().manual_seed(8)
    context, null = torch.randn((batch, 5), generator=generator) + 3, torch.full((1, 5), -3.0)
    draws = [_rows(_draw(answer, context, null, p, generator), null) for _ in range(400)]
    counts = torch.stack(draws).float().sum(1)  # (400,), binomial
    rates = torch.stack(draws).float().mean(0)  # (6,): how often each place was dropped
    if all(torch.equal(one, draws[0]) for one in draws):
        raise Wrong(
            "Batch after batch, the same pictures lose their context.",
            "the generator that you are given must move on with every draw: use it itself, no copy",
            "generator ignored",
        )
    if not (rates - p).abs().max() < 0.15:  # six standard errors
        raise Wrong(
            f"Of {len(draws)} batches, the first picture lost its context in {rates[0]:.0%}, the last in "
            f"{rates[-1]:.0%}; each should in {p:.0%}.",
            "where a picture stands in the batch decides; draw for each picture by itself",
            "by its place",
        )
    if not 0.6 < counts.var().item() / (batch * p * (1 - p)) < 1.4:  # six standard errors
        raise Wrong(
            f"How many of {batch} pictures lose their context has variance {counts.var():.2f}; for "
            f"pictures that are drawn each by itself it is {batch * p * (1 - p):.2f}.\n"
            "    It is wrong in a way that I do not recognise."
        )
