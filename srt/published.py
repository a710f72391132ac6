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
class Result:
    """A published figure, how it was measured and how well its source was read."""

    method: str
    psnr: float
    ssim: float | None
    lpips: float | None
    protocol: str
    mark: str  # "read": in a text that was read; "unconfirmed": to be checked before it is quoted
    source: str


# Unconfirmed figures are left out until somebody has read them in the papers.
RESULTS: dict[str, list[Result]] = {
    "nmr_srt": [
        Result(
            method="stelzner/srt, SRT, 3 M iterations",
            psnr=27.28,
            ssim=None,
            lpips=None,
            protocol="stelzner",
            mark="read",
            source="README of stelzner/srt",
        ),
        Result(
            method="PixelNeRF",
            psnr=26.80,
            ssim=0.910,
            lpips=0.108,
            protocol="pixelnerf",
            mark="read",
            source="README of sxyu/pixel-nerf",
        ),
    ],
}
