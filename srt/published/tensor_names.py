"""Names of tensors in the checkpoints of stelzner/srt (ff8b953), and in ours.

A tensor's name is that of its module, a dot, and `weight` or `bias`. So the tables below only name
modules. Embeddings are tensors of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from srt.config.schema import ModelConfig, VsrtConfig

# All tables: published name -> our name. The modules in a layer of the encoder:
_ENCODER_LAYER = {
    "0.norm": "0.norm",
    "0.fn.to_qkv": "0.query_key_value",
    "0.fn.to_out.0": "0.output",
    "1.norm": "1.norm",
    "1.fn.net.0": "1.expand",
    "1.fn.net.3": "1.contract",
}

# The modules in a layer of a decoder.
_DECODER_LAYER = {
    "0.norm": "attention.norm",
    "0.fn.to_q": "attention.query",
    "0.fn.to_kv": "attention.key_value",
    "0.fn.to_out.0": "attention.output",
    "1.norm": "mlp.norm",
    "1.fn.net.0": "mlp.expand",
    "1.fn.net.3": "mlp.contract",
}

# The components of each decoder: lists of such layers, and MLPs.
_DECODERS = {
    "srt": {
        "ray_predictor.transformer.layers": "layers",
        "ray_predictor.output_mlp": "colour",
    },
    "isrt": {
        "allocation_transformer.input_mlp": "query",
        "allocation_transformer.transformer.layers": "layers",
        "render_mlp": "colour",
    },
    "vsrt": {
        "coarse_net.transformer.layers": "coarse.layers",
        "coarse_net.color_predictor": "coarse.colour",
        "coarse_net.density_predictor": "coarse.density",
        "fine_net.transformer.layers": "fine.layers",
        "fine_net.color_predictor": "fine.colour",
        "fine_net.density_predictor": "fine.density",
    },
}


def our_name(model: ModelConfig, published: str) -> str:
    """Return our name of a published tensor; raise KeyError if no such checkpoint has it."""
    module, dot, tensor = _split_name(published)
    for theirs, ours in _modules(model):
        if theirs == module:
            return ours + dot + tensor
    raise KeyError(f"{published} is not a tensor of a published {model.name} checkpoint")


def published_order(model: ModelConfig, ours: Collection[str]) -> list[tuple[str, str]]:
    """Return each tensor's published name and our name, in the order of a published checkpoint.

    A tensor with two published names is in two pairs. The published optimiser numbers the tensors
    in this order, and counts such a tensor once.

    Args:
        ours: our names of all tensors of the model.
    """
    return [
        (theirs + tensor, name + tensor)
        for theirs, name in _modules(model)
        for tensor in ("", ".weight", ".bias")
        if name + tensor in ours
    ]


def _split_name(name: str) -> tuple[str, str, str]:
    """Return a tensor's module, a dot, and `weight` or `bias`; for an embedding only its name."""
    return (name, "", "") if name.endswith("embedding") else name.rpartition(".")


def _modules(model: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield the published name and our name of each embedding and each module with tensors."""
    # Learned embeddings of the encoder: a token's position, and whether its camera is the first.
    if model.pixel_embedding is not None:
        yield "encoder.pixel_embedding", "encoder.pixel_embedding"
        yield "encoder.canonical_camera_embedding", "encoder.canonical_embedding"
        yield "encoder.non_canonical_camera_embedding", "encoder.other_embedding"

    # A published block has two convolutions, each followed by a ReLU, which counts as a layer.
    for number in range(2 * model.conv_blocks):
        theirs = f"encoder.conv_blocks.{number // 2}.layers.{number % 2 * 2}"
        yield theirs, f"encoder.convolutions.{number}"
    yield "encoder.per_patch_linear", "encoder.patch_projection"

    for layer in range(model.encoder_layers):
        for theirs, ours in _ENCODER_LAYER.items():
            yield f"encoder.transformer.layers.{layer}.{theirs}", f"encoder.layers.{layer}.{ours}"

    # VSRT's fine net may be its coarse net. The published checkpoint then has its tensors twice.
    separate = isinstance(model, VsrtConfig) and model.separate_fine_net
    for theirs, ours in _DECODERS[model.name].items():
        if not separate:
            ours = ours.replace("fine.", "coarse.")
        for their_module, our_module in _component_modules(model, ours):
            yield f"decoder.{theirs}.{their_module}", f"decoder.{ours}.{our_module}"


def _component_modules(model: ModelConfig, component: str) -> Iterator[tuple[str, str]]:
    """Yield the published name and our name of each module in a component of a decoder."""
    if component.endswith("layers"):
        for layer in range(model.decoder_layers):
            for theirs, ours in _DECODER_LAYER.items():
                yield f"{layer}.{theirs}", f"{layer}.{ours}"
        return

    # An MLP: linear layers have even numbers, because a ReLU is between each two of them.
    hidden = 1 if component == "query" else model.decoder_hidden_layers
    for number in range(hidden + 1):
        yield str(2 * number), str(2 * number)
