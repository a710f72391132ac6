"""The encoder's first convolution against the convolution of all channels."""

import pytest
import torch
import torch.nn.functional as F
from support.tiny_training import VARIANTS, tiny_experiment

from srt.model.encoder import PatchEncoder
from srt.model.positional_encoding import encode_inputs, ray_inputs


@pytest.mark.parametrize("size", [(2, 5), (3, 3), (8, 4)])
def test_the_first_convolution_is_that_of_all_channels_at_each_pixel(tmp_path, size):
    config = tiny_experiment(tmp_path, VARIANTS["srt"]).model
    encoder = PatchEncoder(config).double()
    images, directions = (torch.rand(2, 3, *size, 3, dtype=torch.float64) for _ in range(2))
    origins = torch.randn(2, 3, 3, dtype=torch.float64)

    # Every pixel gets the position of its camera, although it is constant over the image.
    pixel_origins = origins[:, :, None, None].expand_as(directions)
    rays = encode_inputs(ray_inputs(pixel_origins, directions, config))
    channels = torch.cat((images, rays), dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
    expected = F.relu(encoder.convolutions[0](channels))
    torch.testing.assert_close(encoder.first_convolution(images, origins, directions), expected)
