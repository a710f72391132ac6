"""Copies of params.yaml with one wrong value each.

Keys are dotted names: `defaults.train.steps` is the value of `steps` in `train` in `defaults`.
"""

import copy

import yaml
from support.paths import PARAMS

RAW = yaml.safe_load(PARAMS.read_text())
RAW["profiles"]["paper"] = {"datasets": {"nmr": {}}}  # it changes nothing, so it says nothing
ABSENT = object()  # in place of a value: the key is deleted


def write_edited_params(folder, *edits):
    """Write a copy of params.yaml with changes, and return its path.

    Args:
        edits: pairs of a dotted key and its new value, or ABSENT.
    """
    raw = copy.deepcopy(RAW)
    for key, value in edits:
        # Go down to the section that has the key.
        *parents, name = key.split(".")
        section = raw
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is ABSENT:
            del section[name]
        else:
            section[name] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


# Sections, each with a dot at its end. A key that a section does not have is refused there.
LEVELS = [
    "",
    "datasets.nmr.",
    "weights.lpips_vgg.",
    "defaults.",
    "defaults.dataset.",
    "defaults.train.",
    "models.",
    "models.isrt.",
    "experiments.nmr_srt.",
    "profiles.paper.",
    "profiles.paper.train.",
    "profiles.quick.model.",
    "profiles.quick.experiments.clevr3d_srt.",
    "profiles.quick.experiments.clevr3d_srt.model.",
    "profiles.paper.datasets.",
    "profiles.paper.datasets.nmr.",
    "profiles.paper.weights.lpips_vgg.",
    "profiles.quick.datasets.nmr.synthetic.",
]

# A value of a wrong type, or one that is impossible.
WRONG_VALUES = [
    ("profile", 3),
    ("seed", "0"),
    ("datasets.nmr.image_size", 64),
    ("datasets.nmr.views", 24.0),
    ("datasets.nmr.subset", "all"),
    ("datasets.clevr3d.ranges", [0, 70000]),
    ("datasets.clevr3d.ranges.val", [70000]),
    ("defaults.dataset.storage", "zip"),
    ("datasets.nmr.layout", 5),
    ("datasets.nmr.synthetic", 5),
    ("datasets.nmr.view_list", True),
    ("weights.lpips_vgg.sha256", 39792300),
    ("models.srt.frame", "camera"),
    ("experiments.nmr_vsrt.model", "nerf"),
    ("experiments.nmr_vsrt.model", 7),
    ("experiments.msn_isrt.model.name", "nerf"),
    ("experiments.msn_isrt.model.frame", "camera"),
    ("models.vsrt.separate_fine_net", 1),
    ("profiles.quick.model.fine_samples", 0.5),
    ("profiles.quick.experiments.nmr_vsrt.model.conv_blocks", "3"),
    ("datasets.nmr.near", "2"),
    ("models.srt.pixel_embedding", [15, 20, 3]),
    ("models.srt.pixel_embedding", 15),
    ("defaults.train.steps", None),
    ("defaults.train.steps", True),
    ("defaults.train.steps", "1000"),
    ("defaults.train.learning_rate", "1e-4"),
    ("defaults.train.learning_rate", True),
    ("defaults.evaluate.protocols", "stelzner"),
    ("defaults.render.fade", 0),
    ("experiments.nmr_srt.dataset", ["nmr"]),
    ("experiments.nmr_srt.dataset", 7),
    ("experiments.nmr_srt.render", [1]),
    ("profiles.paper.train.learning_rate", "1e-4"),
    ("profiles.paper.train.batch_size", 1.5),
    ("profiles.paper.datasets.nmr.views", "24"),
    ("profiles.paper.datasets.nmr.pixel_grid", "centre"),
    ("profiles.paper.weights.lpips_vgg.source", 1),
    ("profiles.quick.datasets.nmr.synthetic.train", 0.5),
]

# Keys that must be there.
MISSING = [
    "seed",
    "defaults",
    "defaults.dataset",
    "profiles",
    "defaults.render",
    "defaults.train.steps",
    "models",
    "models.vsrt.coarse_samples",
    "experiments.nmr_srt.dataset",
    "experiments.nmr_srt.model",
    "experiments.msn_isrt.model.name",
]
