"""A user's own pictures and captions, in the conventions that people have."""

import json
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from diffusion_lib.data.art import to_float
from diffusion_lib.data.captioned import Captioned
from diffusion_lib.guards import whole
from diffusion_lib.text import Tokenizer

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
MOST = 100_000_000  # pixels of one picture: beyond, it is taken for a decompression bomb


class Folder(Captioned):
    """Pictures and captions below a folder: `images` (n, 3, size, size) uint8, `captions`, `paths`.

    The captions are, where there are any: `text` beside `file_name` in `metadata.jsonl`, a line a
    picture; else `name.txt` beside `name.png`; else the name of the subfolder that a picture lies
    in. Any size and mode: the middle square is cut out and resized, what is transparent turns
    `background`, a camera's turn is undone. Of a film the first frame is taken.

    `left_out`, {path: why}: files that cannot be read or have no caption; a warning counts them.
    Raises FileNotFoundError or ValueError if no picture with a caption is left.
    """

    def __init__(
        self,
        path: str | Path,
        size: int = 64,
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        path, self.size = Path(path), whole("size", size, 1)
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder at {path}")
        self.left_out: dict[Path, str] = {}
        captioned = list(self._captioned(path))

        def read(item: tuple[Path, str]) -> np.ndarray | str:
            try:
                return square(item[0], self.size, background)
            except Exception as error:  # a damaged picture makes Pillow stumble in many ways
                return str(error) or type(error).__name__

        with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
            warnings.simplefilter("ignore")  # of oddities that Pillow can read all the same
            reading = pool.map(read, captioned)
            pixels = list(tqdm(reading, "reading pictures", len(captioned), disable=None))
        good = []
        for item, found in zip(captioned, pixels):
            if isinstance(found, str):
                self.left_out[item[0]] = found
            else:
                good.append((*item, found))
        if self.left_out:
            some = "; ".join(f"{p.name}: {why}" for p, why in list(self.left_out.items())[:3])
            more = f"; and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else ""
            warnings.warn(f"{len(self.left_out)} files left out ({some}{more})", stacklevel=2)
        if not good:
            raise ValueError(
                f"no picture with a caption in {path}: write name.txt beside name.png, or a "
                "metadata.jsonl with file_name and text, or put the pictures into folders named "
                "after what they show"
            )
        self.paths, self.captions = [g[0] for g in good], [g[1] for g in good]
        self.images = torch.from_numpy(np.stack([g[2] for g in good])).permute(0, 3, 1, 2)
        self.images = self.images.contiguous()
        self.words = sorted({word for said in self.captions for word in Tokenizer.split(said)})

    def _captioned(self, path: Path) -> Iterator[tuple[Path, str]]:
        table = path / "metadata.jsonl"
        told = read_metadata(table) if table.is_file() else {}
        for name in told:
            if not (path / name).is_file():
                self.left_out[path / name] = "named in metadata.jsonl, but not there"
        for picture in sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES):
            beside = picture.with_suffix(".txt")
            if picture.relative_to(path).as_posix() in told:
                text = told[picture.relative_to(path).as_posix()]
            elif beside.is_file():
                text = " ".join(beside.read_text(encoding="utf-8-sig", errors="replace").split())
            else:
                text = "" if picture.parent == path else re.sub("[-_]+", " ", picture.parent.name)
            if Tokenizer.split(text):
                yield picture, text.strip()
            else:
                self.left_out[picture] = "no caption"

    def pictures(self, rows: Tensor) -> Tensor:
        return to_float(self.images[rows])


def read_metadata(path: Path) -> dict[str, str]:
    """{file_name: text}. Raises ValueError that names the line."""
    told = {}
    for i, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, text = row["file_name"], row["text"]
            if not (isinstance(name, str) and isinstance(text, str)):
                raise TypeError("file_name and text must be texts")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            wanted = '{"file_name": "a.png", "text": "a red dragon"}'
            raise ValueError(f"{path}, line {i}: {error}; a line reads {wanted}") from None
        told[Path(name).as_posix()] = text
    return told


def picture_and_mask(path: Path, mask: Path | None, size: int) -> tuple[Tensor, Tensor | None]:
    """A picture (1, 3, size, size) in [-1, 1] and a mask of it (1, 1, size, size), 1 where white.

    Raises FileNotFoundError or ValueError, in the user's words.
    """
    found = []
    for file in (path, mask):
        if file is None:
            return found[0], None
        if not Path(file).is_file():
            raise FileNotFoundError(f"there is no file {file}")
        try:
            with Image.open(file) as image:
                shape = ImageOps.exif_transpose(image).size
            pixels = square(file, size, (255, 255, 255) if file is path else (0, 0, 0))
        except Exception as error:  # a damaged picture makes Pillow stumble in many ways
            raise ValueError(f"{file} cannot be read as a picture: {error}") from None
        found += [to_float(torch.from_numpy(pixels).permute(2, 0, 1))[None], shape]
    image, wide, cover, narrow = found
    if wide != narrow:
        raise ValueError(f"{mask} has {narrow} pixels, the picture {wide}: they must be the same")
    return image, (cover.mean(dim=1, keepdim=True) + 1) / 2


def square(path: Path, size: int, background: tuple[int, int, int]) -> np.ndarray:
    """The middle square of a picture, uint8 (size, size, 3). Raises what Pillow raises."""
    with Image.open(path) as image:
        if image.width * image.height > MOST:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":  # grey in 16 bits, or in floats to 255
            grey = np.asarray(image, dtype=np.float64) / (1 if image.mode == "F" else 257)
            image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
        image = image.convert("RGBA")
    sheet = Image.new("RGBA", image.size, (*background, 255))
    image = Image.alpha_composite(sheet, image).convert("RGB")
    return np.array(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))
