"""What others published: tensor names of stelzner/srt's checkpoints, results and their sources.

Names as in stelzner/srt at ff8b953. Results: `Result.source` says where a figure was read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What a protocol measures: figures of different protocols are never compared."""

    measures: tuple[str, ...]
    text: str


PROTOCOLS = {
    "stelzner": Definition(
        measures=("psnr",),
        text="every scene with each of its views as input, or, of several input views, with its"
        " first ones (published: drawn anew at each evaluation), the other views as targets; PSNR"
        " of the squared error over all of an item's targets, then the mean over items. It defines"
        " neither SSIM nor LPIPS (–)",
    ),
    "pixelnerf": Definition(
        measures=("psnr", "ssim", "lpips"),
        text="every scene with the one source view written down for it, the other views as targets;"
        " each image in 8 bits, then the mean over views and scenes; SSIM of scikit-image with a"
        " 7 × 7 window, LPIPS with VGG",
    ),
    "gta": Definition(  # evaluate.py of autonomousvision/gta at 23015ef
        measures=("psnr", "ssim", "lpips", "lpips_alex"),
        text="every scene with its first views as input (published: drawn anew at each evaluation),"
        " the other views as targets; each image as it is predicted, neither clipped nor in 8 bits,"
        " then the mean over views and scenes; SSIM of pytorch_msssim with an 11 × 11 Gaussian"
        " window, LPIPS with VGG and with AlexNet",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """A published figure, how it was measured and how well its source was read."""

    method: str
    psnr: float
    ssim: float | None
    lpips: float | None
    protocol: str
    items: int  # of the whole published test set: with fewer it is other data
    mark: str  # "read": in a text that was read; "unconfirmed": to be checked before it is quoted
    source: str
    classes: dict[str, tuple[float, float, float]]  # PSNR, SSIM, LPIPS


NMR_TEST_SCENES = 8762
MSN_TEST_SCENES = 10000

# Unconfirmed figures, and those whose protocol is not known, are left out until somebody has read
# them in the papers. An experiment has one result for a protocol.
RESULTS: dict[str, list[Result]] = {
    "nmr_srt": [
        Result(
            method="stelzner/srt, SRT, 3 M iterations",
            psnr=27.28,
            ssim=None,
            lpips=None,
            protocol="stelzner",
            items=24 * NMR_TEST_SCENES,
            mark="read",
            source="README of stelzner/srt",
            classes={},
        ),
        Result(
            method="PixelNeRF",
            psnr=26.80,
            ssim=0.910,
            lpips=0.108,
            protocol="pixelnerf",
            items=NMR_TEST_SCENES,
            mark="read",
            source="README of sxyu/pixel-nerf",
            classes={
                "airplane": (29.757, 0.947, 0.084),
                "bench": (26.351, 0.911, 0.116),
                "cabinet": (27.720, 0.910, 0.105),
                "car": (27.580, 0.942, 0.095),
                "chair": (23.835, 0.858, 0.146),
                "display": (24.217, 0.867, 0.129),
                "lamp": (28.579, 0.913, 0.114),
                "loudspeaker": (24.435, 0.855, 0.141),
                "rifle": (30.597, 0.968, 0.066),
                "sofa": (26.944, 0.908, 0.116),
                "table": (25.592, 0.898, 0.098),
                "telephone": (27.128, 0.922, 0.097),
                "watercraft": (29.180, 0.939, 0.111),
            },
        ),
    ],
    # Profile as_trained has their batch sizes and numbers of rays.
    "msn_srt": [
        Result(
            method="stelzner/srt, SRT, 4 M iterations, mostly with batch size 192",
            psnr=23.39,
            ssim=None,
            lpips=None,
            protocol="stelzner",
            items=MSN_TEST_SCENES,
            mark="read",
            source="README of stelzner/srt",
            classes={},
        ),
    ],
    "msn_isrt": [
        Result(
            method="stelzner/srt, ISRT, 2.8 M iterations, batch size 48, 4096 rays",
            psnr=24.84,
            ssim=None,
            lpips=None,
            protocol="stelzner",
            items=MSN_TEST_SCENES,
            mark="read",
            source="README of stelzner/srt",
            classes={},
        ),
    ],
}


def published_result(experiment: str, protocol: str) -> Result | None:
    """Returns the figure that an experiment is compared with under a protocol."""
    results = RESULTS.get(experiment, [])
    return next((result for result in results if result.protocol == protocol), None)
