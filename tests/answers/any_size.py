import torch
import torch.nn.functional as F
from torch import nn


class Base(nn.Module):
    """The exercise's UNet; its bottleneck and its door are up to each answer."""

    def __init__(self, c=12):
        super().__init__()
        self.enter = nn.Conv2d(3, c, 3, padding=1)
        self.down1 = nn.Conv2d(c, 2 * c, 4, stride=2, padding=1)
        self.down2 = nn.Conv2d(2 * c, 2 * c, 4, stride=2, padding=1)
        self.vector = nn.Conv2d(2 * c, 2 * c, 1)
        self.up2 = nn.ConvTranspose2d(4 * c, 2 * c, 2, stride=2)
        self.up1 = nn.ConvTranspose2d(4 * c, c, 2, stride=2)
        self.leave = nn.Conv2d(2 * c, 3, 3, padding=1)

    def door(self, x):
        height, width = x.shape[-2:]
        if height % 4 or width % 4:
            raise ValueError(f"height and width must be multiples of 4: got {height}x{width}")

    def bottom(self, c):
        """(B, C, h, w) -> the same"""
        v = F.silu(self.vector(c.mean(dim=(2, 3), keepdim=True)))
        return v.expand(-1, -1, *c.shape[2:])

    def forward(self, x):
        self.door(x)
        a = F.silu(self.enter(x))
        b = F.silu(self.down1(a))
        c = F.silu(self.down2(b))
        b = torch.cat([F.silu(self.up2(torch.cat([c, self.bottom(c)], dim=1))), b], dim=1)
        a = torch.cat([F.silu(self.up1(b)), a], dim=1)
        return self.leave(a)


class ByExpand(Base):
    pass


class ByAdaptivePooling(Base):
    def __init__(self, c=12):
        super().__init__(c)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def door(self, x):
        for name, n in (("height", x.shape[2]), ("width", x.shape[3])):
            if n % 4 != 0:
                raise ValueError(
                    f"{name} {n} cannot be halved twice; give sizes divisible by 4, not "
                    f"{tuple(x.shape[2:])}"
                )

    def bottom(self, c):
        return F.interpolate(F.silu(self.vector(self.pool(c))), size=c.shape[2:])


class ByWindowAsLargeAsTheMap(Base):
    def door(self, x):
        if (x.shape[2] | x.shape[3]) & 3:
            raise ValueError(f"picture size {list(x.shape[2:])}: both must be multiples of 4")

    def bottom(self, c):
        h, w = c.shape[2:]
        return F.silu(self.vector(F.avg_pool2d(c, (h, w)))).repeat(1, 1, h, w)


class ByLoops(Base):
    def bottom(self, c):
        out = torch.zeros_like(c)
        for i, picture in enumerate(c):
            total = sum(picture[:, r, s] for r in range(c.shape[2]) for s in range(c.shape[3]))
            mean = total / (c.shape[2] * c.shape[3])
            out[i] = F.silu(self.vector(mean[None, :, None, None]))[0]
        return out


RIGHT = [ByExpand, ByAdaptivePooling, ByWindowAsLargeAsTheMap, ByLoops]


class TheStarter(Base):
    """As in the repository: a window of 4, whatever the map's size."""

    def __init__(self, c=12):
        super().__init__(c)
        self.pool = nn.AvgPool2d(4)
        self.spread = nn.Upsample(scale_factor=4)

    def door(self, x):
        pass

    def bottom(self, c):
        return self.spread(F.silu(self.vector(self.pool(c))))


class WithADoorAlone(TheStarter):
    door = Base.door


class SixteenOnly(TheStarter):
    def door(self, x):
        if x.shape[2:] != (16, 16):
            raise ValueError(f"16x16 only, not {x.shape[2]}x{x.shape[3]}, though divisible by 4")


class MultiplesOfSixteen(Base):
    def door(self, x):
        if x.shape[2] % 16 or x.shape[3] % 16:
            raise ValueError(f"must be multiples of 16: {x.shape[2]}x{x.shape[3]}")


class Maximum(Base):
    def bottom(self, c):
        v = F.silu(self.vector(F.adaptive_max_pool2d(c, 1)))
        return v.expand_as(c)


class Sum(Base):
    def bottom(self, c):
        return F.silu(self.vector(c.sum((2, 3), keepdim=True))).expand_as(c)


class SumOverSixteen(Base):
    def bottom(self, c):
        return F.silu(self.vector(c.sum((2, 3), keepdim=True) / 16)).expand_as(c)


class WholeBatch(Base):
    def bottom(self, c):
        return F.silu(self.vector(c.mean((0, 2, 3), keepdim=True))).expand_as(c)


class Corner(Base):
    def bottom(self, c):
        return F.silu(self.vector(F.avg_pool2d(c[:, :, :4, :4], 4))).expand_as(c)


