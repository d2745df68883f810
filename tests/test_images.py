import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lib.images import save_gif, save_png, tile, to_uint8


def colours(n: int, size: int = 4) -> torch.Tensor:
    return torch.linspace(-1, 1, n * 3).reshape(n, 3, 1, 1).expand(n, 3, size, size)


def test_tensors_are_saved_as_sheets(tmp_path):
    save_png(colours(2), tmp_path / "a.png")
    save_gif([colours(2), -colours(2)], tmp_path / "a.gif")
    assert Image.open(tmp_path / "a.png").size == (130, 64)
    with pytest.raises(ValueError, match="must be a float tensor"):
        save_png("picture", tmp_path / "a.png")


def test_to_uint8_maps_the_ends_and_clamps():
    values = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0])
    pixels = to_uint8(values.reshape(1, 1, 5).expand(3, 1, 5))
    assert pixels.dtype == np.uint8 and pixels.shape == (1, 5, 3)
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_to_uint8_and_back_is_exact():
    every = torch.arange(256).reshape(1, 256).expand(3, 1, 256)
    assert np.array_equal(to_uint8(every / 127.5 - 1)[0, :, 0], np.arange(256))


def test_to_uint8_keeps_leading_axes_and_takes_bfloat16():
    assert to_uint8(torch.zeros(2, 5, 3, 4, 6, dtype=torch.bfloat16)).shape == (2, 5, 4, 6, 3)


@pytest.mark.parametrize(
    "bad, word",
    [
        (torch.zeros(4, 4, 3), "channels to the front"),
        (torch.zeros(2, 1, 4, 4), "channels"),
        (torch.zeros(4, 4), "shape"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "127.5"),
        (np.zeros((3, 4, 4), np.float32), "must be a float tensor"),
        (torch.full((3, 4, 4), torch.nan), "48 of 48 values are NaN"),
        (torch.full((3, 4, 4), torch.inf), "infinite"),
    ],
)
def test_to_uint8_refuses_in_words(bad, word):
    with pytest.raises(ValueError, match=word):
        to_uint8(bad)


def test_tile_places_row_by_row_without_blur():
    images = colours(3)
    sheet = np.asarray(tile(images, columns=2, pad=1, scale=2, background=(1, 2, 3)))
    assert sheet.shape == (17, 17, 3)
    assert (sheet[:8, :8] == to_uint8(images[0])[0, 0]).all()
    assert (sheet[:8, 9:] == to_uint8(images[1])[0, 0]).all()
    assert (sheet[9:, :8] == to_uint8(images[2])[0, 0]).all()
    for background in (sheet[8], sheet[:, 8], sheet[9:, 9:]):
        assert (background == (1, 2, 3)).all()


def test_tile_enlarges_pixels_to_squares():
    image = torch.rand(3, 4, 4) * 2 - 1
    sheet = np.asarray(tile(image, scale=3))
    assert np.array_equal(sheet[1::3, 1::3], to_uint8(image))
    assert np.array_equal(sheet[::3, ::3], sheet[2::3, 2::3])


@pytest.mark.parametrize("n, size", [(1, (4, 4)), (4, (8, 8)), (5, (12, 8)), (9, (12, 12))])
def test_tile_is_nearly_square(n, size):
    assert tile(colours(n), pad=0).size == size


def test_tile_refuses_nothing():
    with pytest.raises(ValueError, match="empty"):
        tile(torch.zeros(0, 3, 4, 4))
    with pytest.raises(ValueError, match="at least 1"):
        tile(colours(2), scale=0)


def test_save_png_round_trip_and_makes_the_folder(tmp_path):
    sheet = tile(torch.rand(4, 3, 8, 8) * 2 - 1)
    save_png(sheet, path := tmp_path / "new" / "a.png")
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(sheet))
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_save_says_why_it_cannot(tmp_path):
    sheet = tile(colours(1))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="it is a folder"):
        save_png(sheet, tmp_path / "folder.png")
    with pytest.raises(OSError, match="is a file, not a folder"):
        save_png(sheet, tmp_path / "file" / "a.png")
    with pytest.raises(ValueError, match="call it a.png"):
        save_png(sheet, tmp_path / "a.jpg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_failed_save_keeps_the_earlier_file(tmp_path, monkeypatch):
    save_png(tile(colours(1)), path := tmp_path / "a.png")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(
        OSError, match="a.png; the previous one is untouched: No space left on device"
    ):
        save_png(tile(colours(2)), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_permission_error_in_words(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", denied)
    with pytest.raises(OSError, match="you may not write to the folder"):
        save_png(tile(colours(1)), tmp_path / "a.png")


def film(n: int = 12) -> list[Image.Image]:
    """Noise that turns into a picture of smooth colours, as in sampling."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-1, 1, 16)
    picture = torch.stack([ramp.expand(16, 16), ramp[:, None].expand(16, 16), torch.zeros(16, 16)])
    noise = torch.randn(3, 16, 16, generator=generator)
    return [tile(torch.lerp(noise, picture, i / (n - 1)), scale=8) for i in range(n)]


def test_gif_plays_all_frames_and_rests_on_the_last(tmp_path):
    save_gif(film(), path := tmp_path / "a.gif", seconds=1.2)
    gif = Image.open(path)
    durations = []
    for i in range(gif.n_frames):
        gif.seek(i)
        durations.append(gif.info["duration"])
    assert gif.info["loop"] == 0
    assert durations == [100] * 11 + [1600]


def test_gif_keeps_the_colours(tmp_path):
    """One palette for noise and picture: the last frame is near exact, the noise close."""
    frames = film()
    save_gif(frames, path := tmp_path / "a.gif")
    gif = Image.open(path)
    errors = []
    for i, frame in enumerate(frames):
        gif.seek(i)
        difference = np.asarray(gif.convert("RGB"), float) - np.asarray(frame, float)
        errors.append(np.sqrt((difference**2).mean()))
    assert errors[-1] < 8
    assert max(errors) < 16


def test_gif_does_not_flicker(tmp_path):
    """What stands still in the frames stands still in the file."""
    frames = film()
    for frame in frames:
        frame.paste((200, 40, 90), (0, 0, 64, 128))
    save_gif(frames, path := tmp_path / "a.gif")
    gif = Image.open(path)
    seen = set()
    for i in range(gif.n_frames):
        gif.seek(i)
        seen |= set(map(tuple, np.asarray(gif.convert("RGB"))[:, :64].reshape(-1, 3)))
    assert len(seen) == 1


def test_gif_refuses_in_words(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        save_gif([], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="one size"):
        save_gif([tile(colours(1)), tile(colours(2))], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="seconds"):
        save_gif([tile(colours(1))], tmp_path / "a.gif", seconds=0)
