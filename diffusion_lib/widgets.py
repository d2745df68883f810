"""Interactive figures, in JupyterLab and on Colab (ipywidgets 7.7 and 8).

One pattern: widgets above, one Image below whose bytes a callback replaces. It does not flicker,
and nbval compares the fixed text that goes with it.
"""

import asyncio
import base64
import html
import io
from collections.abc import Callable, Mapping

import ipywidgets
import numpy as np
from IPython.display import display
from PIL import Image, ImageDraw

Picture = object  # a matplotlib figure, a Pillow image, or a uint8 array (H, W, 3)
ARRIVES = 0.1  # seconds after Enter in which the browser's last letters arrive


def explore(
    draw: Callable[..., Picture],
    slider: ipywidgets.Widget | Mapping[str, ipywidgets.Widget],
    text: str,
) -> None:
    """Shows `draw(slider.value)`, and draws it again whenever the slider moves.

    draw: returns a matplotlib figure, a Pillow image, or a uint8 array (H, W, 3).
    slider: any widget with a value; or several by name, for draw(name=value, ...).
    text: what to see, with a number computed beforehand; the caption at first, and what nbval
    compares. Once something was moved, the caption says what is set.
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

    image, caption = _image(_first(picture)), ipywidgets.HTML()
    _say(caption, text)

    def update(change) -> None:
        _say(caption, "drawing …")
        try:
            image.value = picture()
            _say(caption, ", ".join(map(_setting, controls)))
        except Exception as error:  # a callback's traceback would be lost: show what went wrong
            _say(caption, f"{type(error).__name__}: {error}", bad=True)

    for control in controls:
        control.observe(update, names="value")
    return ipywidgets.VBox([*controls, image, caption])


def _setting(widget: ipywidgets.Widget) -> str:
    """'time t = 500': what a control is set to."""
    options = dict(
        getattr(widget, "_options_full", ()) or ()
    )  # of a menu: its words, not its values
    word = next((k for k, v in options.items() if v is widget.value), widget.value)
    said = f"{word:g}" if isinstance(word, float) else word
    return f"{widget.description} = {said}" if widget.description else f"{said}"


def _painter(paint, default_prompt: str, text: str, label: str) -> ipywidgets.VBox:
    layout = ipywidgets.Layout(width="28em")
    prompt = ipywidgets.Text(value=default_prompt, layout=layout, continuous_update=False)
    button = ipywidgets.Button(description=label, button_style="primary")
    image = _image(_first(lambda: _png(paint(default_prompt))))
    message = ipywidgets.HTML()
    _say(message, text)

    def run(*_) -> None:
        button.disabled = True  # not the line: it would lose the focus
        _say(message, "painting …")
        try:
            image.value = _png(paint(prompt.value))
            _say(message, text)
        except ValueError as error:
            _say(message, str(error), bad=True)
        except Exception as error:
            _say(message, f"{type(error).__name__}: {error}", bad=True)
        finally:
            button.disabled = False

    def key(_, content, buffers) -> None:
        if content.get("event") != "submit":  # Enter; `on_submit` is deprecated in ipywidgets 8
            return
        try:  # the browser says "Enter" first, and then what stands in the line
            asyncio.get_running_loop().call_later(ARRIVES, run)
        except RuntimeError:  # no kernel
            run()

    button.on_click(run)
    prompt.on_msg(key)
    return ipywidgets.VBox([ipywidgets.HBox([prompt, button]), message, image])


def _first(picture: Callable[[], bytes]) -> bytes:
    """The first picture; says what to do where a cell above has not been run."""
    try:
        return picture()
    except NameError as error:
        said = f"{error}: run the cells above first (Run, Run All Above Selected Cell)"
        raise NameError(said) from None


def _image(data: bytes) -> ipywidgets.Image:
    """At its own size: a box would stretch it to its width."""
    layout = ipywidgets.Layout(align_self="flex-start", max_width="100%")
    return ipywidgets.Image(value=data, format="png", layout=layout)


def _say(label: ipywidgets.HTML, text: str, bad: bool = False) -> None:
    """In the theme's own colours: JupyterLab's, Colab's, or those of the page."""
    style = "font-weight: bold; color: var(--jp-error-color1, #C62828)" if bad else ""
    label.value = f'<span style="{style}">{html.escape(text)}</span>'


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


def _with_note(png: bytes, note: str) -> bytes:
    """The picture above a line of words."""
    with Image.open(io.BytesIO(png)) as image:
        sheet = Image.new("RGB", (max(image.width, 230), image.height + 24), "white")
        sheet.paste(image.convert("RGB"), (0, 0))
    ImageDraw.Draw(sheet).text((4, sheet.height - 18), note, fill="#595959", font_size=13)
    return _png(sheet)


def _show(box: ipywidgets.VBox, text: str) -> None:
    """As a bundle: the widget, a still of it for pages without a kernel, and the text for nbval."""
    if not text.strip():
        raise ValueError("an interactive figure needs a text: what to see, and one number")
    picture = next(child for child in box.children if isinstance(child, ipywidgets.Image))
    still = _with_note(picture.value, "a still: run this cell to try it")
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    bundle = {
        "application/vnd.jupyter.widget-view+json": view,
        "image/png": base64.b64encode(still).decode(),
        "text/plain": text,
    }
    display(bundle, metadata={"image/png": {"alt": text}}, raw=True)