class NoPooling(Base):
    def bottom(self, c):
        return F.silu(self.vector(c))


class Rows(Base):
    def bottom(self, c):
        return F.silu(self.vector(c.mean(3, keepdim=True))).expand_as(c)


class Resized(Base):
    def forward(self, x):
        self.door(x)
        y = super().forward(F.interpolate(x, size=16, mode="bilinear"))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear")


class Padded(Base):
    def forward(self, x):
        self.door(x)
        h, w = x.shape[2:]
        return super().forward(F.pad(x, (0, -w % 16, 0, -h % 16)))[:, :, :h, :w]


class AdaptiveFour(Base):
    def bottom(self, c):
        pooled = F.avg_pool2d(F.adaptive_avg_pool2d(c, 4), 4)
        return F.silu(self.vector(pooled)).expand_as(c)


class NoDoor(Base):
    def door(self, x):
        pass


class HeightAlone(Base):
    def door(self, x):
        if x.shape[2] % 4:
            raise ValueError(f"multiples of 4, not {tuple(x.shape[2:])}")


class Asserts(Base):
    def door(self, x):
        assert x.shape[2] % 4 == 0 and x.shape[3] % 4 == 0, f"{x.shape} not divisible by 4"


class Wordless(Base):
    def door(self, x):
        if x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError("bad input: sizes must be multiples of 4")


class Rewrapped(NoDoor):
    def forward(self, x):
        try:
            return super().forward(x)
        except RuntimeError as error:
            raise ValueError(str(error)) from error


class Crops(Base):
    def forward(self, x):
        return super().forward(x[:, :, : x.shape[2] // 4 * 4, : x.shape[3] // 4 * 4])


class MoreWeights(Base):
    def __init__(self, c=12):
        super().__init__(c)
        self.extra = nn.Linear(2 * c, 2 * c)


class OtherShape(Base):
    def __init__(self, c=12):
        super().__init__(c)
        self.vector = nn.Linear(2 * c, 2 * c)


class Nothing(Base):
    def forward(self, x):
        super().forward(x)


class InPlace(Base):
    def forward(self, x):
        return super().forward(x.mul_(1.01))


class Late(NoDoor):
    """The size is looked at when half of the work is done."""

    def bottom(self, c):
        if 4 * c.shape[2] != self.size[0] or 4 * c.shape[3] != self.size[1]:
            raise ValueError(f"{self.size[0]}x{self.size[1]}: not divisible by 4")
        return super().bottom(c)

    def forward(self, x):
        self.size = x.shape[2:]
        return super().forward(x)


class Early(Base):
    """Another error, at the right place."""

    def door(self, x):
        if x.shape[2] % 4 or x.shape[3] % 4:
            raise RuntimeError(f"multiples of 4 only: {x.shape[2]}x{x.shape[3]}")


class EarlyTypeError(Base):
    def door(self, x):
        if x.shape[2] % 4 or x.shape[3] % 4:
            raise TypeError("not a multiple of 4")


class DetachedVector(Base):
    def bottom(self, c):
        return super().bottom(c.detach())


class DetachedSkip(Base):
    def bottom(self, c):
        return super().bottom(c).detach()


class WithoutGradients(Base):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


WRONG = {
    "late": [Late],
    "gradient": [DetachedVector, DetachedSkip, WithoutGradients],
    "tiles": [TheStarter, WithADoorAlone],
    "refuses": [SixteenOnly, MultiplesOfSixteen],
    "maximum": [Maximum],
    "sum": [Sum],
    "divided by 16": [SumOverSixteen],
    "mean over the batch": [WholeBatch],
    "one corner": [Corner],
    "no pooling": [NoPooling],
    "rows": [Rows],
    "resized": [Resized],
    "padded": [Padded],
    "uneven windows": [AdaptiveFour],
    "far from the cause": [NoDoor],
    "one side": [HeightAlone],
    "another error": [Asserts, Early, EarlyTypeError],
    "message without the size": [Wordless, Rewrapped],
    "accepts": [Crops],
    "other weights": [MoreWeights, OtherShape],
    "none": [Nothing],
    "in place": [InPlace],
    "type": [ByExpand().eval()],
}


class Median(Base):
    def bottom(self, c):
        return F.silu(self.vector(c.flatten(2).median(2).values[..., None, None])).expand_as(c)


class NoBend(Base):
    def bottom(self, c):
        return self.vector(c.mean((2, 3), keepdim=True)).expand_as(c)


class WrongShape(Base):
    def forward(self, x):
        return F.interpolate(super().forward(x), size=(16, 16))


class StopsAlways(Base):
    def bottom(self, c):
        return c.view(-1, 16)


UNKNOWN = [Median, NoBend, WrongShape, StopsAlways]
