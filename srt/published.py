"""What others published: tensor names of stelzner/srt's checkpoints, results and their sources.

Names as in stelzner/srt at ff8b953. Results: `Result.source` says where a figure was read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Pattern of a published name -> our name; {n} is a group plus an offset given in the function.
_RENAMES = [
    (r"encoder\.conv_blocks\.(\d+)\.layers\.([02])\.weight", "encoder.convolutions.{conv}.weight"),
    (r"encoder\.per_patch_linear\.(\w+)", "encoder.patch_projection.{0}"),
    (r"encoder\.pixel_embedding", "encoder.pixel_embedding"),
    (r"encoder\.canonical_camera_embedding", "encoder.canonical_embedding"),
    (r"encoder\.non_canonical_camera_embedding", "encoder.other_embedding"),
    (r"encoder\.transformer\.layers\.(\d+)\.0\.norm\.(\w+)", "encoder.layers.{0}.0.norm.{1}"),
    (
        r"encoder\.transformer\.layers\.(\d+)\.0\.fn\.to_qkv\.weight",
        "encoder.layers.{0}.0.query_key_value.weight",
    ),
    (
        r"encoder\.transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.(\w+)",
        "encoder.layers.{0}.0.output.{1}",
    ),
    (r"encoder\.transformer\.layers\.(\d+)\.1\.norm\.(\w+)", "encoder.layers.{0}.1.norm.{1}"),
    (
        r"encoder\.transformer\.layers\.(\d+)\.1\.fn\.net\.0\.(\w+)",
        "encoder.layers.{0}.1.expand.{1}",
    ),
    (
        r"encoder\.transformer\.layers\.(\d+)\.1\.fn\.net\.3\.(\w+)",
        "encoder.layers.{0}.1.contract.{1}",
    ),
    (
        r"decoder\.ray_predictor\.transformer\.layers\.(\d+)\.0\.norm\.(\w+)",
        "decoder.layers.{0}.attention.norm.{1}",
    ),
    (
        r"decoder\.ray_predictor\.transformer\.layers\.(\d+)\.0\.fn\.to_q\.weight",
        "decoder.layers.{0}.attention.query.weight",
    ),
    (
        r"decoder\.ray_predictor\.transformer\.layers\.(\d+)\.0\.fn\.to_kv\.weight",
        "decoder.layers.{0}.attention.key_value.weight",
    ),
    (
        r"decoder\.ray_predictor\.transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.(\w+)",
        "decoder.layers.{0}.attention.output.{1}",
    ),
    (
        r"decoder\.ray_predictor\.transformer\.layers\.(\d+)\.1\.norm\.(\w+)",
        "decoder.layers.{0}.mlp.norm.{1}",
    ),
    (
        r"decoder\.ray_predictor\.transformer\.layers\.(\d+)\.1\.fn\.net\.0\.(\w+)",
        "decoder.layers.{0}.mlp.expand.{1}",
    ),
    (
        r"decoder\.ray_predictor\.transformer\.layers\.(\d+)\.1\.fn\.net\.3\.(\w+)",
        "decoder.layers.{0}.mlp.contract.{1}",
    ),
    (r"decoder\.ray_predictor\.output_mlp\.0\.(\w+)", "decoder.hidden.{0}"),
    (r"decoder\.ray_predictor\.output_mlp\.2\.(\w+)", "decoder.colour.{0}"),
]


def our_name(published: str) -> str:
    """Returns our name of a tensor of a published checkpoint, e.g. `encoder.per_patch_linear.bias`.

    Raises KeyError for a name that no published SRT checkpoint has.
    """
    for pattern, ours in _RENAMES:
        if match := re.fullmatch(pattern, published):
            groups = match.groups()
            # Published: blocks of two convolutions, at places 0 and 2 between the ReLUs.
            conv = 2 * int(groups[0]) + int(groups[1]) // 2 if "{conv}" in ours else None
            return ours.format(*groups, conv=conv)
    raise KeyError(f"{published} is not a tensor of a published SRT checkpoint")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What a protocol measures: figures of different protocols are never compared."""

    measures: tuple[str, ...]
    text: str


PROTOCOLS = {
    "stelzner": Definition(
        measures=("psnr",),
        text="every scene with each choice of its input views, the other views as targets; PSNR of"
        " the squared error over all of an item's targets, then the mean over items. It defines"
        " neither SSIM nor LPIPS (–)",
    ),
    "pixelnerf": Definition(
        measures=("psnr", "ssim", "lpips"),
        text="every scene with the one source view written down for it, the other views as targets;"
        " each image in 8 bits, then the mean over views and scenes; SSIM of scikit-image with a"
        " 7 × 7 window, LPIPS with VGG",
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

# Unconfirmed figures are left out until somebody has read them in the papers. An experiment has one
# result for a protocol.
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
}


def published_result(experiment: str, protocol: str) -> Result | None:
    """Returns the figure that an experiment is compared with under a protocol."""
    results = RESULTS.get(experiment, [])
    return next((result for result in results if result.protocol == protocol), None)
