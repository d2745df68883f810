"""A folder for what the learner's code writes."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion_lib.checks._wrong import Wrong


@contextmanager
def elsewhere() -> Iterator[Path]:
    """A new folder, with "work" in it, where one is meanwhile, and "temp", where tempfile writes.

    All is removed at the end. What is then left in "work" was written to the wrong place.
    """
    before, temporary = os.getcwd(), tempfile.tempdir
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        root = Path(name).resolve()
        for part in ("work", "temp"):
            (root / part).mkdir()
        os.chdir(root / "work")
        tempfile.tempdir = str(root / "temp")
        try:
            yield root
            if stray := sorted(p.name for p in (root / "work").rglob("*") if p.is_file()):
                raise Wrong(
                    f"Something was written into the working directory: {', '.join(stray)}.",
                    "other place",
                    "the path that you are given is where the file belongs",
                )
        finally:
            tempfile.tempdir = temporary
            os.chdir(before)
