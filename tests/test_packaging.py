"""pyproject.toml, environment.yml, constraints.txt and what the code imports tell one story."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
DIRECT = CORE + [Requirement(line) for lines in EXTRAS.values() for line in lines]
# these may import the notebooks extra: course.py in a notebook, the last two for `progress`
NOTEBOOK_MODULES = {"plotting.py", "widgets.py", "course.py", "progress.py", "__main__.py"}
IMPORT_NAMES = {"pillow": "PIL", "ipython": "IPython"}


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    assert len({pin.name for pin in pins}) == len(pins), "a package is constrained twice"
    return {pin.name: pin for pin in pins}


@pytest.mark.parametrize("dependency", DIRECT, ids=lambda d: d.name)
def test_constraint_satisfies_bound(dependency):
    (pin,) = [*constraints()[dependency.name].specifier]
    assert pin.operator == "==" and "*" not in pin.version
    assert pin.version in dependency.specifier


def test_no_constraint_is_left_over():
    assert set(constraints()) == {dependency.name for dependency in DIRECT}


def test_dependencies_have_lower_bounds_only():
    for dependency in DIRECT:
        assert [s.operator for s in dependency.specifier] == [">="], dependency


def test_constraints_are_in_force_on_this_python():
    """On 3.11 and newer every constraint but that of the backport counts."""
    if sys.version_info >= (3, 11):
        idle = {
            name for name, pin in constraints().items() if pin.marker and not pin.marker.evaluate()
        }
        assert idle == {"tomli"}


def test_environment_installs_from_pyproject():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    items = re.findall(r"^\s*- (.+)$", text, flags=re.MULTILINE)
    python = "python" + PROJECT["requires-python"]
    # without what learners do not need, and what is installed by itself
    extras = ",".join(name for name in EXTRAS if name not in ("benchmark", "text"))
    assert items == ["conda-forge", python, "pip", "pip:", "-c constraints.txt", f"-e .[{extras}]"]


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "diffusion_lib").rglob("*.py")), ids=lambda p: p.name
)
def test_what_is_imported_is_declared(path):
    allowed = CORE + [Requirement(line) for line in EXTRAS["notebooks"]]
    if path.name not in NOTEBOOK_MODULES:
        allowed = CORE
    names = {IMPORT_NAMES.get(d.name, d.name) for d in allowed} | {"diffusion_lib"}
    assert imports(path) <= names


def test_address_stands_in_one_place():
    """Elsewhere it is only stamped into notebooks, from here."""
    address = PROJECT["urls"]["Repository"]
    texts = [p for pattern in ("*.*", "*/*.py", "*/*/*.yml") for p in ROOT.glob(pattern)]
    holders = [p.name for p in texts if p.is_file() and address.encode() in p.read_bytes()]
    assert holders == ["pyproject.toml"]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize("prompt", ["a blue cat", '$(shell touch SPRUNG) `touch SPRUNG` "it\'s"'])
def test_make_takes_options_before_and_behind_it_and_reads_none_as_code(tmp_path, prompt):
    show = f'include {ROOT / "Makefile"}\nshow:\n\t@printf \'%s|\' "$$PROMPT" "$$SEED"\n'
    (tmp_path / "M").write_text(show, encoding="utf-8")
    command = ["make", "-f", "M", "show"]
    for arguments, environment in [
        ([f"PROMPT={prompt}", "SEED=3"], {}),
        ([], {"PROMPT": prompt, "SEED": "3"}),
        ([f"PROMPT={prompt}"], {"PROMPT": "the other", "SEED": "3"}),
    ]:
        ours = ("PROMPT", "SEED", "MAKELEVEL", "MAKEFLAGS", "MFLAGS")  # when make runs this test
        told = {k: v for k, v in os.environ.items() if k not in ours} | environment
        done = subprocess.run(
            command + arguments, cwd=tmp_path, env=told, capture_output=True, text=True
        )
        assert done.stdout == f"{prompt}|3|", done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["M"]
