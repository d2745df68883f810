TRUTH = {
    "A": "wrong prediction type",
    "B": "sampler running forwards",
    "C": "missing root",
    "D": "unscaled data",
    "E": "time scaled differently",
    "F": "EMA without warm-up",
}


def but(**other):
    return TRUTH | other


RIGHT = [
    TRUTH,
    {letter: name.upper() for letter, name in reversed(TRUTH.items())},
    {letter: name.replace(" ", "-") + "." for letter, name in TRUTH.items()},
]

WRONG = {
    "exchanged": [
        but(A=TRUTH["F"], F=TRUTH["A"]),
        but(B=TRUTH["C"], C=TRUTH["B"]),
        but(E=TRUTH["A"], A=TRUTH["E"]),
    ],
    "open": [but(A="?"), {k: TRUTH[k] for k in "ABCDE"}, dict.fromkeys(TRUTH, "?"), but(B=None)],
    "unknown fault": [but(C="missing roof"), but(F="ema")],
    "twice": [but(A="missing root")],
    "patient": [but(G="missing root")],
    "type": [list(TRUTH.values()), None, but(C=["missing root"]), but(A=3)],
}

UNKNOWN = [
    but(A=TRUTH["B"], B=TRUTH["C"], C=TRUTH["A"]),
    dict(zip(TRUTH, reversed(TRUTH.values()))),
]
