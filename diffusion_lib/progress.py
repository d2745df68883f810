"""Which exercises are solved: every one that was begun is run, its outcome kept until it changes."""

import ast
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from diffusion_lib.files import write

SECONDS = 300  # that one cell of an exercise may take
CACHE = ".progress.json"


class Standing(NamedTuple):
    number: int
    title: str
    teaches: str
    state: str  # "solved", "not yet", "not begun" or "missing"
    why: str = ""  # of "not yet": the first line of what went wrong


def fingerprint(notebook) -> str:
    """Of a notebook's code: an exercise whose metadata holds it under "starter" is not begun."""
    code = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def calls(name: str, source: str | list[str]) -> bool:
    """Whether a cell's source calls checks.<name>; comments do not count."""
    try:
        tree = ast.parse("".join(source))
    except (SyntaxError, ValueError):  # magics: never in a check cell
        return False
    functions = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(f, ast.Attribute) and f.attr == name for f in functions)


def standings(folder: Path) -> Iterator[Standing]:
    """One for each exercise, in order. folder: where the exercises' notebooks lie.

    Raises ModuleNotFoundError where Jupyter is not installed.
    """
    import nbformat

    from diffusion_lib import checks

    cache_file = folder / CACHE
    try:
        cache = json.loads(cache_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        cache = None
    cache = cache if isinstance(cache, dict) else {}
    for check in checks.ALL:
        about, path = check.about, folder / f"{check.about.number:02d}_{check.__name__}.ipynb"
        state, why = "missing", ""
        if path.exists():
            try:
                notebook = nbformat.read(path, as_version=4)
                key, code = (
                    fingerprint(notebook),
                    [c for c in notebook.cells if c.cell_type == "code"],
                )
            except Exception as error:  # cut short, or no notebook at all: nbformat has many words
                notebook, why = None, f"{path.name} is damaged: {type(error).__name__}"
            if notebook is None:
                state = "not yet"
            elif key == notebook.metadata.get("starter"):
                state = "not begun"
            elif not any(calls(check.__name__, cell.source) for cell in code):
                state, why = "not yet", "its check cell is gone"
            else:
                if cache.get(path.name, [None])[0] != key:
                    why = _run(notebook, folder)
                    cache[path.name] = [key, why]
                    write(cache_file, json.dumps(cache, indent=1).encode())
                why = cache[path.name][1]
                state = "not yet" if why else "solved"
        yield Standing(about.number, about.title, about.teaches, state, why)


def _run(notebook, folder: Path) -> str:
    """Runs a notebook. Returns "" if all went well, else what went wrong, in a line."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    os.environ["DIFFUSION_COURSE"] = "cpu"
    resources = {"metadata": {"path": str(folder)}}
    try:
        NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources=resources,
            extra_arguments=["--log-level=ERROR"],
        ).execute()
    except CellExecutionError as error:
        lines = [line for line in error.evalue.splitlines() if line and ": not yet." not in line]
        return (
            lines[0] if error.ename == "Wrong" and lines else f"{error.ename}: {error.evalue[:80]}"
        )
    except (CellTimeoutError, DeadKernelError) as error:
        return type(error).__name__
    return ""


def table(rows: list[Standing]) -> str:
    """The rows in columns, and below them the next exercise to do."""
    marks = {"solved": "✓", "not yet": "…", "not begun": " ", "missing": "?"}
    width = max(len(row.title) for row in rows)
    lines = [
        f"{marks[row.state]} {row.number:02d}  {row.title:<{width}}  {row.state:<9}  {row.why[:60]}".rstrip()
        for row in rows
    ]
    solved = sum(row.state == "solved" for row in rows)
    lines += ["", f"{solved} of {len(rows)} solved."]
    following = next((row for row in rows if row.state != "solved"), None)
    if following:
        lines.append(
            f"Next: {following.number:02d} {following.title}; taught in {following.teaches}."
        )
    else:
        lines.append(
            "That was the last one. Well done: now propose one of your own (CONTRIBUTING.md)."
        )
    return "\n".join(lines)
