"""Figures, and above all that nbval accepts them twice and notices when they change."""

import base64
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402

from diffusion_lib import plotting  # noqa: E402

ROOT = Path(__file__).parent.parent


@pytest.fixture
def shown(monkeypatch):
    """Collects what would be displayed: a list of (bundle, metadata)."""
    found = []

    def display(bundle, metadata, raw):
        assert raw
        found.append((bundle, metadata))

    monkeypatch.setattr(plotting, "display", display)
    return found


def test_show_bundles_picture_text_and_alt(shown, capsys):
    fig, axis = plt.subplots()
    axis.plot([1, 2])
    plotting.show(fig, "a line: slope 1.00")
    ((bundle, metadata),) = shown
    assert set(bundle) == {"image/png", "text/plain"}
    assert bundle["text/plain"] == metadata["image/png"]["alt"] == "a line: slope 1.00"
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).format == "PNG"
    assert not plt.fignum_exists(fig.number)
    assert capsys.readouterr().out == ""


def test_caption_is_drawn_below_the_figure(shown):
    """A longer caption makes a taller picture, not a wider one."""
    heights, widths = [], []
    for text in ("short 1", "a long caption that goes on and on, 1.23 " * 6):
        fig, axis = plt.subplots()
        axis.plot([1, 2])
        plotting.show(fig, text)
        width, height = Image.open(io.BytesIO(base64.b64decode(shown[-1][0]["image/png"]))).size
        heights.append(height)
        widths.append(width)
    assert heights[1] > heights[0] + 20
    assert abs(widths[1] - widths[0]) < 60


def test_show_wants_a_text():
    with pytest.raises(ValueError, match="needs a text"):
        plotting.show(plt.figure(), " ")
    plt.close("all")


def test_show_images_places_titles_and_hides_empty_axes(shown):
    images = torch.zeros(3, 3, 8, 8)
    fig = plotting.image_figure(images, ["a", "b", "c"], columns=2, title="three")
    assert [axis.get_title() for axis in fig.axes] == ["a", "b", "c", ""]
    assert not fig.axes[3].images and not any(axis.axison for axis in fig.axes)
    plt.close(fig)
    plotting.show_images(images)
    assert shown[0][0]["text/plain"] == "3 images: mean 0.00, standard deviation 0.00"
    with pytest.raises(ValueError, match="2 titles for 3 images"):
        plotting.show_images(images, ["a", "b"])


def test_curves():
    fig = plotting.curves(
        torch.arange(1, 4),
        {"a": [1, 2, 3], "b": torch.ones(3)},
        title="t",
        xlabel="x",
        ylabel="y",
        log="y",
    )
    (axis,) = fig.axes
    assert [line.get_label() for line in axis.lines] == ["a", "b"]
    assert (axis.get_xscale(), axis.get_yscale()) == ("linear", "log")
    plt.close(fig)


def test_animate_is_an_endless_png(shown):
    frames = [torch.full((2, 3, 16, 16), v) for v in (-1.0, 0.0, 1.0)]
    plotting.animate(frames, "three greys: last 1.00", seconds=0.3)
    bundle = shown[0][0]
    film = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert (film.n_frames, film.info["loop"]) == (3, 0)
    assert bundle["text/plain"] == "three greys: last 1.00"


CELLS = [
    "import matplotlib.pyplot as plt\nimport ipywidgets\n"
    "from diffusion_lib.plotting import show\nfrom diffusion_lib.widgets import explore, paint_box\n"
    "from diffusion_lib.course import progress\nfrom PIL import Image",
    "fig, axis = plt.subplots()\naxis.plot([1, 2])\nshow(fig, 'a line: slope 1.00')",
    "def draw(t):\n    fig, axis = plt.subplots()\n    axis.plot([0, t])\n    return fig\n"
    "explore(draw, ipywidgets.IntSlider(3), 'a slider: from 3')",
    "paint_box(lambda prompt: Image.new('RGB', (8, 8)), 'a dragon', 'a box: 8 pixels')",
    "for _ in progress(range(3), desc='walking'):\n    pass\nprint('done')",
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A folder with a small executed notebook and the course's own conftest.py."""
    pytest.importorskip("nbval")
    folder = tmp_path_factory.mktemp("nbval")
    shutil.copy(ROOT / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    notebook = new_notebook(cells=[new_code_cell(source) for source in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # for kernels, where the library is not installed
        NotebookClient(notebook, kernel_name="python3", store_widget_state=False).execute()
        nbformat.write(notebook, folder / "small.ipynb")
        yield folder


def nbval(folder: Path, text: str, name: str = "small.ipynb") -> str:
    """The closing line of `pytest --nbval` on a notebook of this text."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", name]
    out = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout
    return re.sub(r" in [\d.]+s.*", "", out.strip().splitlines()[-1])


def test_nbval_accepts_a_second_run_and_notices_changes(executed):
    text = (executed / "small.ipynb").read_text(encoding="utf-8")
    assert nbval(executed, text) == "5 passed"
    changed = text.replace('"a line: slope 1.00"', '"a line: slope 1.01"')
    changed = changed.replace('"a slider: from 3"', '"a slider: from 4"')
    assert nbval(executed, changed) == "2 failed, 3 passed"


def test_in_exercises_only_errors_count(executed):
    text = (executed / "small.ipynb").read_text(encoding="utf-8")
    changed = text.replace('"a line: slope 1.00"', '"a line: slope 1.01"')
    assert nbval(executed, changed, "exercises/small.ipynb") == "5 passed"
    broken = changed.replace("print('done')", "1 / 0")
    assert nbval(executed, broken, "exercises/small.ipynb") == "1 failed, 4 passed"
