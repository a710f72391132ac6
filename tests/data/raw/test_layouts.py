"""The register of raw layouts: every entry is complete, and it refuses what does not fit it."""

import subprocess
import sys
import typing

import pytest
from support.broken_params import write_edited_params
from support.paths import PARAMS, REPOSITORY

from srt.config.load import load_params
from srt.config.schema import DatasetConfig, SubsetConfig, SyntheticConfig
from srt.config.strict import ConfigError
from srt.data.raw.layouts import LAYOUTS, check_layouts, load_reader, load_writer

SCENES = typing.get_args(typing.get_type_hints(SyntheticConfig)["scene"])


def test_every_dataset_of_every_profile_fits_its_layout():
    check_layouts(PARAMS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_code_of_a_layout_is_all_that_its_entry_promises(name):
    layout = LAYOUTS[name]
    reader = load_reader(name)
    assert callable(reader.list_scenes)
    assert callable(reader.read_scene)
    assert hasattr(reader, "read_classes") == ("classes" in layout.subset)
    assert not layout.scenes or callable(load_writer(name))
    assert bool(layout.writer) == bool(layout.scenes)


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_entry_names_keys_and_scenes_that_the_configuration_has(name):
    layout = LAYOUTS[name]
    assert {*layout.needs, *layout.refuses} <= typing.get_type_hints(DatasetConfig).keys()
    assert set(layout.subset) <= typing.get_type_hints(SubsetConfig).keys()
    assert set(layout.scenes) <= set(SCENES)


def test_the_register_is_read_without_importing_the_code_of_any_layout():
    command = """
import sys
from srt.data.raw.layouts import check_layouts
check_layouts(__import__("pathlib").Path("params.yaml"))
print({"torch", "tensorflow", "numpy"} & sys.modules.keys())
"""
    run = subprocess.run(
        [sys.executable, "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert run.stdout == "set()\n"


def subset(**changes):
    return {"classes": None, "shards": None, "max_scenes": None, **changes}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("datasets.nmr.layout", "nrm", "layout: 'nrm' is not one of nmr, obsurf, msn, generated"),
        ("datasets.clevr3d.ranges", None, "ranges: layout obsurf needs it"),
        ("datasets.msn.view_list", 0, "view_list: layout msn has no view_list; set it to null"),
        ("datasets.msn.subset", subset(classes=["car"]), "subset.classes car: layout msn has no"),
        ("datasets.nmr.subset", subset(shards="0"), "subset.shards 0: layout nmr has no shards"),
        ("datasets.nmr.source", "nmr.tar", "'nmr.tar': archives of layout nmr are zip files"),
        (
            "profiles.bench.datasets.nmr.source",
            "renders.zip",
            "a dataset of layout generated is synthetic",
        ),
        (
            "profiles.quick.datasets.msn.synthetic.scene",
            "object",
            "'object' cannot be written in layout msn, only in nmr, generated",
        ),
        (
            "profiles.quick.datasets.nmr.synthetic.scene",
            "solids",
            "'solids' cannot be written in layout nmr, only in obsurf, msn, generated",
        ),
        (
            "profiles.quick.datasets.nmr.synthetic.scene",
            "object_anywhere",
            "'object_anywhere' cannot be written in layout nmr, only in generated",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_its_layout_is_refused(tmp_path, key, value, expected):
    path = write_edited_params(tmp_path, (key, value))
    load_params(path)
    with pytest.raises(ConfigError) as error:
        check_layouts(path)
    name = key.split("datasets.")[1].split(".")[0]
    assert str(error.value).startswith(f"{path}: datasets.{name}, profile ")
    assert expected in str(error.value)
