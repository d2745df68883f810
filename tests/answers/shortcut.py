import torch
import torch.nn.functional as F
from torch import nn


def body_of(c_in, c_out):
    return nn.Sequential(
        nn.GroupNorm(4, c_in),
        nn.SiLU(),
        nn.Conv2d(c_in, c_out, 3, padding=1),
        nn.GroupNorm(4, c_out),
        nn.SiLU(),
        nn.Conv2d(c_out, c_out, 3, padding=1),
    )


class Base(nn.Module):
    """What the answers share; the shortcut is up to each."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.c_in, self.c_out = c_in, c_out
        self.body = body_of(c_in, c_out)


class IdentityOrConv(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


class WithASetter(IdentityOrConv):
    def set_out_channels(self, c_out):
        self.__init__(self.c_in, c_out)


class Rebuilds(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.set_out_channels(c_out)

    def set_out_channels(self, c_out):
        self.body = body_of(self.c_in, c_out)
        self.skip = None if c_out == self.c_in else nn.Conv2d(self.c_in, c_out, 1, bias=False)

    def forward(self, x):
        return self.body(x) + (x if self.skip is None else self.skip(x))


class BareParameter(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        if c_in != c_out:
            self.matrix = nn.Parameter(torch.randn(c_in, c_out) / c_in**0.5)

    def forward(self, x):
        if hasattr(self, "matrix"):
            return torch.einsum("bihw,io->bohw", x, self.matrix) + self.body(x)
        return x + self.body(x)


class LinearOverChannels(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.mix = nn.ModuleList([nn.Linear(c_in, c_out)] if c_in != c_out else [])

    def forward(self, x):
        short = x
        for layer in self.mix:
            short = layer(x.movedim(1, -1)).movedim(-1, 1)
        return torch.add(short, self.body(x))


class Transposed(Base):
    """A transposed convolution of one pixel is one, too; and the body has a second name."""

    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.main = self.body
        self.short = nn.ConvTranspose2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x):
        return self.main(x) + (x if self.short is None else self.short(x))


class WeightNorm(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.shortcut = nn.Identity()
        if c_in != c_out:
            self.shortcut = nn.utils.parametrizations.weight_norm(nn.Conv2d(c_in, c_out, 1))

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


RIGHT = [
    WeightNorm,
    Transposed,
    IdentityOrConv,
    WithASetter,
    Rebuilds,
    BareParameter,
    LinearOverChannels,
]


class TheStarter(Base):
    def set_out_channels(self, c_out):
        self.c_out = c_out
        self.body[2].out_channels = c_out
        self.body[5].out_channels = c_out

    def forward(self, x):
        h = self.body(x)
        if x.shape[1] != h.shape[1]:
            x = nn.Conv2d(x.shape[1], h.shape[1], 1)(x)
        return x + h


class AsInTheRepository(Base):
    def forward(self, x):
        h = self.body(x)
        if self.c_in == self.c_out:
            return x + h
        shortcut = nn.Conv2d(x.shape[1], h.shape[1], kernel_size=1, stride=1, padding=0)
        return shortcut(x) + h


class ReplacedAtEachCall(Base):
    def forward(self, x):
        if self.c_in != self.c_out:
            self.shortcut = nn.Conv2d(self.c_in, self.c_out, 1, bias=False)
            return self.shortcut(x) + self.body(x)
        return x + self.body(x)


class MadeAtTheFirstCall(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.shortcut = None

    def forward(self, x):
        if self.c_in != self.c_out and self.shortcut is None:
            self.shortcut = nn.Conv2d(self.c_in, self.c_out, 1)
        return (self.shortcut(x) if self.shortcut else x) + self.body(x)


class Lazy(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.shortcut = nn.Identity() if c_in == c_out else nn.LazyConv2d(c_out, 1)

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


class InAList(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.shortcut = [nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)]

    def forward(self, x):
        return self.shortcut[0](x) + self.body(x)


class InALambda(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        conv = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.shortcut = (lambda x: x) if c_in == c_out else (lambda x: conv(x))

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


class Detached(IdentityOrConv):
    def forward(self, x):
        if self.c_in == self.c_out:
            return x + self.body(x)
        with torch.no_grad():
            short = self.shortcut(x)
        return short + self.body(x)


class Frozen(IdentityOrConv):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.shortcut.requires_grad_(False)


class ABuffer(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        if c_in != c_out:
            self.register_buffer("weight", torch.randn(c_out, c_in, 1, 1))

    def forward(self, x):
        short = x if self.c_in == self.c_out else F.conv2d(x, self.weight)
        return short + self.body(x)


class Padded(Base):
    def forward(self, x):
        more = self.c_out - self.c_in
        return F.pad(x, (0, 0, 0, 0, 0, more)) + self.body(x)


class BodyAlone(Base):
    def forward(self, x):
        return self.body(x)


class OnlyWhereItFits(Base):
    def forward(self, x):
        return self.body(x) + (x if self.c_in == self.c_out else 0)


class Twice(IdentityOrConv):
    def forward(self, x):
        short = self.shortcut(x)
        h = short + self.body(x)
        return h + short


class OverRootTwo(IdentityOrConv):
    def forward(self, x):
        return (self.shortcut(x) + self.body(x)) / 1.414


class Minus(IdentityOrConv):
    def forward(self, x):
        return self.body(x) - self.shortcut(x)


class AlwaysThere(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


class AlwaysThereButUnused(AlwaysThere):
    def forward(self, x):
        return (x if self.c_in == self.c_out else self.shortcut(x)) + self.body(x)


class ThreeByThree(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        same = c_in == c_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(c_in, c_out, 3, padding=1)

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


class OldSetter(IdentityOrConv):
    def set_out_channels(self, c_out):
        self.body[2].out_channels = self.body[5].out_channels = c_out


class SilentSetter(IdentityOrConv):
    def set_out_channels(self, c_out):
        self.c_out = c_out


class OnlyRaises(IdentityOrConv):
    def set_out_channels(self, c_out):
        raise NotImplementedError


class RebuildsTwoLayers(IdentityOrConv):
    def set_out_channels(self, c_out):
        self.body[2] = nn.Conv2d(self.c_in, c_out, 3, padding=1)
        self.body[5] = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(self.c_in, c_out, 1)


class InPlace(IdentityOrConv):
    def forward(self, x):
        h = self.body(x)
        if self.c_in == self.c_out:
            x += h
            return x
        return self.shortcut(x) + h


class Nothing(IdentityOrConv):
    def forward(self, x):
        super().forward(x)


class AList(IdentityOrConv):
    def forward(self, x):
        return [super().forward(x)]


def a_function(x):
    return x


class DropsInTraining(IdentityOrConv):
    def forward(self, x):
        return F.dropout(self.shortcut(x), 0.1, self.training) + self.body(x)


class SharedShortcuts(Base):
    known = {}  # of the class: all blocks have the same

    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        if c_in == c_out:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = self.known.setdefault((c_in, c_out), nn.Conv2d(c_in, c_out, 1))

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


class SetsAConvolutionOnly(IdentityOrConv):
    def set_out_channels(self, c_out):
        self.body = body_of(self.c_in, c_out)
        if isinstance(self.shortcut, nn.Conv2d):
            self.shortcut = nn.Conv2d(self.c_in, c_out, 1)


class HalfASetter(IdentityOrConv):
    def set_out_channels(self, c_out):
        self.body = body_of(self.c_in, c_out)


class KeepsItsNorm(IdentityOrConv):
    """The second GroupNorm keeps its channels, which shows only when it is called."""

    def set_out_channels(self, c_out):
        self.body[2] = nn.Conv2d(self.c_in, c_out, 3, padding=1)
        self.body[5] = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Identity() if self.c_in == c_out else nn.Conv2d(self.c_in, c_out, 1)


class DetachedBody(IdentityOrConv):
    def forward(self, x):
        return self.shortcut(x) + self.body(x).detach()


class DetachedInput(IdentityOrConv):
    def forward(self, x):
        return self.shortcut(x) + self.body(x.detach())


WRONG = {
    "training mode": [DropsInTraining],
    "shared weights": [SharedShortcuts],
    "made in forward": [TheStarter, AsInTheRepository, ReplacedAtEachCall],
    "made at the first call": [MadeAtTheFirstCall, Lazy],
    "not registered": [InAList, InALambda],
    "no gradient": [Detached, Frozen, ABuffer, DetachedBody, DetachedInput],
    "padded": [Padded],
    "missing": [BodyAlone, OnlyWhereItFits],
    "twice": [Twice],
    "over root two": [OverRootTwo],
    "sign": [Minus],
    "always there": [SetsAConvolutionOnly, AlwaysThere, AlwaysThereButUnused],
    "3x3": [ThreeByThree],
    "setter": [OldSetter, SilentSetter],
    "only raises": [OnlyRaises],
    "half a setter": [RebuildsTwoLayers, HalfASetter, KeepsItsNorm],
    "in place": [InPlace],
    "none": [Nothing],
    "type": [AList, a_function],
}


class NoShortcutAtAll(Base):
    def forward(self, x):
        return x + self.body(x)


class Dropout(IdentityOrConv):
    def forward(self, x):
        return F.dropout(self.shortcut(x), 0.1) + self.body(x)


class BentShortcut(IdentityOrConv):
    def forward(self, x):
        return F.silu(self.shortcut(x)) + self.body(x)


class AnotherBody(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


class Mean(Base):
    def forward(self, x):
        return x.mean(1, keepdim=True) + self.body(x)


UNKNOWN = [
    NoShortcutAtAll,
    Dropout,
    BentShortcut,
    AnotherBody,
    Mean,
]
