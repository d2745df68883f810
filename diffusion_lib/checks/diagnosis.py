"""Exercise 26: the diagnosis."""

import difflib
import re

from diffusion_lib.checks._call import kind
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._patients import FAULTS, letters
from diffusion_lib.checks._wrong import Wrong

TABLE = Table(
    None,
    """
exchanged
    these two patients have each other's fault
time scaled differently
    the network would hear times of another size while it samples (second number)
missing root
    its denoiser, its times and its data would all be in order, and something of a picture would shine
    through the noise
EMA without warm-up
    it would be bad with the weights that it samples with, and much better with its last weights (third
    number)
unscaled data
    the numbers that go into its loss would reach far beyond 1 (first number)
sampler running forwards
    the times that its network hears would rise (second number)
wrong prediction type
    both sets of its weights would be bad (third number), and its data and times in order
""",
)


def plain(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


@exercise(
    26,
    "My loss falls, but my samples are noise",
    'notebook 09, "The diagnosing table"',
    solved="Six patients, six diagnoses.",
)
def diagnosis(answer) -> None:
    """answer: {"A": one of FAULTS, …, "F": …}. Letter case, spaces and hyphens do not matter."""
    if not isinstance(answer, dict):
        example = '{"A": "missing root", …, "F": …}'
        raise Wrong(f"I need a dictionary, {example}, and got {kind(answer)}.", "type")
    truth, said, known = letters(), {}, {plain(fault): fault for fault in FAULTS}
    for letter, name in answer.items():
        if letter not in truth:
            patients = ", ".join(truth)
            raise Wrong(f"There is no patient {letter!r}: they are {patients}.", "patient")
        if name is None or name is ... or isinstance(name, str) and not name.strip(" .?…"):
            continue
        if not isinstance(name, str):
            raise Wrong(f"The diagnosis of {letter} should be a text; it is {kind(name)}.", "type")
        if plain(name) not in known:
            near = difflib.get_close_matches(plain(name), known, n=1, cutoff=0.3)
            meant = f"did you mean {known[near[0]]!r}?" if near else f"one of: {', '.join(FAULTS)}"
            raise Wrong(f"{name!r} is none of the six faults; {meant}", "unknown fault")
        said[letter] = known[plain(name)]
    if missing := [letter for letter in truth if letter not in said]:
        raise Wrong(f"No diagnosis yet: {', '.join(missing)}.", "open")
    for fault in FAULTS:
        which = " and ".join(letter for letter, name in said.items() if name == fault)
        if len(which) > 1:
            reason = f"Each fault occurs once, but you found {fault!r} in {which}."
            raise Wrong(reason, "twice")
    wrong = [letter for letter in truth if said[letter] != truth[letter]]
    right = (
        f"{len(truth) - len(wrong)} of 6 diagnoses are right. Not right yet: {', '.join(wrong)}."
    )
    TABLE.demand(len(wrong) != 2, "exchanged", right)
    if wrong:
        fault = said[wrong[0]]
        evidence = f"If the fault of {wrong[0]} were {fault!r}, {TABLE.causes[fault]}. Is it so?"
        raise Wrong(f"{right}\n{evidence}")
