import json
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lib.data.folder import Folder
from diffusion_lib.training import shuffled


def paint(path, colour=(200, 30, 30), size=(20, 20), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)


def test_metadata_comes_before_text_files_and_folders(tmp_path):
    paint(tmp_path / "a.png")
    paint(tmp_path / "b.png", (0, 0, 255))
    paint(tmp_path / "green_things" / "c.png", (0, 255, 0))
    (tmp_path / "b.txt").write_text("a blue\nsquare\n")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a red square"}\n\n')
    data = Folder(tmp_path, 8)
    assert data.captions == ["a red square", "a blue square", "green things"]
    assert data.words == ["a", "blue", "green", "red", "square", "things"]
    image, caption = data[2]
    assert image.shape == (3, 8, 8) and caption == "green things"
    assert torch.allclose(image[:, 0, 0], torch.tensor([-1.0, 1.0, -1.0]))
    images, captions = next(shuffled(data, 2))
    assert images.shape == (2, 3, 8, 8) and len(captions) == 2


@pytest.mark.parametrize(
    "name, mode",
    [
        ("a.png", "RGBA"),
        ("a.png", "L"),
        ("a.png", "P"),
        ("a.png", "1"),
        ("a.png", "LA"),
        ("a.jpg", "CMYK"),
        ("a.webp", "RGB"),
        ("a.GIF", "P"),
        ("a.bmp", "RGB"),
        ("a.tiff", "F"),
        ("a.png", "I;16"),
    ],
)
def test_any_mode(tmp_path, name, mode):
    if mode == "I;16":
        Image.fromarray(np.full((9, 9), 65535, np.uint16)).save(tmp_path / name)
    else:
        paint(tmp_path / name, (255, 255, 255), mode=mode)
    (tmp_path / "a.txt").write_text("white")
    assert Folder(tmp_path, 4).images.min() == 255


def test_dark_grey_in_16_bits_stays_dark(tmp_path):
    Image.fromarray(np.full((9, 9), 257 * 40, np.uint16)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("dark")
    assert (Folder(tmp_path, 4).images == 40).all()


def test_what_is_transparent_turns_the_background(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("nothing")
    assert (Folder(tmp_path, 4).images == 255).all()
    assert (Folder(tmp_path, 4, background=(1, 2, 3)).images[0, :, 0, 0].tolist()) == [1, 2, 3]


def test_half_transparent_is_half_of_each(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("pink")
    assert Folder(tmp_path, 4).images[0, :, 0, 0].tolist() == [255, 127, 127]


def test_a_cameras_turn_is_undone(tmp_path):
    image = Image.new("RGB", (8, 8), "white")
    image.paste("black", (0, 0, 8, 4))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    (tmp_path / "a.txt").write_text("half")
    assert Folder(tmp_path, 8).images[0, 0, :, 0].tolist() == [255] * 4 + [0] * 4


def test_the_middle_square(tmp_path):
    image = Image.new("RGB", (30, 10), "white")
    image.paste("black", (10, 0, 20, 10))
    image.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("black")
    assert (Folder(tmp_path, 10).images == 0).all()


def bomb(path, side=30_000):
    """A PNG of a few bytes that says it has side x side pixels."""

    def chunk(kind, body):
        data = kind + body
        return struct.pack(">I", len(body)) + data + struct.pack(">I", zlib.crc32(data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_bad_files_are_named_counted_and_left_out(tmp_path):
    paint(tmp_path / "x" / "good.png")
    (tmp_path / "x" / "empty.png").write_bytes(b"")
    (tmp_path / "x" / "text.jpg").write_text("no picture")
    whole = (tmp_path / "x" / "good.png").read_bytes()
    (tmp_path / "x" / "cut.png").write_bytes(whole[: len(whole) // 2])
    bomb(tmp_path / "x" / "bomb.png")
    paint(tmp_path / "nameless.png")
    row = {"file_name": "gone.png", "text": "gone"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.warns(UserWarning, match="6 files left out .*and 3 more"):
        data = Folder(tmp_path, 8)
    assert data.captions == ["x"]
    assert sorted(p.name for p in data.left_out) == [
        "bomb.png",
        "cut.png",
        "empty.png",
        "gone.png",
        "nameless.png",
        "text.jpg",
    ]
    assert "too many" in data.left_out[tmp_path / "x" / "bomb.png"] or "exceeds" in str(
        data.left_out
    )


def test_a_folder_without_captions(tmp_path):
    paint(tmp_path / "a.png")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="write name.txt beside"):
        Folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        Folder(tmp_path / "none")


@pytest.mark.parametrize(
    "line", ["{", "3", '{"file_name": "a.png"}', '{"file_name": 3, "text": "a"}', "[" * 100_000]
)
def test_a_damaged_table_names_the_line(tmp_path, line):
    paint(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n' + line)
    with pytest.raises(ValueError, match="line 2"):
        Folder(tmp_path)


def test_reading_warns_of_nothing(tmp_path):
    paint(tmp_path / "a b" / "ä.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Folder(tmp_path, 4).captions == ["a b"]
