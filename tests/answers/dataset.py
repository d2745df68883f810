import numpy as np
import torch
from torch.utils.data import Dataset


class Plain(Dataset):
    def __init__(self, images_path, labels_path, transform=None):
        self.images = np.load(images_path, allow_pickle=False)
        self.labels = np.load(labels_path, allow_pickle=False)
        if len(self.images) != len(self.labels):
            raise ValueError("the two files are no pair")
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i]).permute(2, 0, 1).float() / 127.5 - 1
        if self.transform is not None:
            image = self.transform(image)
        return image, torch.tensor(self.labels[i], dtype=torch.float32)


class Mapped:
    """The numbers stay on disk; no Dataset needed."""

    def __init__(self, images_path, labels_path, transform=lambda x: x):
        self.pair = [np.load(path, mmap_mode="r") for path in (images_path, labels_path)]
        assert_pair = self.pair[0].shape[0] == self.pair[1].shape[0]
        if not assert_pair:
            raise ValueError("lengths differ")
        self.transform = transform

    def __len__(self):
        return self.pair[1].shape[0]

    def __getitem__(self, i):
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        image = np.array(self.pair[0][i], dtype=np.float32).transpose(2, 0, 1)
        return self.transform(torch.tensor(image * 2 / 255 - 1)), torch.tensor(
            self.pair[1][i]
        ).float()


class Ready(Plain):
    """Everything converted once."""

    def __init__(self, images_path, labels_path, transform=None):
        super().__init__(images_path, labels_path, transform)
        self.images = torch.tensor(self.images).movedim(-1, 1).float().div(127.5).sub(1)
        self.labels = torch.tensor(self.labels).float()

    def __getitem__(self, i):
        image = self.images[i].clone()
        return (self.transform(image) if self.transform else image), self.labels[i].clone()


RIGHT = [Plain, Mapped, Ready]


class AsInTheRepository(Plain):
    def __getitem__(self, i):
        if self.transform:
            image = self.transform(torch.from_numpy(self.images[i]).permute(2, 0, 1) / 127.5 - 1)
            label = torch.tensor(self.labels[i]).to(torch.int64)
        return image, label


class WholeNumbers(Plain):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image, label.long()


class Rounded(Plain):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image, label.round()


def changed(change):
    class Changed(Plain):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return change(image), label

    return Changed


class Deaf(Plain):
    def __init__(self, images_path, labels_path, transform=None):
        super().__init__(images_path, labels_path)


class Wasted(Plain):
    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i]).permute(2, 0, 1).float() / 127.5 - 1
        if self.transform:
            self.transform(image)
        return image, torch.tensor(self.labels[i]).float()


class Unequal(Plain):
    def __init__(self, images_path, labels_path, transform=None):
        self.images, self.labels = np.load(images_path), np.load(labels_path)
        self.transform = transform


class Trusting(Plain):
    def __init__(self, images_path, labels_path, transform=None):
        self.images = np.load(images_path, allow_pickle=True)
        self.labels = np.load(labels_path, allow_pickle=True)
        if len(self.images) != len(self.labels):
            raise ValueError
        self.transform = transform


class Shared(Ready):
    def __getitem__(self, i):
        image = self.images[i]
        return (self.transform(image) if self.transform else image), self.labels[i]


class SharedLabels(Plain):
    def __getitem__(self, i):
        return super().__getitem__(i)[0], torch.from_numpy(self.labels[i]).float()


class DoubleLabels(Plain):
    def __getitem__(self, i):
        return super().__getitem__(i)[0], torch.tensor(self.labels[i])


class FewerLabelsOnly(Plain):
    def __init__(self, images_path, labels_path, transform=None):
        self.images = np.load(images_path, allow_pickle=False)
        self.labels = np.load(labels_path, allow_pickle=False)
        if len(self.labels) < len(self.images):
            raise ValueError("labels are missing")
        self.transform = transform


class TrustsLabels(Plain):
    def __init__(self, images_path, labels_path, transform=None):
        self.images = np.load(images_path, allow_pickle=False)
        self.labels = np.load(labels_path, allow_pickle=True)
        if len(self.labels) != len(self.images):
            raise ValueError("no pair")
        self.transform = transform

    def __getitem__(self, i):
        image, _ = Plain.__getitem__(self, i) if self.labels.dtype != object else (None, None)
        return image, torch.tensor(self.labels[i].astype(np.float32))


class LendsToTheTransform(Ready):
    def __getitem__(self, i):
        image = self.images[i]
        return (self.transform(image) if self.transform else image.clone()), self.labels[i].clone()


