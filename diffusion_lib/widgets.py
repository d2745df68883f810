"""Interactive figures, in JupyterLab and on Colab (ipywidgets 7.7 and 8).

One pattern: widgets above, one Image below whose bytes a callback replaces. It does not flicker,
and nbval compares the fixed text that goes with it.
"""

import base64
import html
import io
from collections.abc import Callable, Mapping

import ipywidgets
import numpy as np
from IPython.display import display
from PIL import Image

Picture = object  # a matplotlib figure, a Pillow image, or a uint8 array (H, W, 3)


def explore(
    draw: Callable[..., Picture],
    slider: ipywidgets.Widget | Mapping[str, ipywidgets.Widget],
    text: str,
) -> None:
    """Shows `draw(slider.value)`, and draws it again whenever the slider moves.

    draw: returns a matplotlib figure, a Pillow image, or a uint8 array (H, W, 3).
    slider: any widget with a value; or several by name, for draw(name=value, ...).
    text: what to see, with a number computed beforehand; the caption, and what nbval compares.
    An error in the first drawing fails the cell; later ones are shown in place of the caption.
    """
    _show(_explorer(draw, slider, text), text)


def paint_box(
    paint: Callable[[str], Picture], default_prompt: str, text: str, button: str = "Paint"
) -> None:
    """Shows a line for a prompt, a button, and `paint(prompt)`, painted anew on Enter or a click.

    text: as in `explore`. A ValueError (a word that the model does not know, say) is shown under
    the line in its own words.
    """
    _show(_painter(paint, default_prompt, text, button), text)


def _explorer(draw, slider, text: str) -> ipywidgets.VBox:
    named = slider if isinstance(slider, Mapping) else {}
    controls = list(named.values()) or [slider]

    def picture() -> bytes:
        if named:
            return _png(draw(**{name: widget.value for name, widget in named.items()}))
        return _png(draw(slider.value))

    image, caption = _image(picture()), ipywidgets.HTML()
    _say(caption, text)

    def update(change) -> None:
        try:
            image.value = picture()
            _say(caption, text)
        except Exception as error:  # a callback's traceback would be lost: show what went wrong
            _say(caption, f"{type(error).__name__}: {error}", bad=True)

    for control in controls:
        control.observe(update, names="value")
    return ipywidgets.VBox([*controls, image, caption])


def _painter(paint, default_prompt: str, text: str, label: str) -> ipywidgets.VBox:
    layout = ipywidgets.Layout(width="28em")
    prompt = ipywidgets.Text(value=default_prompt, layout=layout)
    button = ipywidgets.Button(description=label, button_style="primary")
    image = _image(_png(paint(default_prompt)))
    message = ipywidgets.HTML()
    _say(message, text)

    def run(*_) -> None:
        prompt.disabled = button.disabled = True
        _say(message, "painting …")
        try:
            image.value = _png(paint(prompt.value))
            _say(message, text)
        except ValueError as error:
            _say(message, str(error), bad=True)
        except Exception as error:
            _say(message, f"{type(error).__name__}: {error}", bad=True)
        finally:
            prompt.disabled = button.disabled = False

    def key(_, content, buffers) -> None:
        if content.get("event") == "submit":  # Enter; `on_submit` is deprecated in ipywidgets 8
            run()

    button.on_click(run)
    prompt.on_msg(key)
    return ipywidgets.VBox([ipywidgets.HBox([prompt, button]), message, image])


def _image(data: bytes) -> ipywidgets.Image:
    """At its own size: a box would stretch it to its width."""
    layout = ipywidgets.Layout(align_self="flex-start", max_width="100%")
    return ipywidgets.Image(value=data, format="png", layout=layout)


def _say(label: ipywidgets.HTML, text: str, bad: bool = False) -> None:
    colour = "#B00020" if bad else "#595959"
    label.value = f'<span style="color: {colour}">{html.escape(text)}</span>'


def _png(picture: Picture) -> bytes:
    """PNG bytes of whatever a callback returned; a figure is closed."""
    if hasattr(picture, "savefig"):
        from diffusion_lib.plotting import png

        return png(picture)  # not "tight": the picture keeps its size
    buffer = io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(buffer, "PNG")
    elif isinstance(picture, np.ndarray) and picture.dtype == np.uint8:
        Image.fromarray(picture).save(buffer, "PNG")
    else:
        got = type(picture).__name__
        raise TypeError(f"draw a figure, a Pillow image or a uint8 array (H, W, 3), not {got}")
    return buffer.getvalue()


def _show(box: ipywidgets.VBox, text: str) -> None:
    """As a bundle: the widget, a still of it for pages without a kernel, and the text for nbval."""
    if not text.strip():
        raise ValueError("an interactive figure needs a text: what to see, and one number")
    still = next(child for child in box.children if isinstance(child, ipywidgets.Image))
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    bundle = {
        "application/vnd.jupyter.widget-view+json": view,
        "image/png": base64.b64encode(still.value).decode(),
        "text/plain": text,
    }
    display(bundle, metadata={"image/png": {"alt": text}}, raw=True)
