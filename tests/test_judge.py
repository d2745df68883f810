import torch

from diffusion_lib.data.emoji import STYLES, THINGS, Emoji
from diffusion_lib.judge import Judge


def test_its_verdict_is_what_it_sees():
    torch.manual_seed(0)
    judge, images = Judge().eval(), torch.rand(3, 3, 64, 64) * 2 - 1
    things, styles = judge(images)
    assert things.shape == (3, len(THINGS)) and styles.shape == (3, len(STYLES))
    assert judge.features(images).shape == (3, 128)
    with torch.no_grad():
        judge.things.bias[THINGS.index("octopus")] += 1000
        judge.styles.bias[STYLES.index("blob")] += 1000
    prompts = ["an octopus, blob style, on white", "an octopus, flat style", "a squid"]
    verdict = judge.verdict(images, prompts)
    assert verdict.thing.tolist() == [True, True, False]
    assert verdict.style.tolist() == [True, False, True]  # the last names none
    assert verdict.both.tolist() == [True, False, False]


def test_it_learns_a_few_pictures():
    torch.manual_seed(0)
    data = Emoji()
    rows = torch.arange(0, 160, 20)
    images, cells = data.pictures(rows), data.cells[rows]
    judge = Judge((8, 16, 16, 32))
    optimiser = torch.optim.Adam(judge.parameters(), lr=3e-3)
    for _ in range(60):
        loss = judge.loss(images, cells[:, 0], cells[:, 1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert judge.verdict(images, [data.captions[i] for i in rows]).both.all()
