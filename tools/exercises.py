"""Writes exercises/ from solutions/, the single source.

python tools/exercises.py             write every exercise, but none that somebody has worked on
python tools/exercises.py FILE ...    the same for these solutions only
python tools/exercises.py --force     write those too: the work in them is lost
python tools/exercises.py --check     say which exercises differ from their source; write nothing

In a solution's code cells, what the learner is to write lies between two marks; the lines that the
learner finds in its place follow, each behind `#: ` (none: the cell says that it is not written):

    # BEGIN SOLUTION
    return alpha * x0 + sigma * eps
    # END SOLUTION
    #: return x0 + sigma * eps

Cells with the tag "solution" are left out. Outputs are kept down to the first cell with a mark: they
are the report, and nothing in them depends on the solution.
"""

import argparse
import copy
import importlib.util
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from diffusion_lib.progress import fingerprint

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS, EXERCISES = ROOT / "solutions", ROOT / "exercises"
BEGIN, END, STUB = "# BEGIN SOLUTION", "# END SOLUTION", "#:"
NOTHING = 'raise NotImplementedError("your code here")'

_spec = importlib.util.spec_from_file_location("notebooks_tool", ROOT / "tools" / "notebooks.py")
notebooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(notebooks)


def starter_source(source: str) -> str:
    """A code cell as the learner finds it. Raises ValueError for a mark without its twin."""
    lines, out, indent = source.splitlines(), [], None
    stub: list[str] | None = None  # the lines after an END, until the first that is no stub

    def close_stub() -> None:
        nonlocal stub
        if stub is not None:
            out.extend(f"{indent}{line}".rstrip() for line in stub or [NOTHING])
            stub = None

    inside = False
    for line in lines:
        bare = line.strip()
        if bare == BEGIN:
            if inside:
                raise ValueError(f"{BEGIN!r} twice")
            close_stub()
            inside, indent = True, line[: len(line) - len(line.lstrip())]
        elif bare == END:
            if not inside:
                raise ValueError(f"{END!r} without {BEGIN!r}")
            inside, stub = False, []
        elif inside:
            continue
        elif stub is not None and bare.startswith(STUB):
            stub.append(re.sub(r"^#: ?", "", bare))
        else:
            close_stub()
            out.append(line)
    if inside:
        raise ValueError(f"{BEGIN!r} without {END!r}")
    close_stub()
    return "\n".join(out)


def is_marked(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and BEGIN in cell.source


def starter(solution: NotebookNode, name: str) -> NotebookNode:
    """The exercise of a solution. Raises ValueError where there is nothing for the learner to do."""
    exercise = copy.deepcopy(solution)
    exercise.cells = [c for c in exercise.cells if "solution" not in c.metadata.get("tags", ())]
    if not any(map(is_marked, exercise.cells)):
        raise ValueError(f"{name} has no cell with {BEGIN!r}")
    report = True  # we are still above the learner's first cell
    for cell in exercise.cells:
        if cell.cell_type != "code":
            continue
        report = report and not is_marked(cell)
        cell.source = starter_source(cell.source)
        if not report:
            cell.outputs, cell.execution_count = [], None
    notebooks.stamp(exercise, EXERCISES / name, notebooks.address())
    exercise.metadata = nbformat.from_dict(notebooks.METADATA | {"starter": fingerprint(exercise)})
    return exercise


def is_begun(path: Path) -> bool:
    """Whether an exercise's code is no longer what this tool wrote."""
    if not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    return notebook.metadata.get("starter") != fingerprint(notebook)


def text_of(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--force", action="store_true", help="overwrite a learner's work")
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(arguments)
    failed = 0
    for path in args.files or sorted(SOLUTIONS.glob("*.ipynb")):
        target = EXERCISES / path.name
        try:
            text = text_of(starter(nbformat.read(SOLUTIONS / path.name, as_version=4), path.name))
        except (OSError, ValueError) as error:
            failed += 1
            print(f"{path.name}: {error}", file=sys.stderr)
            continue
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        if args.check:
            failed += 1
            print(f"{target.name} is not what its solution gives: python tools/exercises.py")
        elif not args.force and is_begun(target):
            print(
                f"kept exercises/{target.name}: somebody has worked on it (--force overwrites it)"
            )
        else:
            target.write_text(text, encoding="utf-8")
            print(f"wrote exercises/{target.name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
