import torch

from diffusion_lib.autoencoder import Autoencoder, AutoencoderConfig
from diffusion_lib.data import Sprites
from diffusion_lib.data.latents import Latents
from diffusion_lib.training import shuffled


def test_each_picture_is_encoded_once_and_keeps_its_caption():
    torch.manual_seed(0)
    data, autoencoder = Sprites(50), Autoencoder(AutoencoderConfig((8, 16))).eval()
    latents = Latents(data, autoencoder, batch_size=20)
    assert len(latents) == 50 and latents.latents.dtype == torch.float16
    with torch.no_grad():
        expected = autoencoder.encode(data.batch(range(50))[0])
    assert (latents.batch(range(50))[0] - expected).abs().max() < 5e-3
    z, caption = latents[7]
    assert z.shape == (4, 8, 8) and z.dtype == torch.float32 and caption == data.captions[7]
    z, captions = next(shuffled(latents, 8))
    assert z.shape == (8, 4, 8, 8)
    rows = [data.captions.index(c) for c in captions]
    assert (z - expected[rows]).abs().amax((1, 2, 3)).median() < 5e-3
