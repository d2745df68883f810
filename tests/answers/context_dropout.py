import torch


def where(context, null, p, generator):
    drop = torch.rand(len(context), generator=generator) < p
    return torch.where(drop.view(-1, *[1] * (context.ndim - 1)), null, context)


def by_bernoulli(context, null, p, generator):
    keep = torch.full((len(context),) + (1,) * (context.dim() - 1), 1 - p)
    keep = torch.bernoulli(keep, generator=generator)
    return keep * context + (1 - keep) * null


def indexed(context, null, p, generator):
    out = context.clone()
    out[torch.rand(len(context), generator=generator) >= 1 - p] = null
    return out


def one_by_one(context, null, p, generator):
    draws = torch.rand(len(context), generator=generator).tolist()
    return torch.stack([null[0] if u < p else c for u, c in zip(draws, context)])


RIGHT = [where, by_bernoulli, indexed, one_by_one]


def as_in_the_repository(context, null, p, generator):
    mask = torch.bernoulli(torch.full_like(context, 1 - p), generator=generator)
    return context * mask


def per_number(context, null, p, generator):
    return torch.where(torch.rand(context.shape, generator=generator) < p, null, context)


def per_token(context, null, p, generator):
    if context.ndim == 2:
        return where(context, null, p, generator)
    drop = torch.rand(context.shape[:2], generator=generator) < p
    return torch.where(drop[..., None], null, context)


def kept(context, null, p, generator):
    return where(context, null, 1 - p, generator)


def one_draw(context, null, p, generator):
    drop = torch.rand(1, generator=generator) < p
    return null.expand_as(context).clone() if drop else context.clone()


def rescaled(context, null, p, generator):
    drop = torch.rand(len(context), generator=generator) < p
    return torch.where(drop.view(-1, *[1] * (context.ndim - 1)), null, context / (1 - p + 1e-9))


def zeros(context, null, p, generator):
    return where(context, torch.zeros_like(null), p, generator)


def never(context, null, p, generator):
    return context.clone()


def in_place(context, null, p, generator):
    context[torch.rand(len(context), generator=generator) < p] = null
    return context


def global_numbers(context, null, p, generator):
    return where(context, null, p, None)


def own_generator(context, null, p, generator):
    return where(context, null, p, torch.Generator().manual_seed(5))


def seeds(context, null, p, generator):
    torch.manual_seed(0)
    return where(context, null, p, None)


def copied_generator(context, null, p, generator):
    copy = torch.Generator().set_state(generator.get_state())
    return where(context, null, p, copy)


def quota(context, null, p, generator):
    out = context.clone()
    out[torch.randperm(len(context), generator=generator)[: int(len(context) * p)]] = null
    return out


def from_the_first(context, null, p, generator):
    drop = torch.arange(len(context)) < (torch.rand(len(context), generator=generator) < p).sum()
    return torch.where(drop.view(-1, *[1] * (context.ndim - 1)), null, context)


def in_tenths(context, null, p, generator):
    drop = torch.randint(0, 10, (len(context),), generator=generator) < p * 10
    return torch.where(drop.view(-1, *[1] * (context.ndim - 1)), null, context)


def reseeds(context, null, p, generator):
    return where(context, null, p, generator.manual_seed(11))


def sets_back(context, null, p, generator):
    start = generator.get_state()
    result = where(context, null, p, generator)
    generator.set_state(start)
    torch.rand(1, generator=generator.manual_seed(3))
    return result


def detaches_the_null(context, null, p, generator):
    return where(context, null.detach(), p, generator)


def detaches_the_context(context, null, p, generator):
    return where(context.detach(), null, p, generator)


def without_gradients(context, null, p, generator):
    with torch.no_grad():
        return where(context, null, p, generator)


def at_most_half(context, null, p, generator):
    return where(context, null, min(p, 0.5), generator)


WRONG = {
    "generator set back": [reseeds, sets_back],
    "gradient": [detaches_the_null, detaches_the_context, without_gradients],
    "by its place": [from_the_first],
    "fixed number": [quota],
    "per number": [as_in_the_repository, per_number],
    "per token": [per_token],
    "kept with p": [kept],
    "one draw": [one_draw],
    "rescaled": [rescaled],
    "zeros": [zeros, lambda context, null, p, generator: one_draw(context, 0 * null, p, generator)],
    "never": [never],
    "in place": [in_place],
    "global random": [global_numbers],
    "generator ignored": [own_generator, copied_generator],
    "global seed": [seeds],
    "none": [lambda context, null, p, generator: None],
}


def half_as_often(context, null, p, generator):
    return where(context, null, p / 2, generator)


def shifted(context, null, p, generator):
    return where(context, null, p, generator) + 1


def mean(context, null, p, generator):
    return (1 - p) * context + p * null


def in_pairs(context, null, p, generator):
    drop = (torch.rand(len(context), generator=generator) < p).repeat_interleave(2)[: len(context)]
    return torch.where(drop.view(-1, *[1] * (context.ndim - 1)), null, context)


UNKNOWN = [at_most_half, in_tenths, half_as_often, shifted, mean, in_pairs]
