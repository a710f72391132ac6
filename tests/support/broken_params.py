"""Copies of params.yaml with a value changed, and what can be wrong with it."""

import copy

import yaml
from support.paths import PARAMS

RAW = yaml.safe_load(PARAMS.read_text())
RAW["profiles"]["paper"] = {"datasets": {"nmr": {}}}  # it changes nothing, so it says nothing
ABSENT = object()


def edited(folder, *edits):
    """Returns a copy of params.yaml in which the values of dotted keys are others, or absent."""
    raw = copy.deepcopy(RAW)
    for key, value in edits:
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


LEVELS = [
    "",
    "datasets.nmr.",
    "weights.lpips_vgg.",
    "defaults.",
    "defaults.dataset.",
    "defaults.train.",
    "experiments.nmr_srt.",
    "profiles.paper.",
    "profiles.paper.train.",
    "profiles.quick.experiments.clevr3d_srt.",
    "profiles.quick.experiments.clevr3d_srt.model.",
    "profiles.paper.datasets.",
    "profiles.paper.datasets.nmr.",
    "profiles.paper.weights.lpips_vgg.",
    "profiles.quick.datasets.nmr.synthetic.",
]
WRONG_VALUES = [
    ("profile", 3),
    ("seed", "0"),
    ("datasets.nmr.image_size", 64),
    ("datasets.nmr.views", 24.0),
    ("datasets.nmr.subset", "all"),
    ("datasets.clevr3d.ranges", [0, 70000]),
    ("datasets.clevr3d.ranges.val", [70000]),
    ("defaults.dataset.storage", "zip"),
    ("datasets.nmr.layout", "nrm"),
    ("datasets.nmr.synthetic", 5),
    ("datasets.nmr.view_list", True),
    ("weights.lpips_vgg.sha256", 39792300),
    ("defaults.model.frame", "camera"),
    ("defaults.model.name", "nerf"),
    ("defaults.model.separate_fine_net", 1),
    ("datasets.nmr.near", "2"),
    ("defaults.model.pixel_embedding", [15, 20, 3]),
    ("defaults.model.pixel_embedding", 15),
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
MISSING = [
    "seed",
    "defaults",
    "defaults.dataset",
    "profiles",
    "defaults.render",
    "defaults.train.steps",
    "experiments.nmr_srt.dataset",
]
