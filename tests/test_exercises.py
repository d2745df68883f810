"""Exercises are what their solutions give, fail as shipped with a message that helps, and count."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

matplotlib.use("agg")

from diffusion_lib import checks, plotting  # noqa: E402
from diffusion_lib.__main__ import main  # noqa: E402
from diffusion_lib.progress import fingerprint, standings  # noqa: E402

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("exercises_tool", ROOT / "tools" / "exercises.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

NAMES = [f"{check.about.number:02d}_{check.__name__}.ipynb" for check in checks.ALL]
HINTS = 3


def read(folder: str, name: str):
    return nbformat.read(ROOT / folder / name, as_version=4)


def headings(number: str) -> list[str]:
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    return [line for c in cells for line in c.source.splitlines() if line.startswith("#")]


@pytest.mark.parametrize("name", NAMES)
def test_exercise_is_what_its_solution_gives(name):
    """`make exercises` mends this."""
    expected = tool.text_of(tool.starter(read("solutions", name), name))
    assert (ROOT / "exercises" / name).read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("check", checks.ALL, ids=lambda c: c.__name__)
def test_it_names_a_section(check):
    assert re.fullmatch(r'notebook (\d\d), "(.+)"', check.about.teaches)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "diffusion_lib/checks").glob("*.py")), ids=lambda p: p.name
)
def test_the_sections_that_checks_name_exist(path):
    for number, section in re.findall(r'notebook (\d\d), "(.+?)"', path.read_text("utf-8")):
        assert any(section in heading for heading in headings(number)), (number, section)


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_like_an_issue(name):
    text = "\n".join(c.source for c in read("exercises", name).cells if c.cell_type == "markdown")
    check = checks.ALL[NAMES.index(name)]
    assert f"# {check.about.number:02d} · {check.about.title}" in text.splitlines()
    for part in ("## Report", "## Wanted", "## Your turn", "## Check", "## Hints"):
        assert part in text, part
    assert text.count("<details>") == HINTS
    assert re.search(
        r"`(bug|enhancement|feature|optimization|debugging)` · difficulty [★☆]{5}", text
    )
    assert re.search(r"\d\d minutes · taught in \[\d\d", text)
    assert f"../solutions/{name}" in text


@pytest.mark.parametrize("name", NAMES)
def test_it_shows_its_symptom_before_anything_is_done(name):
    cells = read("exercises", name).cells
    first = next(i for i, c in enumerate(read("solutions", name).cells) if tool.is_marked(c))
    outputs = [o for c in cells[:first] if c.cell_type == "code" for o in c.outputs]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert not any(c.outputs for c in cells[first:] if c.cell_type == "code")


@pytest.mark.parametrize("check", checks.ALL, ids=lambda c: c.__name__)
def test_as_shipped_it_fails_and_says_why(check, monkeypatch, tmp_path, capsys):
    name = f"{check.about.number:02d}_{check.__name__}.ipynb"
    monkeypatch.setattr(plotting, "show", lambda fig, text: matplotlib.pyplot.close(fig))
    monkeypatch.setattr(plotting, "display", lambda *args, **named: None)
    monkeypatch.chdir(tmp_path)
    cells = [c.source for c in read("exercises", name).cells if c.cell_type == "code"][1:]
    space, failed = {"__name__": "__main__"}, None
    for source in cells:
        try:
            exec(compile(source, name, "exec"), space)
        except checks.Wrong as wrong:
            failed = str(wrong)
            break
        except Exception:  # a cell that shows an answer not yet written
            assert f"checks.{check.__name__}(" not in source
    assert failed, "the check passes as shipped"
    lines = failed.splitlines()
    assert lines[0] == f"Exercise {check.about.number:02d} · {check.about.title}: not yet."
    assert len(lines[2]) > 20 and lines[-1].startswith("Read again:   notebook ")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.name)
def test_links_between_notebooks_lead_somewhere(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells)
    links = re.findall(r"\]\(((?:\.\./)?[\w./]+\.(?:ipynb|md))\)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_exercise_is_named_by_a_notebook():
    text = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "notebooks").glob("*.ipynb"))
    assert [name for name in NAMES if f"../exercises/{name}" not in text] == []


# --- the tool ------------------------------------------------------------------------------------


def test_starter_source():
    source = """\
def f(x):
    # BEGIN SOLUTION
    y = 2 * x
    # END SOLUTION
    #: y = x
    #:     # as it was
    return y

# BEGIN SOLUTION
a = 1
# END SOLUTION
b = 2"""
    assert (
        tool.starter_source(source)
        == """\
def f(x):
    y = x
        # as it was
    return y

