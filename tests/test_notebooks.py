"""The notebooks' policy: executed in order, compared by nbval, small, and of no one's machine."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("notebooks_tool", ROOT / "tools" / "notebooks.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

PATHS = [p for folder in tool.FOLDERS for p in sorted((ROOT / folder).glob("*.ipynb"))]
MAX_BYTES = 1_500_000
MIN_COMPARED = 0.7
UNCOMPARED_TAGS = {"nbval-ignore-output", "nbval-skip"}
UNCOMPARED_MARKS = ("# NBVAL_IGNORE_OUTPUT", "# NBVAL_SKIP")
COMPARED_TYPES = ("text/plain", "text/html", "image/svg+xml", "image/gif")
SAYS_NOTHING = re.compile(r"<(Figure size|IPython\.core)")  # a figure's or a display object's repr
MACHINE_PATH = re.compile(r"(?<![\w.:/])(/(home|root|tmp|Users|var|opt)/\w|[A-Za-z]:\\+Users\b)")


# --- the policy ----------------------------------------------------------------------------------


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def output_texts(cell):
    """What nbval compares of a cell: streams and texts, not pictures."""
    for output in cell.outputs:
        if "text" in output:
            yield output.text
        data = output.get("data", {})
        yield from (data[kind] for kind in COMPARED_TYPES if kind in data)


def is_compared(cell) -> bool:
    """Whether nbval would notice another output of this cell."""
    if UNCOMPARED_TAGS & set(cell.metadata.get("tags", ())):
        return False
    if any(mark in cell.source for mark in UNCOMPARED_MARKS):
        return False
    return any(text.strip() and not SAYS_NOTHING.match(text) for text in output_texts(cell))


def is_answer(cell) -> bool:
    """Whether the cell defines what the check cell of an exercise then tests."""
    return "# BEGIN SOLUTION" in cell.source


def violations(notebook) -> list[str]:
    """What is wrong with an executed notebook; empty if nothing is."""
    found = []
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        found.append(f"execution counts are {counts}, not 1 to {len(cells)}")
    quiet = [i for i, cell in enumerate(cells) if not is_compared(cell) and not is_answer(cell)]
    share = 1 - len(quiet) / max(1, len(cells))
    if share < MIN_COMPARED:
        found.append(f"only {share:.0%} of the code cells are compared; not these: {quiet}")
    if "widgets" in notebook.metadata:
        found.append("widget state is saved")
    for i, cell in enumerate(cells):
        errors = [output.ename for output in cell.outputs if output.output_type == "error"]
        if errors and "raises-exception" not in cell.metadata.get("tags", ()):
            found.append(f"code cell {i} saved an error: {errors[0]}")
    for i, cell in enumerate(notebook.cells):
        texts = [cell.source, *(output_texts(cell) if cell.cell_type == "code" else ())]
        path = next(filter(None, map(MACHINE_PATH.search, texts)), None)
        if path:
            found.append(f"cell {i} holds a path of one machine: {path[0]}…")
    return found


# --- held against the notebooks ------------------------------------------------------------------


def test_there_are_notebooks():
    assert list((ROOT / "notebooks").glob("*.ipynb")), "notebooks/ holds no notebook"


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_policy(path):
    assert violations(nbformat.read(path, as_version=4)) == []
    assert path.stat().st_size <= MAX_BYTES


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_address_is_stamped(path):
    """`make stamp` mends this."""
    notebook = nbformat.read(path, as_version=4)
    folder, url = path.parent.name, tool.address()
    assert tool.badge(url, folder, path.name) in notebook.cells[0].source
    assert code_cells(notebook)[0].source == tool.setup_cell(url, folder)


CITED = re.compile(
    r"\b((?:[A-Z][a-zä]+)(?: et al\.| & [A-Z][a-z]+)|Robbins|Efron|Shoemake),? \(?((?:19|20)\d\d[ab]?)\)?"
)
ENTRIES = re.findall(
    r'<a id="([a-zä]+-\d{4}[ab]?)">', (ROOT / "REFERENCES.md").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_each_citation_leads_to_the_references(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for cited in CITED.finditer(text):
        key = f"{cited[1].split()[0].lower()}-{cited[2]}"
        assert f"[{cited[0]}](../REFERENCES.md#{key})" in text and key in ENTRIES, cited[0]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_links_lead_to_files_of_the_repository(path):
    """JupyterLab opens what lies under its root, which `make lab` sets to the repository."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text):
        target = (path.parent / link.partition("#")[0]).resolve()
        assert target.is_file() and ROOT in target.parents, link


