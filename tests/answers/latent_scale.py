import math
from functools import partial

import torch


def plain(encode, decode, batches):
    deviation = torch.cat([encode(x).flatten() for x in batches]).std()
    return lambda x: encode(x) / deviation, lambda z: decode(z * deviation)


def running_sums(encode, decode, batches):
    """Never all latents at once."""
    n = total = squares = 0
    with torch.no_grad():
        for x in batches:
            z = encode(x).double()
            n, total, squares = n + z.numel(), total + z.sum(), squares + z.square().sum()
    factor = 1 / math.sqrt(squares / n - (total / n) ** 2)

    def encode_scaled(x):
        return factor * encode(x)

    def decode_scaled(z):
        return decode(z / factor)

    return encode_scaled, decode_scaled


class Scaled:
    def __init__(self, encode, decode, batches):
        self.old = encode, decode
        latents = [number for x in batches for number in encode(x).flatten().split(1000)]
        self.scale = torch.cat(latents).std(correction=0).item() ** -1

    def encode(self, x):
        return self.old[0](x).mul(self.scale)

    def decode(self, z):
        return self.old[1](z.div(self.scale))


def by_a_class(encode, decode, batches):
    scaled = Scaled(encode, decode, batches)
    return [scaled.encode, scaled.decode]


def root_of_the_variance(encode, decode, batches):
    batches = list(batches)
    variance, mean = torch.var_mean(torch.vstack([encode(x) for x in batches]))
    return (lambda x: encode(x) * variance.rsqrt()), (lambda z: decode(variance.sqrt() * z))


def welford(encode, decode, batches):
    """Batch after batch, the deviations from a mean that moves."""
    n, mean, squares = 0, 0.0, 0.0
    for z in map(encode, batches):
        m, k = z.mean().item(), z.numel()
        squares += ((z - m) ** 2).sum().item() + (m - mean) ** 2 * n * k / (n + k)
        mean += (m - mean) * k / (n + k)
        n += k
    s = (squares / (n - 1)) ** 0.5
    return partial(lambda f, x: f(x) / s, encode), partial(lambda f, z: f(s * z), decode)


RIGHT = [welford, plain, running_sums, by_a_class, root_of_the_variance]


def scaled(measure):
    def answer(encode, decode, batches):
        deviation = measure([encode(x) for x in batches])
        return lambda x: encode(x) / deviation, lambda z: decode(z * deviation)

    return answer


def as_reported(encode, decode, batches):
    return encode, decode


def upside_down(encode, decode, batches):
    deviation = torch.cat([encode(x) for x in batches]).std()
    return lambda x: encode(x) * deviation, lambda z: decode(z / deviation)


def one_way(encode, decode, batches):
    return plain(encode, decode, batches)[0], decode


def other_way(encode, decode, batches):
    return encode, plain(encode, decode, batches)[1]


def twice(encode, decode, batches):
    deviation = torch.cat([encode(x) for x in batches]).std()
    return lambda x: encode(x) / deviation, lambda z: decode(z / deviation)


def of_the_pictures(encode, decode, batches):
    deviation = torch.cat(list(batches)).std()
    return lambda x: encode(x) / deviation, lambda z: decode(z * deviation)


def anew(encode, decode, batches):
    def encode_scaled(x):
        z = encode(x)
        return z / z.std()

    return encode_scaled, plain(encode, decode, batches)[1]


def picture_by_picture(encode, decode, batches):
    def encode_scaled(x):
        return torch.stack([z / z.std() for z in encode(x)])

    return encode_scaled, plain(encode, decode, batches)[1]


def centred(encode, decode, batches):
    z = torch.cat([encode(x) for x in batches])
    return lambda x: (encode(x) - z.mean()) / z.std(), lambda y: decode(y * z.std() + z.mean())


def two_passes(encode, decode, batches):
    n = sum(encode(x).numel() for x in batches)
    mean = sum(encode(x).sum() for x in batches) / n
    deviation = (sum((encode(x) - mean).square().sum() for x in batches) / n).sqrt()
    return lambda x: encode(x) / deviation, lambda z: decode(z * deviation)


def in_place(encode, decode, batches):
    deviation = torch.cat([encode(x) for x in batches]).std()
    return lambda x: encode(x) / deviation, lambda z: decode(z.mul_(deviation))


def clears(encode, decode, batches):
    parts = []
    while batches:
        parts.append(encode(batches.pop()))
    return scaled(lambda _: torch.cat(parts).std())(encode, decode, [])


def deviation_too(encode, decode, batches):
    return torch.cat([encode(x) for x in batches]).std()


WRONG = {
    "forgotten": [as_reported],
    "variance": [scaled(lambda parts: torch.cat(parts).var())],
    "upside down": [upside_down],
    "decode unscaled": [one_way],
    "encode unscaled": [other_way],
    "decode scaled like encode": [twice],
    "deviation of the pictures": [of_the_pictures],
    "first batch": [scaled(lambda parts: parts[0].std())],
    "last batch": [scaled(lambda parts: parts[-1].std())],
    "mean of deviations": [
        scaled(lambda parts: sum(z.std() for z in parts) / len(parts)),
        scaled(lambda parts: torch.tensor([z.var() for z in parts]).mean().sqrt()),
    ],
    "each channel": [scaled(lambda parts: torch.cat(parts).std((0, 2, 3)).view(1, -1, 1, 1))],
    "each number": [scaled(lambda parts: torch.cat(parts).std(0, keepdim=True))],
    "each picture": [scaled(lambda parts: torch.cat(parts).std((1, 2, 3)).mean())],
    "measured anew": [anew, picture_by_picture],
    "around zero": [scaled(lambda parts: torch.cat(parts).square().mean().sqrt())],
    "centred": [centred],
    "largest": [scaled(lambda parts: torch.cat(parts).abs().amax())],
    "gone through once": [two_passes],
    "in place": [in_place, clears],
    "type": [deviation_too],
    "none": [lambda encode, decode, batches: None],
    "variance + decode unscaled": [
        lambda e, d, batches: (scaled(lambda parts: torch.cat(parts).var())(e, d, batches)[0], d)
    ],
}

UNKNOWN = [
    scaled(lambda parts: torch.cat(parts).std() / 2),
    scaled(lambda parts: torch.cat(parts).median()),
    scaled(lambda parts: torch.cat(parts).abs().mean()),
    scaled(lambda parts: 5.5),
]