raise NotImplementedError("your code here")
b = 2"""
    )


@pytest.mark.parametrize(
    "source", ["# BEGIN SOLUTION\nx", "x\n# END SOLUTION", "# BEGIN SOLUTION\n" * 2]
)
def test_unpaired_marks_are_refused(source):
    with pytest.raises(ValueError, match="SOLUTION"):
        tool.starter_source(source)


def test_a_solution_without_work_is_refused():
    with pytest.raises(ValueError, match="BEGIN SOLUTION"):
        tool.starter(new_notebook(cells=[new_markdown_cell("# x"), new_code_cell("1")]), "x.ipynb")


def test_work_is_not_overwritten(tmp_path, monkeypatch, capsys):
    name = NAMES[1]
    monkeypatch.setattr(tool, "EXERCISES", tmp_path / "exercises")
    (tmp_path / "exercises").mkdir()
    assert tool.main([name]) == 0
    target = tmp_path / "exercises" / name
    target.write_text(before := target.read_text().replace("alpha * eps + x0", "x0"))
    assert tool.main([name]) == 0 and target.read_text() == before
    assert "kept" in capsys.readouterr().out
    assert tool.main(["--check", name]) == 1
    assert tool.main(["--force", name]) == 0 and target.read_text() != before


# --- solving -------------------------------------------------------------------------------------


def solved_cells(name: str):
    """The exercise with the solution's code in it, shortened to what the check needs."""
    exercise, solution = read("exercises", name), read("solutions", name)
    answers = [c.source for c in solution.cells if tool.is_marked(c)]
    marked = [i for i, c in enumerate(solution.cells) if tool.is_marked(c)]
    for i, source in zip(marked, answers):
        exercise.cells[i].source = source
    return exercise


def nbval(path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", str(path)]
    return subprocess.run(command, cwd=path.parent.parent, capture_output=True, text=True)


def test_nbval_passes_exactly_when_solved(tmp_path):
    name = "02_forward_process.ipynb"
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "exercises").mkdir()
    path = tmp_path / "exercises" / name
    shutil.copy(ROOT / "exercises" / name, path)
    unsolved = nbval(path)
    assert unsolved.returncode == 1 and "not yet" in unsolved.stdout
    exercise = solved_cells(name)
    nbformat.write(exercise, path)
    solved = nbval(path)
    assert solved.returncode == 0, solved.stdout
    (check,) = (c for c in exercise.cells if "checks.forward_process(" in c.source)
    check.source = "# checks.forward_process(forward_process)"
    nbformat.write(exercise, path)
    gone = nbval(path)
    assert gone.returncode == 1 and "put the check cell back" in gone.stdout


def test_progress(tmp_path, capsys):
    for name in NAMES[:3]:
        shutil.copy(ROOT / "exercises" / name, tmp_path)
    nbformat.write(solved_cells(NAMES[0]), tmp_path / NAMES[0])
    wrong = read("exercises", NAMES[1])
    wrong.cells[-3 if wrong.cells[-1].cell_type != "code" else -1].source += " "
    for cell in wrong.cells:
        cell.source = cell.source.replace("return alpha * eps + x0", "return x0 + sigma * eps")
    nbformat.write(wrong, tmp_path / NAMES[1])
    rows = list(standings(tmp_path))
    states = [row.state for row in rows[:4]]
    assert states == ["solved", "not yet", "not begun", "missing"]
    assert "differ" in rows[1].why
    assert main(["progress", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"1 of {len(NAMES)} solved." in out and "Next: 02 " in out
    nbformat.write(read("exercises", NAMES[0]), tmp_path / NAMES[0])  # given up
    assert next(standings(tmp_path)).state == "not begun"
    assert fingerprint(wrong) != wrong.metadata["starter"]


def test_progress_counts_no_check_that_is_commented_out_and_names_what_is_damaged(tmp_path):
    done = read("solutions", NAMES[0])
    done.metadata["starter"] = "another"
    for cell in done.cells:
        if cell.cell_type == "code":
            cell.source = "\n".join(
                f"# {line}" if "checks." in line else "" for line in cell.source.splitlines()
            )
    nbformat.write(done, tmp_path / NAMES[0])
    whole = (ROOT / "exercises" / NAMES[1]).read_text(encoding="utf-8")
    for name, text in ((NAMES[1], whole[:500]), (NAMES[2], ""), (NAMES[3], "[1]")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / ".progress.json").write_text("[]")
    rows = list(standings(tmp_path))
    assert [row.state for row in rows[:4]] == ["not yet"] * 4
    assert "check cell is gone" in rows[0].why
    assert all(f"{n} is damaged" in row.why for n, row in zip(NAMES[1:4], rows[1:4]))


def test_progress_of_no_folder(tmp_path, capsys):
    assert main(["progress", str(tmp_path / "none")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_the_exercises_page_lists_them_all():
    page = (ROOT / "exercises" / "README.md").read_text(encoding="utf-8")
    for check, name in zip(checks.ALL, NAMES):
        opening = read("exercises", name).cells[0].source
        found = re.search(r"`(\w+)` · difficulty ([★☆]{5}) · (\d\d) minutes", opening)
        label, stars, minutes = found.groups()
        row = f"| {check.about.number:02d} | [{check.about.title}]({name}) | {label} | {stars} | {minutes} |"
        assert row in page
