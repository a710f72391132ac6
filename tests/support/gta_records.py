"""The recorded outputs of autonomousvision/gta at a2e7971, and our model with the same weights.

The weights are not in the repository. They are random numbers whose seed is the tensor's published
name, rounded to eight binary digits.
"""

import json
import re
import zlib

import numpy as np
import torch
from support.paths import REFERENCE
from torch import nn

from srt.geometry.camera_channels import GtaChannels
from srt.geometry.rays import Rays
from srt.geometry.token_cameras import TokenCameras
from srt.model.gta import GtaDecoder, GtaEncoder, GtaSizes

CHANNELS = {"gta": GtaChannels(16, 0, 16), "gta_so3": GtaChannels(8, 16, 8)}
SMALL_SIZES = {
    "translation_scale": 0.01,
    "conv_blocks": 3,
    "conv_channels": 4,
    "latent_dim": 128,
    "heads": 4,
    "mlp_dim": 256,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "query_dim": 36,
    "decoder_hidden": 48,
    "decoder_hidden_layers": 4,
}

# Regular expressions of the published names, and what they are here.
OUR_NAMES = {
    r"per_patch_linear": "patch_projection",
    r"allocation_transformer\.initial_emb": "query",
    r"(allocation_transformer\.)?transformer\.layers\.(\d+)\.0\.(fn\.)?": r"layers.\2.attention.",
    r"(allocation_transformer\.)?transformer\.layers\.(\d+)\.1\.(fn\.)?": r"layers.\2.mlp.",
    r"trans_coeff": "world.scale",
    r"to_qkv": "query_key_value",
    r"to_q\b": "query",
    r"to_kv": "key_value",
    r"to_out\.0": "output",
    r"net\.0": "expand",
    r"net\.3": "contract",
    r"render_mlp": "colour",
}


def build_pair(**sizes):
    """Return an encoder and a decoder in float64; the same sizes always have the same weights."""
    sizes = GtaSizes(**{"channels": CHANNELS["gta"], **SMALL_SIZES, **sizes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pair = {"encoder": GtaEncoder(sizes), "decoder": GtaDecoder(sizes)}
    return nn.ModuleDict(pair).double()


def recorded_model(name):
    """Return the model with the recorded weights."""
    model = build_pair(channels=CHANNELS[name])
    shapes = {tensor: value.shape for tensor, value in model.state_dict().items()}
    weights = {our_name(tensor): values for tensor, values in reference_weights(name).items()}
    model.load_state_dict({key: value.view(shapes[key]) for key, value in weights.items()})
    return model


def load_record(name):
    """Return the recorded arrays as tensors, except for lists of names."""
    arrays = np.load(REFERENCE / f"model_{name}.npz")
    return {
        key: values if values.dtype.kind == "U" else torch.from_numpy(values)
        for key, values in arrays.items()
    }


def reference_weights(name):
    """Return the weights with which the outputs were recorded, by their published names."""
    manifest = json.loads((REFERENCE / f"manifest_{name}.json").read_text())
    return {
        tensor: reference_values(tensor, shape) for tensor, shape in manifest["tensors"].items()
    }


def reference_values(tensor, shape):
    """Return the recorded weights of a tensor."""
    values = np.random.default_rng([1, zlib.crc32(tensor.encode())]).standard_normal(shape)
    if tensor.endswith("trans_coeff"):
        values = 0.05 + 0.01 * values
    elif len(shape) >= 2:
        values = values / np.sqrt(np.prod(shape[1:]))
    elif tensor.endswith("norm.weight"):
        values = 1 + 0.1 * values
    elif not tensor.endswith("initial_emb"):
        values = 0.02 * values
    return torch.from_numpy(values).bfloat16().half().double()


def our_name(published):
    """Return what a published tensor is called here."""
    name = re.sub(r"conv_blocks\.(\d+)\.layers\.(\d+)", convolution_name, published)
    for pattern, ours in OUR_NAMES.items():
        name = re.sub(pattern, ours, name)
    return name


def convolution_name(match):
    """Return the name of a block's first (0) or second (2) convolution."""
    block, layer = map(int, match.groups())
    return f"convolutions.{2 * block + layer // 2}"


def target_rays(cameras):
    """Return rays with these cameras. Their origins and directions must not be read."""
    unread = torch.full((*cameras.view_index.shape, 3), torch.nan, dtype=torch.float64)
    return Rays(unread, unread, near=0.0, far=1.0, cameras=cameras)


def record_inputs(record):
    """Return the input images, the cameras of their patches, and the target rays."""
    images = record["input_images"].permute(0, 1, 3, 4, 2).double() / 256  # (b, v, h, w, 3)

    # The patches' coordinates are not recorded ones: they follow from the size of the images.
    views = record["target_view"].expand(2, -1)
    cameras = TokenCameras(
        record["target_world_to_camera"], views, record["target_coord"].flatten(1, 2)
    )
    return images, record["input_world_to_camera"], target_rays(cameras)


def decode(model, images, world_to_camera, rays, intrinsics=None):
    """Return the scene tokens, and the colours of the rays."""
    cameras = model["encoder"].patch_cameras(images, world_to_camera, intrinsics)
    tokens = model["encoder"](images, cameras)
    keys_values = model["decoder"].scene_keys_values(tokens, cameras)
    return tokens, model["decoder"](keys_values, rays).colours