LESSONS = [p for p in PATHS if p.parent.name == "notebooks"]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.name)
def test_stated_minutes_are_no_less_than_a_quick_reading(path):
    """A lower bound, timed with nobody. A minute for 150 words, for 25 lines of code that is not folded,
    or for a displayed formula, and three quarters of one for a figure."""
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    code = [c for c in cells if c.cell_type == "code"]
    shown = [c for c in code if not c.metadata.get("jupyter", {}).get("source_hidden")]
    lines = sum(bool(line.strip()) for c in shown for line in c.source.splitlines())
    figures = sum("image/png" in out.get("data", {}) for c in cells for out in c.get("outputs", []))
    words = len(re.findall(r"[A-Za-z']{2,}", re.sub(r"\$[^$]*\$|\]\([^)]*\)", "", prose)))
    minutes = (
        words / 150 + len(re.findall(r"\$\$.+?\$\$", prose, re.S)) + lines / 25 + figures * 0.75
    )
    stated = int(re.search(r"\*\*Time\.\*\* (\d+) minutes", prose)[1])
    assert minutes <= 1.05 * stated, f"{minutes:.0f} minutes"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lab_opens_the_repository():
    done = subprocess.run(["make", "-n", "lab"], cwd=ROOT, capture_output=True, text=True)
    assert f'--ServerApp.root_dir="{ROOT}" notebooks/00' in done.stdout, done.stdout


def test_each_reference_is_cited():
    library = [*(ROOT / "diffusion_lib").rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*PATHS, *library])
    cited = {f"{c[1].split()[0].lower()}-{c[2]}" for c in CITED.finditer(text)}
    assert cited <= {*ENTRIES}, cited - {*ENTRIES}
    assert {*ENTRIES} <= cited, {*ENTRIES} - cited
    assert len({*ENTRIES}) == len(ENTRIES)


# --- the policy itself ---------------------------------------------------------------------------


def good(n: int = 4):
    """A small notebook without fault."""
    cells = [
        new_code_cell(
            f"print({i})", execution_count=i + 1, outputs=[new_output("stream", text=f"{i}\n")]
        )
        for i in range(n)
    ]
    return new_notebook(cells=[new_markdown_cell("# Title"), *cells])


def wrong_count(notebook):
    notebook.cells[2].execution_count = 9


def never_executed(notebook):
    notebook.cells[1].execution_count = None


def ignored(notebook):
    notebook.cells[1].metadata.tags = ["nbval-ignore-output"]
    notebook.cells[2].source = "# NBVAL_IGNORE_OUTPUT\nprint(1)"


def silent(notebook):
    notebook.cells[1].outputs = notebook.cells[2].outputs = []


def bare_figures(notebook):
    for cell in notebook.cells[1:3]:
        data = {"image/png": "AAAA", "text/plain": "<Figure size 640x480 with 1 Axes>"}
        cell.outputs = [new_output("display_data", data=data)]


def widget_state(notebook):
    notebook.metadata.widgets = {}


def saved_error(notebook):
    notebook.cells[1].outputs.append(new_output("error", ename="ValueError", evalue="no"))


def path_in_source(notebook):
    notebook.cells[1].source = "open('" + "/" + "home/me/data.npy')"


def path_in_output(notebook):
    notebook.cells[1].outputs[0].text = "C:" + r"\Users\me"


def path_in_prose(notebook):
    notebook.cells[0].source = "look into /" + "tmp/x"


