import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from diffusion_lib.data import ArrayImages
from diffusion_lib.training import shuffled

MIXED = [0.5, 0.0, 0.5, 0.0, 0.0]  # half hero, half food


@pytest.fixture
def pair(tmp_path):
    """The shapes and dtypes of the original course's files, but fewer: a pair of paths."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    images[0] = [0, 128, 255]  # red, green, blue of every pixel
    labels = np.eye(5)[rng.integers(0, 5, 40)]  # float64
    labels[1] = MIXED
    paths = tmp_path / "sprites.npy", tmp_path / "labels.npy"
    np.save(paths[0], images)
    np.save(paths[1], labels)
    return paths


def test_pictures_and_vectors(pair):
    data = ArrayImages(*pair)
    image, vector = data[0]
    assert len(data) == 40 and image.shape == (3, 16, 16) and vector.shape == (5,)
    assert image.dtype == vector.dtype == torch.float32
    assert image.mean((1, 2)).tolist() == pytest.approx([-1, 128 / 127.5 - 1, 1], abs=1e-6)
    assert data[1][1].tolist() == MIXED
    assert torch.equal(data[-1][0], data[39][0])
    with pytest.raises(IndexError):
        data[40]


def test_a_batch_is_its_pictures(pair):
    data = ArrayImages(*pair)
    images, vectors = data.batch([3, 1, 3])
    assert images.shape == (3, 3, 16, 16) and images.is_contiguous() and vectors.shape == (3, 5)
    assert torch.equal(images, torch.stack([data[i][0] for i in (3, 1, 3)]))
    assert torch.equal(vectors, torch.stack([data[i][1] for i in (3, 1, 3)]))
    raw = np.load(pair[0])[3].transpose(2, 0, 1)
    assert np.array_equal(((images[0] + 1) * 127.5).round().byte().numpy(), raw)


def test_in_shuffled_batches_and_in_a_loader(pair):
    data = ArrayImages(*pair)
    images, vectors = next(shuffled(data, 8))
    assert images.shape == (8, 3, 16, 16) and vectors.shape == (8, 5)
    loader = DataLoader(data, batch_size=16)
    assert [len(vectors) for _, vectors in loader] == [16, 16, 8]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.float32])
def test_labels_of_other_dtypes(pair, dtype):
    one_hot = np.eye(5)[np.arange(40) % 5]
    np.save(pair[1], one_hot.astype(dtype))
    _, vectors = ArrayImages(*pair).batch(list(range(40)))
    assert vectors.dtype == torch.float32 and np.array_equal(vectors.numpy(), one_hot)


def test_the_pictures_stay_on_disk(pair):
    data = ArrayImages(*pair)
    assert isinstance(data.images.base, np.memmap) and not data.images.flags.writeable
    data[0][0].zero_()  # a copy: the file is not written to
    assert data[0][0].max() == 1


def test_missing_files(pair, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file of pictures at .*nothing.npy"):
        ArrayImages(tmp_path / "nothing.npy", pair[1])
    with pytest.raises(FileNotFoundError, match="no file of labels"):
        ArrayImages(pair[0], tmp_path)


class Trap:
    """A pickle that tells on whoever loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def pickled(path, trap):
    path.write_bytes(pickle.dumps(trap))


def objects(path, trap):
    np.save(path, np.array([trap, trap], dtype=object), allow_pickle=True)


def archive(path, trap):
    with open(path, "wb") as file:
        np.savez(file, np.zeros((40, 16, 16, 3), np.uint8))


def text(path, trap):
    path.write_text("red, green, blue\n1, 2, 3\n")


def cut_short(path, trap):
    path.write_bytes(path.read_bytes()[:1000])


def empty(path, trap):
    path.write_bytes(b"")


def no_rows(path, trap):
    np.save(path, np.zeros((0, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("spoil", [pickled, objects, archive, text, cut_short, empty, no_rows])
@pytest.mark.parametrize("which", [0, 1])
def test_foreign_files_are_refused_and_never_run(pair, tmp_path, spoil, which):
    trap = tmp_path / "sprung"
    spoil(pair[which], Trap(trap))
    with pytest.raises(ValueError, match=f"{pair[which].name} (is no plain .npy array|holds no)"):
        ArrayImages(*pair)
    assert not trap.exists()


@pytest.mark.parametrize(
    "images", [np.zeros((40, 3, 16, 16), np.uint8), np.zeros((40, 16, 16, 3)), np.zeros((40, 5))]
)
def test_other_arrays_are_no_pictures(pair, images):
    np.save(pair[0], images)
    with pytest.raises(ValueError, match=r"sprites.npy should hold pictures, uint8 .* but holds"):
        ArrayImages(*pair)


@pytest.mark.parametrize("labels", [np.zeros(40), np.zeros((40, 1, 5)), np.full((40, 5), "food")])
def test_other_arrays_are_no_labels(pair, labels):
    np.save(pair[1], labels)
    with pytest.raises(ValueError, match=r"labels.npy should hold a row of numbers .* but holds"):
        ArrayImages(*pair)


def test_a_pair_that_does_not_match(pair):
    with pytest.raises(ValueError, match="labels.npy should hold pictures|sprites.npy should"):
        ArrayImages(*pair[::-1])
    np.save(pair[1], np.zeros((39, 5)))
    with pytest.raises(ValueError, match="40 pictures in .*, but 39 labels in .*: are they a pair"):
        ArrayImages(*pair)
    labels = np.zeros((40, 5))
    labels[7, 2] = np.nan
    np.save(pair[1], labels)
    with pytest.raises(ValueError, match="NaN, infinite"):
        ArrayImages(*pair)


def test_rows_by_a_mask_or_out_of_range_are_refused(pair):
    data = ArrayImages(*pair)
    for mask in ([True, False], torch.ones(40, dtype=torch.bool), np.ones(40, dtype=bool)):
        with pytest.raises(TypeError, match="of a mask take"):
            data.batch(mask)
    for rows in ([40], [-41], torch.tensor([3, 99])):
        with pytest.raises(IndexError, match="outside -40…39"):
            data.batch(rows)


def test_labels_beyond_float32(pair):
    labels = np.zeros((40, 5))
    labels[3, 1] = 1e300
    np.save(pair[1], labels)
    with pytest.raises(ValueError, match="beyond float32"):
        ArrayImages(*pair)


def test_a_file_that_becomes_shorter_while_it_is_open(pair):
    """Reading on past its end would end the process."""
    data = ArrayImages(*pair)
    with open(pair[0], "rb+") as file:
        file.truncate(2000)
    with pytest.raises(ValueError, match="has become shorter"):
        data.batch([39])


def test_damaged_headers_end_in_one_kind_of_error(pair, tmp_path):
    good, dice = pair[0].read_bytes(), random.Random(0)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(dice.choice([1, 1, 2, 8])):
            bad[dice.randrange(128)] ^= 1 << dice.randrange(8)
        (tmp_path / "bad.npy").write_bytes(bad)
        try:
            images, _ = ArrayImages(tmp_path / "bad.npy", pair[1]).batch([0, 39])
            assert images.shape[:2] == (2, 3)  # a flip in the padding, say
        except ValueError as error:
            assert "bad.npy" in str(error)
