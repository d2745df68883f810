import torch


def with_enumerate(steps, every):
    frames, last = [], None
    for i, step in enumerate(steps):
        last = step.x.detach().cpu().clone()
        if i % every == 0:
            frames.append(last)
    if i % every:
        frames.append(last)
    return frames


def by_counting(steps, every):
    frames, count, x = [], 0, None
    for _, x, _ in steps:
        if count == 0:
            frames.append(x.detach().cpu().clone())
        count = (count + 1) % every
    if count != 1 % every:
        frames.append(x.detach().cpu().clone())
    return frames


def all_then_few(steps, every):
    everything = [torch.tensor(step.x.tolist()) for step in steps]
    few = everything[::every]
    return few if few[-1] is everything[-1] else few + everything[-1:]


def to_the_cpu(steps, every):
    frames = []
    for i, step in enumerate(steps):
        frames = frames if (i - 1) % every == 0 else frames[:-1]
        frames.append(torch.empty(step.x.shape).copy_(step.x.detach().to("cpu")))
    return frames


RIGHT = [to_the_cpu, with_enumerate, by_counting, all_then_few]


def every_frame(steps):
    return [step.x.detach().clone() for step in steps]


def as_in_the_repository(steps, every):
    frames = []
    for step in steps:
        step.x
    return frames


def no_end(steps, every):
    return every_frame(steps)[::every]


def multiples(steps, every):
    return every_frame(steps)[every - 1 :: every]


def multiples_and_end(steps, every):
    frames = every_frame(steps)
    few = frames[every - 1 :: every]
    return few if few and few[-1] is frames[-1] else [*few, frames[-1]]


def everything(steps, every):
    return every_frame(steps)


def guesses(steps, every):
    frames = [step.x0.detach().clone() for step in steps]
    few = frames[::every]
    return few if few[-1] is frames[-1] else [*few, frames[-1]]


def just_the_end(steps, every):
    return every_frame(steps)[-1:]


def first_twice(steps, every):
    frames = with_enumerate(steps, every)
    return [frames[0], *frames]


def end_always(steps, every):
    frames = with_enumerate(steps, every)
    return [*frames, frames[-1]]


def not_copied(steps, every):
    frames, i = [], 0
    for i, step in enumerate(steps):
        if i % every == 0:
            frames.append(step.x)
    if i % every:
        frames.append(step.x)
    return frames


def with_gradients(steps, every):
    frames = [step.x.clone() for step in steps]
    few = frames[::every]
    return few if few[-1] is frames[-1] else [*few, frames[-1]]


def copied_too_late(steps, every):
    every_step = list(steps)
    return [step.x.clone() for step in [*every_step[:-1:every], every_step[-1]]]


def as_shipped(steps, every):
    return [step.x for i, step in enumerate(steps) if i % every == 0]


def end_appended(steps, every):
    frames = [step.x.detach().clone() for step in steps]
    return [*frames[::every], frames[-1]]


def by_length(steps, every):
    return [step.x.clone() for i, step in enumerate(steps) if i % every == 0 or i == len(steps) - 1]


def sliced(steps, every):
    return [step.x.clone() for step in steps[::every]]


def generator(steps, every):
    yield from with_enumerate(steps, every)


def end_not_copied(steps, every):
    frames = []
    for i, step in enumerate(steps):
        if i % every == 0:
            frames.append(step.x.detach().clone())
    return [*frames, step.x.detach()] if i % every else frames


def left_on_the_gpu(steps, every):
    frames, last = [], None
    for i, step in enumerate(steps):
        last = step.x.detach().clone()
        if i % every == 0:
            frames.append(last)
    return [*frames, last] if i % every else frames


def last_by_time(steps, every):
    frames = []
    for i, step in enumerate(steps):
        if i % every == 0 or step.t == 0:
            frames.append(step.x.detach().cpu().clone())
    return frames


def one_tensor(steps, every):
    return torch.stack(with_enumerate(steps, every))


WRONG = {
    "device": [left_on_the_gpu],
    "last by its time": [last_by_time],
    "last missing + all the same": [as_shipped],
    "last not copied": [end_not_copied],
    "not x": [lambda steps, every: [x.half() for x in with_enumerate(steps, every)]],
    "empty": [as_in_the_repository],
    "last missing": [no_end],
    "both ends missing": [multiples],
    "first missing": [multiples_and_end],
    "everything": [everything],
    "guesses": [guesses],
    "only the last": [just_the_end],
    "last twice": [end_appended],
    "last always twice": [end_always],
    "not looped over": [by_length, sliced],
    "all the same": [not_copied, copied_too_late],
    "gradients": [with_gradients],
    "none": [lambda steps, every: None],
    "type": [generator, one_tensor],
}


def backwards(steps, every):
    return with_enumerate(steps, every)[::-1]


def plus_one(steps, every):
    return with_enumerate(steps, every + 1)


UNKNOWN = [backwards, plus_one, first_twice]