WRONG = {
    "label's dtype": [DoubleLabels],
    "undefined without a transform": [AsInTheRepository],
    "whole numbers": [WholeNumbers, Rounded],
    "channels last": [changed(lambda x: x.movedim(0, -1))],
    "0 to 255": [changed(lambda x: (x + 1) * 127.5)],
    "0 to 1": [changed(lambda x: (x + 1) / 2)],
    "own range": [changed(lambda x: 2 * (x - x.min()) / (x.max() - x.min()) - 1)],
    "sides exchanged": [changed(lambda x: x.mT)],
    "reshaped": [changed(lambda x: x.movedim(0, -1).contiguous().view(x.shape))],
    "transform ignored": [Deaf, Wasted],
    "no pair": [Unequal, FewerLabelsOnly],
    "pickle": [Trusting, TrustsLabels],
    "shared memory": [Shared, SharedLabels, LendsToTheTransform],
}


class Triple(Plain):
    def __getitem__(self, i):
        return *super().__getitem__(i), i


class Endless(Plain):
    def __getitem__(self, i):
        return super().__getitem__(i % len(self))


class Double(Plain):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image.double(), label


class LabelToo(Plain):
    """The transform is for pictures; a label changes with it."""

    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image, label if self.transform is None else self.transform(label)


class Raw(Plain):
    """The transform gets the bytes of the file."""

    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i]).permute(2, 0, 1).float()
        image = self.transform(image) if self.transform else image
        return image / 127.5 - 1, torch.tensor(self.labels[i], dtype=torch.float32)


class MixedOnlyWithATransform(Plain):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image, label.round() if self.transform else label


class Six(Plain):
    def __len__(self):
        return 6


class LooksInside(Plain):
    """A pickle is refused when its code has run."""

    def __init__(self, images_path, labels_path, transform=None):
        for path in (images_path, labels_path):
            if np.load(path, allow_pickle=True).dtype == object:
                raise ValueError("a pickle")
        super().__init__(images_path, labels_path, transform)


class Overflow(Plain):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        if self.transform:
            return image, label
        image = torch.from_numpy(self.images[i]).permute(2, 0, 1) * 2 / 255 - 1
        return image, label


class By128(Plain):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return (image + 1) * 127.5 / 128 - 1, label


class ClassNumber(Plain):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image, label.argmax()


class Labelled(Plain):
    """Its labels are changed once."""

    def __init__(self, change, *paths, **named):
        super().__init__(*paths, **named)
        self.labels = change(self.labels)


def labels(change):
    return lambda *paths, **named: Labelled(change, *paths, **named)


class AskedOnce(Plain):
    def __init__(self, images_path, labels_path, transform=None):
        super().__init__(images_path, labels_path, transform)
        self.ready = [super(AskedOnce, self).__getitem__(i)[0] for i in range(len(self))]

    def __getitem__(self, i):
        return self.ready[i].clone(), super().__getitem__(i)[1]


class Sixteen(Plain):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image.view(3, 16, 12), label


class LabelFirst(Plain):
    def __getitem__(self, i):
        return super().__getitem__(i)[::-1]


WRONG["type"] = [Triple, RIGHT[0].__new__(Plain), lambda *paths: Plain, lambda *paths: 3]
WRONG["none"] = [lambda *paths: None]
WRONG["no end"] = [Endless]
WRONG["picture's dtype"] = [Double]
WRONG["label transformed"] = [LabelToo]
WRONG["transformed too early"] = [Raw]
WRONG["overflow"] = [Overflow]
WRONG["divided by 128"] = [By128]
WRONG["class number"] = [ClassNumber]
WRONG["divided by 127"] = [changed(lambda x: (x + 1) * 127.5 / 127 - 1)]
WRONG["label normalised"] = [labels(lambda x: x / x.sum(axis=1, keepdims=True))]
WRONG["half precision"] = [labels(lambda x: x.astype(np.float16))]
WRONG["transformed once"] = [AskedOnce]
WRONG["size fixed"] = [Sixteen]
WRONG["exchanged"] = [LabelFirst]
WRONG["own range"] += [changed(lambda x: (x + 1) * 2 / (x + 1).max() - 1)]
WRONG["whole numbers"] += [MixedOnlyWithATransform, labels(lambda x: np.eye(5)[x.argmax(1)])]
WRONG["pickle"] += [LooksInside]
UNKNOWN = [Six, changed(lambda x: -x), changed(lambda x: x.mean(0, keepdim=True))]
