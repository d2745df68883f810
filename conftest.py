"""nbval's options, set here and not in pyproject.toml so that plain pytest works without nbval."""

import json
import os
import re
from pathlib import Path

import pytest

CELL_TIMEOUT = 300  # seconds that a cell may run
OUTPUT_TIMEOUT = 60  # seconds to wait for a cell's last output
EXERCISES = Path(__file__).parent / "exercises"


def pytest_configure(config):
    """Notebooks' kernels inherit this environment: the saved outputs are the CPU's."""
    os.environ["DIFFUSION_COURSE"] = "cpu"
    # Threads that spin long slow a busy machine down tenfold; threads that never spin are slow alone.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    parallel = getattr(config.option, "numprocesses", None)  # pytest-xdist's -n
    os.environ.setdefault("OMP_NUM_THREADS", "1" if parallel else "2")
    if config.pluginmanager.hasplugin("nbval"):
        if config.option.nbval_kernel_name is None:
            config.option.nbval_current_env = True
        config.option.nbval_cell_timeout = min(config.option.nbval_cell_timeout, CELL_TIMEOUT)


def pytest_collection_modifyitems(items):
    for item in items:
        if type(item).__name__ != "IPyNbCell":
            continue
        item.output_timeout = OUTPUT_TIMEOUT
        if EXERCISES in item.path.parents:  # a learner's outputs are free: only exceptions count
            item.options["check"] = False


def pytest_collect_file(file_path, parent):
    """Beside nbval's cells, an exercise has one test more: that its check is still called."""
    named = re.fullmatch(r"\d\d_\w+\.ipynb", file_path.name) and file_path.parent == EXERCISES
    if named and getattr(parent.config.option, "nbval", False):
        return Exercise.from_parent(parent, path=file_path)


class Exercise(pytest.File):
    def collect(self):
        yield CheckCell.from_parent(self, name="check cell")


class CheckCell(pytest.Item):
    def runtest(self):
        from diffusion_lib.progress import calls  # not above: it loads torch

        wanted = self.path.stem.split("_", 1)[1]  # 02_forward_process calls checks.forward_process
        for cell in json.loads(self.path.read_text(encoding="utf-8"))["cells"]:
            skipped = "nbval-skip" in cell["metadata"].get("tags", ()) or "NBVAL_SKIP" in str(cell)
            if cell["cell_type"] == "code" and not skipped and calls(wanted, cell["source"]):
                return
        pytest.fail(f"no cell calls checks.{wanted}(…) any more: put the check cell back", False)

    def reportinfo(self):
        return self.path, None, f"{self.path.name}: its check cell"
