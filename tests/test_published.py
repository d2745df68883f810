"""A tiny random Stable Diffusion, written to disk by diffusers, and painted by both libraries."""

import json
import shutil

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusion_lib.__main__ import main
from diffusion_lib.bpe import END, START, byte_letters
from diffusion_lib.editing import img2img
from diffusion_lib.published import load_model, load_stable_diffusion
from diffusion_lib.sampling import ddim, dpm_solver

PROMPT, NEGATIVE = "a photo of an astronaut riding a horse", "blurry, it's grey"
DDIM = dict(timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False)
DPM = dict(
    algorithm_type="dpmsolver++",
    final_sigmas_type="zero",
    lower_order_final=True,
    solver_order=2,
    timestep_spacing="trailing",
)


def write_tokenizer(folder):
    letters = list(byte_letters().values())
    merges = [("a", "s"), ("o", "f</w>"), ("h", "o"), ("r", "s"), ("ho", "rs"), ("hors", "e</w>")]
    pieces = [*letters, *(c + "</w>" for c in letters), *map("".join, merges), START, END]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
    lines = ["#version: 0.2", *map(" ".join, merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return len(pieces)


def tiny(folder, **noise):
    """A StableDiffusionPipeline with random weights, in `folder` too."""
    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "words")
    text = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=0.3,
    )
    betas = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "words", model_max_length=77),
        unet=unet.eval(),
        scheduler=diffusers.DDIMScheduler(**betas | DDIM | noise),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):  # newer releases write tokenizer.json alone
        shutil.copy(folder / "words" / name, folder / "tokenizer" / name)
    return pipeline


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny model"
    return folder, tiny(folder)


@pytest.fixture()
def copy(theirs, tmp_path):
    return shutil.copytree(theirs[0], tmp_path / "copy")


def painted_by_both(ours, pipeline, sampler, **how):
    expected = pipeline(
        [PROMPT, "a horse"],
        negative_prompt=[NEGATIVE] * 2,
        latents=ours.noise(2, seed=0),
        output_type="pt",
        num_inference_steps=how["steps"],
        guidance_scale=how["guidance"],
    ).images
    pictures = ours.generate([PROMPT, "a horse"], negative=NEGATIVE, seed=0, sampler=sampler, **how)
    assert pictures.shape == (2, 3, 64, 64) and pictures.std() > 0.02
    return (pictures + 1) / 2, expected


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", [ddim, dpm_solver])
def test_both_paint_the_same(theirs, tmp_path, sampler, prediction):
    folder, pipeline = theirs
    if prediction != "epsilon":
        folder, pipeline = tmp_path / "v", tiny(tmp_path / "v", prediction_type=prediction)
    kept = pipeline.scheduler
    if sampler is dpm_solver:
        of = diffusers.DPMSolverMultistepScheduler
        pipeline.scheduler = of.from_config(kept.config, **DPM)
    ours = load_stable_diffusion(folder)
    assert ours.guidance == 7.5 and ours.pixels == 64
    found, expected = painted_by_both(ours, pipeline, sampler, steps=10, guidance=7.5)
    pipeline.scheduler = kept
    assert (found - expected).abs().max() < 2e-5


def test_half_precision_on_disk_and_in_use(theirs, copy):
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (copy / part).glob("*.safetensors")
        save_file({k: w.half() for k, w in load_file(file).items()}, file)
    full, half = load_stable_diffusion(theirs[0]), load_stable_diffusion(copy)
    assert next(half.parameters()).dtype == torch.float32
    pictures = [m.generate([PROMPT], steps=5, seed=0) for m in (full, half)]
    assert (pictures[0] - pictures[1]).abs().max() < 0.02
    small = load_stable_diffusion(copy, dtype=torch.bfloat16)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert (small.generate([PROMPT], steps=5, seed=0) - pictures[0]).abs().mean() < 0.05


def test_editing_works_on_it(theirs):
    model = load_stable_diffusion(theirs[0])
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(64, 64)
    mask[32:] = 1
    painted = img2img(model, image, [PROMPT], strength=0.5, mask=mask, steps=4, seed=0)
    assert torch.equal(painted[..., :32, :], image[..., :32, :]) and painted.isfinite().all()


def test_the_commands_take_a_folder(theirs, tmp_path):
    out = tmp_path / "out.png"
    told = ["--model", str(theirs[0]), "--steps", "2", "--device", "cpu", "-o", str(out)]
    assert main(["generate", PROMPT, *told]) == 0 and out.is_file()
    assert main(["edit", str(out), PROMPT, *told]) == 0


def test_shipped_models_load_by_the_same_function():
    assert load_model("sprites").autoencoder is None


@pytest.mark.parametrize(
    "part, change, said",
    [
        ("unet", dict(use_linear_projection=True), "use_linear_projection is True"),
        ("unet", dict(attention_head_dim=[5, 10]), "is not Stable Diffusion v1's"),
        ("unet", dict(block_out_channels=[32, 32]), "its weights are not what its config says"),
        ("vae", dict(shift_factor=0.1), "shift_factor"),
        ("text_encoder", dict(hidden_act="relu"), "the activation 'relu'"),
        ("scheduler", dict(beta_schedule="squaredcos_cap_v2"), "the beta schedule 'squaredcos"),
        ("scheduler", dict(prediction_type="flow"), "prediction_type 'flow'"),
    ],
)
def test_other_structures_are_named_and_refused(copy, part, change, said):
    path = copy / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=said):
        load_stable_diffusion(copy)


def test_what_is_missing(copy, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="is .* a Stable Diffusion's folder"):
        load_stable_diffusion(tmp_path)
    (file,) = (copy / "vae").glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(FileNotFoundError, match="is a pickle, which can run code"):
        load_stable_diffusion(copy)
    assert main(["generate", "a cat", "--model", str(copy)]) == 1
    assert "no safetensors file" in capsys.readouterr().err
