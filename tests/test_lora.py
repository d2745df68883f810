import peft  # noqa: F401  (diffusers needs it to load adapters)
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_published import PROMPT, tiny
from torch import nn

from diffusion_lib import load_pretrained, train
from diffusion_lib.__main__ import main
from diffusion_lib.data.sprites import Sprites
from diffusion_lib.lora import Adapter, adapt, adapters, load_lora, merge, save_lora
from diffusion_lib.published import load_stable_diffusion

RED = "a red dragon facing left"


@pytest.fixture()
def model():
    return load_pretrained("sprites")


def shaken(model, seed=0):
    """Adapters as training leaves them: no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    for adapter in adapters(model).values():
        with torch.no_grad():
            adapter.up.weight.normal_(std=0.3, generator=generator)
    return model


def test_the_sum_by_hand():
    layer = nn.Linear(5, 3)
    adapter = Adapter(layer, rank=2, scale=0.7)
    x = torch.randn(4, 5)
    assert torch.equal(adapter(x), layer(x))  # B is 0
    nn.init.normal_(adapter.up.weight)
    by_hand = x @ (layer.weight + 0.7 * adapter.up.weight @ adapter.down.weight).T + layer.bias
    assert torch.allclose(adapter(x), by_hand, atol=1e-6)
    assert torch.allclose(adapter.merged()(x), by_hand, atol=1e-6)


def test_it_changes_nothing_at_first_and_trains_alone(model):
    before = model.generate([RED], steps=4, seed=0)
    weights = {k: w.clone() for k, w in model.state_dict().items()}
    n = adapt(model, rank=4)
    assert n == sum(a.down.weight.numel() + a.up.weight.numel() for a in adapters(model).values())
    assert n < sum(w.numel() for w in weights.values()) / 10
    assert torch.equal(model.generate([RED], steps=4, seed=0), before)
    data = Sprites(1)
    batch = torch.stack([data.render(RED, seed=i) for i in range(8)]), [RED] * 8
    for state in train(model, [batch], steps=3, lr=1e-2):
        pass
    moved = {k.replace(".layer.", "."): w for k, w in model.state_dict().items()}
    assert all(torch.equal(moved[k], w) for k, w in weights.items())
    assert any(a.up.weight.abs().max() > 0 for a in adapters(model).values())


def test_merged_it_answers_the_same(model):
    adapt(model, rank=4)
    before = shaken(model).generate([RED], steps=4, seed=0)
    merge(model)
    assert not adapters(model)
    assert (model.generate([RED], steps=4, seed=0) - before).abs().max() < 1e-3


def test_a_file_of_adapters_alone(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    adapt(model, rank=4, scale=0.5)
    before = shaken(model).generate([RED], steps=4, seed=0)
    save_lora(model, path)
    assert path.stat().st_size < 300_000
    again = load_lora(load_pretrained("sprites"), path)
    assert torch.equal(again.generate([RED], steps=4, seed=0), before)
    none = load_lora(load_pretrained("sprites"), path, scale=0)
    assert torch.equal(
        none.generate([RED], steps=4, seed=0),
        load_pretrained("sprites").generate([RED], steps=4, seed=0),
    )


def test_the_command_takes_a_file(model, tmp_path, capsys):
    adapt(model, rank=4)
    save_lora(shaken(model), tmp_path / "mine.safetensors")
    pictures = []
    for lora in ([], ["--lora", str(tmp_path / "mine.safetensors")]):
        out = tmp_path / f"{len(lora)}.png"
        assert main(["generate", RED, "--steps", "2", *lora, "-o", str(out)]) == 0
        pictures.append(out.read_bytes())
    assert pictures[0] != pictures[1]
    assert main(["generate", RED, "--lora", str(tmp_path / "none.safetensors")]) == 1
    assert "none.safetensors" in capsys.readouterr().err


def both(ours, pipeline):
    expected = pipeline(
        [PROMPT], latents=ours.noise(1, seed=0), output_type="pt", num_inference_steps=5
    ).images
    found = ours.generate([PROMPT], steps=5, guidance=7.5, seed=0)
    return (found + 1) / 2, expected


def test_diffusers_loads_ours(tmp_path):
    pipeline = tiny(tmp_path / "model")
    ours = load_stable_diffusion(tmp_path / "model")
    plain = ours.generate([PROMPT], steps=5, seed=0)
    adapt(
        ours, rank=4, scale=0.5, where=r"_attention\.(query|key|value|out)|feed_forward\.(wide|out)"
    )
    save_lora(shaken(ours), tmp_path / "ours.safetensors")
    pipeline.load_lora_weights(str(tmp_path), weight_name="ours.safetensors")
    found, expected = both(ours, pipeline)
    assert (found - expected).abs().max() < 2e-5
    assert (2 * found - 1 - plain).abs().max() > 0.01


def test_we_load_what_diffusers_saves(tmp_path):
    pipeline = tiny(tmp_path / "model")
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    pipeline.unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    torch.manual_seed(0)
    for name, parameter in pipeline.unet.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    layers = peft.utils.get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    ours = load_stable_diffusion(tmp_path / "model")
    load_lora(ours, tmp_path / "pytorch_lora_weights.safetensors")
    assert len(adapters(ours)) == len(layers) // 2
    found, expected = both(ours, pipeline)
    assert (found - expected).abs().max() < 2e-5


def test_what_does_not_fit(model, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="no linear layer's name ends in"):
        adapt(model, where="nowhere")
    with pytest.raises(ValueError, match="has no adapters"):
        save_lora(model, path)
    adapt(model, rank=2)
    save_lora(model, path)
    for change in (adapt, lambda m: load_lora(m, path)):
        with pytest.raises(ValueError, match="has adapters already"):
            change(model)
    tensors = load_file(path)
    some = next(name for name in tensors if name.endswith("lora_A.weight"))
    for changed, said in (
        (tensors | {some: torch.zeros(2, 7)}, "does not fit"),
        (tensors | {"unet.nowhere.to_q.lora_A.weight": torch.zeros(2, 2)}, "an adapter for"),
        (tensors | {"unet.conv.weight": torch.zeros(2)}, "no part of a low-rank adapter"),
    ):
        save_file(changed, path)
        with pytest.raises(ValueError, match=said):
            load_lora(load_pretrained("sprites"), path)
