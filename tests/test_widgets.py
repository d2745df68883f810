import asyncio
import base64
import io

import ipywidgets
import matplotlib
import numpy as np
import pytest
from PIL import Image

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402

from diffusion_lib import plotting, widgets  # noqa: E402, F401 (plotting sets the figures' size)


def grey(value) -> Image.Image:
    return Image.new("RGB", (4, 4), (int(value),) * 3)


def pixel(image: ipywidgets.Image) -> int:
    return Image.open(io.BytesIO(image.value)).getpixel((0, 0))[0]


def test_a_moved_slider_changes_the_picture():
    slider = ipywidgets.IntSlider(3, 0, 255)
    top, image, caption = widgets._explorer(grey, slider, "greys: from 3").children
    assert top is slider and pixel(image) == 3 and "greys: from 3" in caption.value
    slider.value = 77
    assert pixel(image) == 77 and ">77<" in caption.value
    slider.description = "grey"
    slider.value = 78
    assert ">grey = 78<" in caption.value


def test_several_sliders_go_by_name():
    sliders = {"a": ipywidgets.IntSlider(1), "b": ipywidgets.Dropdown(options=[10, 20])}
    box = widgets._explorer(lambda b, a: grey(a + b), sliders, "sums: from 11")
    image = box.children[2]
    assert pixel(image) == 11
    sliders["b"].value = 20
    assert pixel(image) == 21


def test_it_says_that_it_draws_and_then_what_is_set():
    said, caption = [], ipywidgets.HTML()

    def draw(t, name):
        said.append(caption.value)
        return grey(t)

    options = [("a word", 1), ("another", 2)]
    controls = {"t": ipywidgets.FloatSlider(1, description="time t"), "name": ipywidgets.Dropdown(options=options, description="kind")}  # fmt: skip
    caption = widgets._explorer(draw, controls, "text 1").children[3]
    controls["t"].value = 2.5
    assert "drawing …" in said[-1] and "time t = 2.5, kind = a word" in caption.value
    controls["name"].value = 2
    assert "time t = 2.5, kind = another" in caption.value


def test_first_error_fails_the_cell_later_ones_are_shown():
    def draw(value):
        if value > 5:
            raise KeyError("<no such value>")
        return grey(value)

    with pytest.raises(KeyError):
        widgets._explorer(draw, ipywidgets.IntSlider(9), "text 1")
    slider = ipywidgets.IntSlider(2)
    _, image, caption = widgets._explorer(draw, slider, "text 1").children
    slider.value = 6
    assert pixel(image) == 2
    assert "KeyError" in caption.value and "&lt;no such value&gt;" in caption.value
    slider.value = 4
    assert pixel(image) == 4 and "KeyError" not in caption.value


def test_a_cell_above_that_was_not_run_is_asked_for():
    def draw(value):
        return never_defined  # noqa: F821

    for made in (
        lambda: widgets._explorer(draw, ipywidgets.IntSlider(9), "text 1"),
        lambda: widgets._painter(draw, "a cat", "text 1", "Paint"),
    ):
        with pytest.raises(NameError, match="'never_defined' is not defined: run the cells above"):
            made()


def test_figures_are_closed_and_keep_their_size():
    def draw(value):
        fig, axis = plt.subplots()
        axis.plot([0, 10**value])
        return fig

    plt.close("all")  # whatever others left
    slider = ipywidgets.IntSlider(0, 0, 9)
    image = widgets._explorer(draw, slider, "text 1").children[1]
    first = Image.open(io.BytesIO(image.value)).size
    slider.value = 9
    assert Image.open(io.BytesIO(image.value)).size == first
    assert plt.get_fignums() == []


def test_arrays_are_pictures_and_nothing_else_is():
    assert widgets._png(np.zeros((2, 2, 3), np.uint8)).startswith(b"\x89PNG")
    for wrong in (None, np.zeros((2, 2, 3)), "picture"):
        with pytest.raises(TypeError, match="draw a figure, a Pillow image"):
            widgets._png(wrong)


def test_explore_displays_a_bundle_with_fixed_text(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", lambda bundle, metadata, raw: shown.append(bundle))
    widgets.explore(grey, ipywidgets.IntSlider(7), "greys: from 7")
    (bundle,) = shown
    assert bundle["text/plain"] == "greys: from 7"
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    with pytest.raises(ValueError, match="needs a text"):
        widgets.explore(grey, ipywidgets.IntSlider(7), "")


class Painter:
    """Knows numbers only; remembers whether the button was disabled while it painted."""

    def __init__(self):
        self.calls, self.button, self.was_disabled = [], None, None

    def __call__(self, prompt):
        self.calls.append(prompt)
        self.was_disabled = self.button.disabled if self.button else None
        if prompt == "crash":
            raise RuntimeError("broken")
        if not prompt.isdigit():
            raise ValueError(f"unknown word {prompt!r}; near: <7>")
        return grey(prompt)


@pytest.fixture
def box():
    paint = Painter()
    row, message, image = widgets._painter(paint, "7", "a grey: 7", "Paint").children
    prompt, paint.button = row.children
    return paint, prompt, paint.button, message, image


def test_paint_box_paints_at_once_on_click_and_on_enter(box):
    paint, prompt, button, message, image = box
    assert pixel(image) == 7 and "a grey: 7" in message.value
    prompt.value = "50"
    assert paint.calls == ["7"]  # typing alone paints nothing
    button.click()
    assert pixel(image) == 50 and paint.was_disabled and not button.disabled
    prompt.value = "60"
    prompt._handle_custom_msg({"event": "submit"}, [])
    assert pixel(image) == 60 and paint.calls == ["7", "50", "60"]


def test_enter_waits_for_the_last_letters(box):
    """On a slow connection "Enter" arrives before the line does."""
    paint, prompt, _, _, image = box

    async def session():
        prompt._handle_custom_msg({"event": "submit"}, [])
        prompt.value = "88"
        await asyncio.sleep(widgets.ARRIVES + 0.1)

    asyncio.run(session())
    assert pixel(image) == 88 and paint.calls == ["7", "88"] and not prompt.disabled


def test_paint_box_shows_errors_kindly(box):
    paint, prompt, button, message, image = box
    prompt.value = "drgon"
    button.click()
    assert "unknown word &#x27;drgon&#x27;; near: &lt;7&gt;" in message.value
    assert "ValueError" not in message.value
    assert pixel(image) == 7 and not button.disabled and not prompt.disabled
    prompt.value = "crash"
    button.click()
    assert "RuntimeError: broken" in message.value and not button.disabled
