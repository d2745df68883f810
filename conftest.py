"""nbval's options, set here and not in pyproject.toml so that plain pytest works without nbval."""

import os
from pathlib import Path

CELL_TIMEOUT = 300  # seconds that a cell may run
OUTPUT_TIMEOUT = 60  # seconds to wait for a cell's last output


def pytest_configure(config):
    """Notebooks' kernels inherit this environment: the saved outputs are the CPU's."""
    os.environ["DIFFUSION_COURSE"] = "cpu"
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # threads that spin slow a busy machine down tenfold
    parallel = getattr(config.option, "numprocesses", None)  # pytest-xdist's -n
    os.environ.setdefault("OMP_NUM_THREADS", "1" if parallel else "2")
    if config.pluginmanager.hasplugin("nbval"):
        if config.option.nbval_kernel_name is None:
            config.option.nbval_current_env = True
        config.option.nbval_cell_timeout = min(config.option.nbval_cell_timeout, CELL_TIMEOUT)


def pytest_collection_modifyitems(items):
    exercises = Path(__file__).parent / "exercises"
    for item in items:
        if type(item).__name__ != "IPyNbCell":
            continue
        item.output_timeout = OUTPUT_TIMEOUT
        if exercises in item.path.parents:  # a learner's outputs are free: only exceptions count
            item.options["check"] = False
