"""Figures that others published, each with its source and how well the source was read.

`RESULTS` are figures that the report compares with our experiments: they were read where they were
published, and their protocol is known. `QUOTED` are figures that it only lists, because their
protocol or their source is uncertain. `PROTOCOLS` says what each protocol measures.

The marks: "read" in the published text itself; "second-hand" in a note of the paper;
"unconfirmed" not read yet, to be checked before it is quoted.
"""

from __future__ import annotations

from dataclasses import dataclass

from srt.results.records import Measure

# The protocol of a figure whose text could not be opened.
UNKNOWN = "not known"


@dataclass(frozen=True, kw_only=True)
class Quoted:
    """A figure that no run is compared with, because its protocol or its source is uncertain."""

    dataset: str
    method: str
    figures: tuple[float, float | None, float | None]  # PSNR, SSIM, LPIPS
    source: str
    mark: str
    protocol: str = UNKNOWN


# The papers.
_SRT = "Sajjadi et al., Scene Representation Transformer, CVPR 2022"
_LFN = "Sitzmann et al., Light Field Networks, NeurIPS 2021"
_FE_NVS = "Guo et al., Fast and Explicit Neural View Synthesis, WACV 2022"
_VISION = "Lin et al., Vision Transformer for NeRF-Based View Synthesis, WACV 2023"
_RUST = "Sajjadi et al., RUST, CVPR 2023"
_OSRT = "Sajjadi et al., Object Scene Representation Transformer, NeurIPS 2022"

# Dataset, method, (PSNR, SSIM, LPIPS), protocol, mark and source.
_Figures = tuple[float, float | None, float | None]
_QUOTED_ROWS: list[tuple[str, str, _Figures, str, str, str]] = [
    ("nmr", "SRT (paper)", (27.87, 0.912, 0.066), UNKNOWN, "unconfirmed", _SRT),
    ("nmr", "LFN", (24.95, 0.870, None), "pixelnerf", "unconfirmed", _LFN),
    ("nmr", "FE-NVS", (27.08, 0.920, 0.082), "pixelnerf", "unconfirmed", _FE_NVS),
    ("nmr", "VisionNeRF", (28.76, 0.933, 0.065), "pixelnerf", "unconfirmed", _VISION),
    ("msn", "SRT (paper)", (23.41, 0.697, 0.369), UNKNOWN, "second-hand", _SRT),
    ("msn", "RUST", (23.49, 0.703, 0.351), UNKNOWN, "second-hand", _RUST),
    ("msn", "PixelNeRF", (21.97, 0.689, 0.332), UNKNOWN, "unconfirmed", _SRT),
    ("msn_hard", "OSRT", (23.54, None, None), UNKNOWN, "second-hand", _OSRT),
    (
        "msn_hard",
        "stelzner/osrt, OSRT, 750 k iterations",
        (22.8, None, None),
        UNKNOWN,
        "read",
        "README of stelzner/osrt",
    ),
    ("clevr3d", "OSRT", (39.98, None, None), UNKNOWN, "second-hand", _OSRT),
]

QUOTED = [
    Quoted(
        dataset=dataset, method=method, figures=figures, source=source, mark=mark, protocol=protocol
    )
    for dataset, method, figures, protocol, mark, source in _QUOTED_ROWS
]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What a protocol measures. Figures of different protocols are never compared.

    The text is printed below the report's tables.
    """

    measures: tuple[Measure, ...]
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
    # This is what evaluate.py of autonomousvision/gta at 23015ef does.
    "gta": Definition(
        measures=("psnr", "ssim", "lpips", "lpips_alex"),
        text="every scene with its first views as input (published: drawn anew at each evaluation),"
        " the other views as targets; each image as it is predicted, neither clipped nor in 8 bits,"
        " then the mean over views and scenes; SSIM of pytorch_msssim with an 11 × 11 Gaussian"
        " window, LPIPS with VGG and with AlexNet",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """A published figure, how it was measured and how well its source was read.

    SSIM and LPIPS are None if the source does not give them.
    """

    method: str
    psnr: float
    ssim: float | None
    lpips: float | None
    protocol: str

    # The items of the whole published test set. A run with fewer items was measured on other data.
    items: int

    # How well the source was read, by the marks above.
    mark: str
    source: str
    classes: dict[str, tuple[float, float, float]]  # PSNR, SSIM and LPIPS of each class


# The sizes of the published test sets.
NMR_TEST_SCENES = 8762
MSN_TEST_SCENES = 10000

# The results that each experiment of params.yaml is compared with, at most one for each protocol.
# Unconfirmed figures, and those of an unknown protocol, are not here until somebody has read them
# in the papers.
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
    # The profile as_trained has the batch sizes and numbers of rays of these two trainings.
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
    """Return the figure that an experiment is compared with under a protocol, or None."""
    results = RESULTS.get(experiment, [])
    return next((result for result in results if result.protocol == protocol), None)