FAULTS = {
    wrong_count: "execution counts",
    never_executed: "execution counts",
    ignored: "only 50%",
    silent: "only 50%",
    bare_figures: "only 50%",
    widget_state: "widget state",
    saved_error: "saved an error",
    path_in_source: "path of one machine",
    path_in_output: "path of one machine",
    path_in_prose: "path of one machine",
}


def test_a_good_notebook_passes():
    notebook = good()
    assert violations(notebook) == []
    notebook.cells[0].source = "[a link](https://example.org/home/x), ./tmp/x, data/root/x"
    assert violations(notebook) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_each_fault_is_found(fault):
    notebook = good()
    fault(notebook)
    (found,) = violations(notebook)
    assert FAULTS[fault] in found


def test_expected_errors_may_be_saved():
    notebook = good()
    saved_error(notebook)
    notebook.cells[1].metadata.tags = ["raises-exception"]
    assert violations(notebook) == []


# --- the tool ------------------------------------------------------------------------------------

URL = "https://github.com/someone/a-fork"


def test_stamp_inserts_then_replaces(tmp_path):
    path, notebook = tmp_path / "notebooks" / "01_x.ipynb", good()
    tool.stamp(notebook, path, "https://github.com/first/place")
    tool.stamp(notebook, path, URL)
    text = nbformat.writes(notebook)
    assert "first/place" not in text
    assert notebook.cells[0].source.count("Open in Colab") == 1
    assert f"{URL.removeprefix('https://')}" in text
    assert "/github/someone/a-fork/blob/main/notebooks/01_x.ipynb" in notebook.cells[0].source
    assert [c.source for c in code_cells(notebook)].count(tool.setup_cell(URL, "notebooks")) == 1
    assert len(code_cells(notebook)) == 5


def test_stamp_refuses_what_colab_cannot_open(tmp_path):
    with pytest.raises(ValueError, match="github.com"):
        tool.stamp(good(), tmp_path / "x.ipynb", "https://example.org/a/b")


def run_tool(path: Path) -> int:
    return tool.main([str(path)])


def test_execute_and_save(tmp_path, capfd):
    path = tmp_path / "notebooks" / "01_x.ipynb"
    path.parent.mkdir()
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("import ipywidgets\nipywidgets.IntSlider()"),
        new_code_cell("import os\nfrom pathlib import Path\nprint(Path.cwd().name)"),
        new_code_cell("print(os.environ['DIFFUSION_COURSE'])"),
        new_code_cell("raise KeyError('x')", metadata={"tags": ["raises-exception"]}),
    ]
    notebook = new_notebook(cells=cells, metadata={"widgets": {}, "colab": {}})
    path.write_text(json.dumps(notebook))
    assert run_tool(path) == 0
    assert re.search(r"notebooks/01_x.ipynb: \d+\.\d s, 0\.\d\d GB", capfd.readouterr().out)
    saved = nbformat.read(path, as_version=4)
    setup, slider, folder, device, _ = code_cells(saved)
    assert [cell.execution_count for cell in code_cells(saved)] == [1, 2, 3, 4, 5]
    assert setup.outputs == []  # silent off Colab
    assert set(slider.outputs[0].data) == {"text/plain"}
    assert (folder.outputs[0].text, device.outputs[0].text) == ("notebooks\n", "cpu\n")
    assert saved.metadata == tool.METADATA
    assert all(set(cell.metadata) <= {"tags"} for cell in saved.cells)


def test_a_failing_notebook_is_named_and_not_saved(tmp_path, capfd):
    path = tmp_path / "notebooks" / "01_x.ipynb"
    path.parent.mkdir()
    cells = [new_markdown_cell("# Title"), new_code_cell("a = 1"), new_code_cell("a / 0")]
    path.write_text(before := json.dumps(new_notebook(cells=cells)))
    assert run_tool(path) == 1
    error = capfd.readouterr().err
    assert "01_x.ipynb: not saved, code cell 2:\n    a / 0\nZeroDivisionError" in error
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
