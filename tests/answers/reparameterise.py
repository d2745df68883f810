import torch


def plain(mean, log_variance, generator):
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    return mean + (log_variance / 2).exp() * noise


def in_one_call(mean, log_variance, generator):
    noise = torch.empty_like(mean).normal_(generator=generator)
    return torch.addcmul(mean, torch.exp(0.5 * log_variance), noise)


def one_by_one(mean, log_variance, generator):
    rows = []
    for m, v in zip(mean, log_variance.exp()):
        rows.append(m - v**0.5 * torch.randn(m.shape, generator=generator, dtype=m.dtype))
    return torch.stack(rows)


def normal_of_nothing(mean, log_variance, generator):
    zeros = torch.zeros(mean.shape, dtype=mean.dtype)
    return log_variance.exp().sqrt() * torch.normal(zeros, 1.0, generator=generator) + mean


def from_uniform(mean, log_variance, generator):
    u = torch.rand(mean.numel(), generator=generator, dtype=mean.dtype).clamp(1e-6, 1 - 1e-6)
    noise = torch.distributions.Normal(0.0, 1.0).icdf(u).view_as(mean)
    return mean.add(noise * log_variance.mul(0.5).exp())


RIGHT = [plain, in_one_call, one_by_one, normal_of_nothing, from_uniform]


def with_deviation(deviation):
    def answer(mean, log_variance, generator):
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + deviation(log_variance) * noise

    return answer


def with_noise(noise):
    def answer(mean, log_variance, generator):
        return mean + (log_variance / 2).exp() * noise(mean, generator).to(mean.dtype)

    return answer


def as_reported(mean, log_variance, generator):
    return torch.normal(mean, (log_variance / 2).exp(), generator=generator)


def without_gradients(mean, log_variance, generator):
    with torch.no_grad():
        return plain(mean, log_variance, generator)


def detached(mean, log_variance, generator):
    return plain(mean, log_variance, generator).detach()


def deviation_detached(mean, log_variance, generator):
    return plain(mean, log_variance.detach(), generator)


def deviation_as_data(mean, log_variance, generator):
    return plain(mean, log_variance.data, generator)


def mean_detached(mean, log_variance, generator):
    return plain(mean.detach(), log_variance, generator)


def a_new_leaf(mean, log_variance, generator):
    return detached(mean, log_variance, generator).requires_grad_()


def straight_through(mean, log_variance, generator):
    return mean + (as_reported(mean, log_variance, generator) - mean).detach()


def all_scaled(mean, log_variance, generator):
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    return (mean + noise) * (log_variance / 2).exp()


def mean_left_out(mean, log_variance, generator):
    return plain(torch.zeros_like(mean), log_variance, generator)


def mean_subtracted(mean, log_variance, generator):
    return plain(-mean, log_variance, generator)


def global_numbers(mean, log_variance, generator):
    return mean + (log_variance / 2).exp() * torch.randn_like(mean)


def by_distributions(mean, log_variance, generator):
    return torch.distributions.Normal(mean, (log_variance / 2).exp()).rsample()


def own_generator(mean, log_variance, generator):
    return plain(mean, log_variance, torch.Generator().manual_seed(0))


def copied_generator(mean, log_variance, generator):
    return plain(mean, log_variance, generator.clone_state())


def reseeds(mean, log_variance, generator):
    return plain(mean, log_variance, generator.manual_seed(3))


def seeds(mean, log_variance, generator):
    torch.manual_seed(0)
    return global_numbers(mean, log_variance, generator)


def in_place(mean, log_variance, generator):
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    return mean + log_variance.div_(2).exp() * noise


def variance_and_no_mean(mean, log_variance, generator):
    return with_deviation(torch.exp)(0 * mean, log_variance, generator)


def draw(shape):
    return with_noise(lambda mean, g: torch.randn(shape(mean.shape), generator=g))


WRONG = {
    "gradient of a draw": [as_reported],
    "cut off": [
        without_gradients,
        detached,
        a_new_leaf,
        deviation_detached,
        deviation_as_data,
        mean_detached,
        straight_through,
    ],
    "variance": [with_deviation(torch.exp)],
    "taken as deviation": [with_deviation(lambda a: a), with_deviation(torch.abs)],
    "taken as variance": [
        with_deviation(lambda a: a**0.5),
        with_deviation(lambda a: a.abs().sqrt()),
    ],
    "taken as log deviation": [with_deviation(lambda a: (2 * a).exp())],
    "upside down": [with_deviation(lambda a: 1 / a.exp().sqrt())],
    "another base": [
        with_deviation(lambda a: 10 ** (0.5 * a)),
        with_deviation(lambda a: (a / 2).exp2()),
    ],
    "no deviation": [with_deviation(torch.ones_like)],
    "mean left out": [mean_left_out],
    "mean subtracted": [mean_subtracted],
    "all scaled": [all_scaled],
    "no noise": [lambda mean, log_variance, generator: mean.clone()],
    "uniform noise": [with_noise(lambda mean, g: torch.rand(mean.shape, generator=g))],
    "shared in the batch": [
        draw(lambda shape: shape[1:]),
        draw(lambda shape: (1,) * len(shape)),
        draw(lambda shape: ()),
    ],
    "shared in a picture": [
        draw(lambda shape: (shape[0],) + (1,) * (len(shape) - 1)),
        draw(lambda shape: shape[:2] + (1,) * (len(shape) - 2)),
        draw(lambda shape: (shape[0], 1, *shape[2:])),
    ],
    "global random": [global_numbers, by_distributions],
    "global seed": [seeds],
    "generator ignored": [own_generator, copied_generator],
    "generator set back": [reseeds],
    "in place": [in_place],
    "variance + mean left out": [variance_and_no_mean],
    "none": [lambda mean, log_variance, generator: None],
}

UNKNOWN = [
    lambda mean, log_variance, generator: torch.zeros_like(mean),
    with_deviation(lambda a: (a / 2).exp() / 2),
    with_deviation(lambda a: (a / 2).exp() + 0.1),
    with_deviation(lambda a: (a / 3).exp()),
    with_noise(lambda mean, g: 2 * torch.randn(mean.shape, generator=g)),
    with_noise(lambda mean, g: 12**0.5 * (torch.rand(mean.shape, generator=g) - 0.5)),
    with_noise(lambda mean, g: torch.randn(mean.shape, generator=g).abs()),
]
