"""Answers that are watched at work: what is seen is compared part by part, first things first."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks._compare import copy_of, fine
from diffusion_lib.checks._judge import Table, tell


def in_stages(
    answer: Callable,
    cases: Sequence[tuple],
    table: Table,
    watch: Callable[[Callable, tuple], dict[str, Any]],
    says: dict[str, Callable[[tuple, dict, dict], str]],
) -> list[dict[str, Any]]:
    """As `judge`, of what watch(answer, case) sees: tensors by name. Returns it, case by case.

    says: the parts that are compared, in this order, each with its reason: says[part](case, seen,
    wanted). A mistake is named if it gives the same in this part and in all before it.
    """
    seen, want = ([watch(f, copy_of(case)) for case in cases] for f in (answer, table.right))
    for i, (part, reason) in enumerate(says.items(), 1):
        wrong = [j for j in range(len(cases)) if not fine(seen[j][part], want[j][part])]
        if not wrong:
            continue

        def joined(watched: dict, parts: Sequence[str] = list(says)[:i]) -> Tensor:
            return torch.cat([watched[part].detach().flatten().double() for part in parts])

        got = [joined(one) for one in seen]
        watched = lambda f, case: joined(watch(f, copy_of(case)))  # noqa: E731, B023
        said = reason(cases[wrong[0]], seen[wrong[0]], want[wrong[0]])
        tell(said, got, cases, table, watched)
    return seen


def use_of_generator(run: Callable[[torch.Generator], Tensor]) -> str:
    """What `run` does with its generator: "ignored"; "set back", so that the next run draws the same
    again; "mixed" with other random numbers; or "drawn from", as it should be."""
    one, same = (torch.Generator().manual_seed(1) for _ in range(2))
    start = one.get_state()
    result, after = run(one), one.get_state()
    if torch.equal(start, after):
        return "ignored"
    run(one)
    if torch.equal(after, one.get_state()):
        return "set back"
    return "drawn from" if torch.equal(result, run(same)) else "mixed"
