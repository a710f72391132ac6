"""Names of tensors in stelzner/srt's checkpoints (at ff8b953) and in ours."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from srt.config.schema import ModelConfig

# Published name -> ours, of the modules in a layer of the encoder, in one of a decoder, and of the
# parts of each decoder.
_ENCODER_LAYER = {
    "0.norm": "0.norm",
    "0.fn.to_qkv": "0.query_key_value",
    "0.fn.to_out.0": "0.output",
    "1.norm": "1.norm",
    "1.fn.net.0": "1.expand",
    "1.fn.net.3": "1.contract",
}
_DECODER_LAYER = {
    "0.norm": "attention.norm",
    "0.fn.to_q": "attention.query",
    "0.fn.to_kv": "attention.key_value",
    "0.fn.to_out.0": "attention.output",
    "1.norm": "mlp.norm",
    "1.fn.net.0": "mlp.expand",
    "1.fn.net.3": "mlp.contract",
}
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
    """Returns our name of a tensor of a published checkpoint, e.g. `encoder.per_patch_linear.bias`.

    Raises KeyError for a name that no published checkpoint of such a model has.
    """
    module, dot, tensor = _parts(published)
    for theirs, ours in _modules(model):
        if theirs == module:
            return ours + dot + tensor
    raise KeyError(f"{published} is not a tensor of a published {model.name} checkpoint")


def published_order(model: ModelConfig, ours: Collection[str]) -> list[tuple[str, str]]:
    """Returns the published and our name of each of our tensors, in a published checkpoint's order.

    A tensor that has two names there has two pairs. The published optimiser counts the tensors in
    this order, each once.
    """
    return [
        (theirs + tensor, name + tensor)
        for theirs, name in _modules(model)
        for tensor in ("", ".weight", ".bias")
        if name + tensor in ours
    ]


def _parts(name: str) -> tuple[str, str, str]:
    """Returns a tensor's module, a dot and `weight` or `bias`; an embedding has no module."""
    return (name, "", "") if name.endswith("embedding") else name.rpartition(".")


def _modules(model: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yields the published and our name of every module that has tensors, and of embeddings."""
    if model.pixel_embedding is not None:
        yield "encoder.pixel_embedding", "encoder.pixel_embedding"
        yield "encoder.canonical_camera_embedding", "encoder.canonical_embedding"
        yield "encoder.non_canonical_camera_embedding", "encoder.other_embedding"
    for number in range(2 * model.conv_blocks):  # a block is two of them, each before a ReLU
        theirs = f"encoder.conv_blocks.{number // 2}.layers.{number % 2 * 2}"
        yield theirs, f"encoder.convolutions.{number}"
    yield "encoder.per_patch_linear", "encoder.patch_projection"
    for layer in range(model.encoder_layers):
        for theirs, ours in _ENCODER_LAYER.items():
            yield f"encoder.transformer.layers.{layer}.{theirs}", f"encoder.layers.{layer}.{ours}"
    for theirs, ours in _DECODERS[model.name].items():
        if not model.separate_fine_net:
            ours = ours.replace("fine.", "coarse.")
        for their_module, our_module in _decoder_part(model, ours):
            yield f"decoder.{theirs}.{their_module}", f"decoder.{ours}.{our_module}"


def _decoder_part(model: ModelConfig, part: str) -> Iterator[tuple[str, str]]:
    """Yields the same for a part of a decoder: cross-attention layers, or linear ones with ReLU."""
    if part.endswith("layers"):
        for layer in range(model.decoder_layers):
            for theirs, ours in _DECODER_LAYER.items():
                yield f"{layer}.{theirs}", f"{layer}.{ours}"
    else:
        hidden = 1 if part == "query" else model.decoder_hidden_layers
        for number in range(hidden + 1):
            yield str(2 * number), str(2 * number)
