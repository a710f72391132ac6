"""docs/extending.md does what it says: its code is taken from the page and run."""

import __future__

import importlib
import json
import math
import re
import shlex
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from support.paths import REPOSITORY
from support.repository_copy import Copy
from support.tiny_training import (
    ALONE,
    CPU,
    SIZE,
    VIEWS,
    one_thread,
    read_packed,
    train,
    weights_file,
    write_packed,
    write_params,
)

from srt.config.load import load_experiment
from srt.config.model_schema import MODELS
from srt.data.batch import make_view_config
from srt.data.packed.reader import Scenes
from srt.evaluation.evaluator import evaluate_items
from srt.evaluation.protocols import protocol_items
from srt.geometry.cameras import look_at, pinhole
from srt.model.decoder import DECODERS
from srt.model.encoder import ENCODERS
from srt.model.srt import build_model
from srt.model.weights import load_model

PAGE = (REPOSITORY / "docs" / "extending.md").read_text()

# A block of code, after a line that ends in a colon and names a file first, if it is for one.
BLOCK = re.compile(r"^(?P<line>[^\n]*:)\n\n```(?P<language>\w+)\n(?P<code>.*?)^```", re.M | re.S)


def blocks(heading):
    """Return the blocks of a section: pairs of the name of a file, or a language, and the code."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = []
    for match in BLOCK.finditer(section):
        file = re.search(r"`([\w/]+\.(?:py|yaml))`", match["line"])
        found.append((file[1] if file else match["language"], match["code"]))
    return found


def append(monkeypatch, file, code):
    """Run code as if it stood at the end of a module. `monkeypatch` takes its names back."""
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    names = dict(vars(module))
    flags = __future__.annotations.compiler_flag  # the module's first line
    exec(compile(code, f"docs/extending.md, {file}", "exec", flags), names)
    for name in names.keys() - vars(module).keys():
        monkeypatch.setattr(module, name, names[name], raising=False)


@pytest.fixture
def extend(monkeypatch, tmp_path):
    """A function that does what a section on models says, and returns its experiment."""

    def run_section(heading, name):
        *code, (_, settings) = blocks(heading)
        for file, text in code:
            append(monkeypatch, file, text)

        # The model's settings are those of SRT and its own.
        path = write_params(tmp_path / "params.yaml")
        params, added = yaml.safe_load(path.read_text()), yaml.safe_load(settings)
        params["models"][name] = params["models"]["srt"] | added["models"][name]
        params["experiments"] |= added["experiments"]
        path.write_text(yaml.safe_dump(params))
        return load_experiment(path, *added["experiments"], "quick")

    with mock.patch.dict(MODELS), mock.patch.dict(ENCODERS), mock.patch.dict(DECODERS):
        yield run_section


@pytest.mark.parametrize(
    ("heading", "name", "part"),
    [("An encoder", "vit", "encoder"), ("A decoder", "palette", "decoder")],
)
def test_the_models_of_the_page_train_and_are_evaluated(extend, tmp_path, heading, name, part):
    experiment = extend(heading, name)
    packed = write_packed(tmp_path / "packed")
    with one_thread():
        training = train(experiment, read_packed(packed), tmp_path / "states")
        weights_file(training, tmp_path / "model.safetensors")
        model, _ = load_model(tmp_path / "model.safetensors", CPU)
        scenes = Scenes(packed / "test", CPU)
        rows = evaluate_items(
            model,
            scenes,
            protocol_items(scenes, "stelzner", 1, 3),
            "stelzner",
            mean_colour=None,
            lpips=None,
            view_config=make_view_config(experiment),
            rays_per_group=100,
            processes=ALONE,
        )

    # All of the page's part was trained, and every scene was measured.
    assert type(getattr(model, part)).__name__ == f"{name.capitalize()}{part.capitalize()}"
    untrained = getattr(build_model(experiment.model, experiment.seed), part).state_dict()
    for key, value in getattr(model, part).state_dict().items():
        assert not torch.equal(value, untrained[key]), key
    assert len(rows) == 3
    assert all(math.isfinite(row["psnr"]) for row in rows)


def write_rooms(folder, splits):
    """Write scenes of noise in the page's layout, and return their images by name."""
    rng = np.random.default_rng(0)
    positions = torch.from_numpy(rng.normal(2, 0.3, (VIEWS, 3)))
    cameras = {
        "intrinsics": pinhole(1.5, 1.0, SIZE, SIZE).double().expand(VIEWS, 3, 3).numpy(),
        "camera_to_world": look_at(positions, torch.zeros_like(positions)).numpy(),
    }
    folder.mkdir(parents=True)
    (folder / "scenes.json").write_text(json.dumps(splits))
    images = {}
    for name in (name for names in splits.values() for name in names):
        images[name] = rng.integers(0, 256, (VIEWS, SIZE, SIZE, 3), dtype=np.uint8)
        np.savez(folder / f"{name}.npz", images=images[name], **cameras)
    return images


def test_the_dataset_of_the_page_is_fetched_packed_and_read(tmp_path):
    # Do what the page says in a copy of the repository. No other file is touched.
    copy = Copy(tmp_path / "copy")
    for file, code in blocks("A dataset"):
        if file.endswith(".py"):
            with (copy.folder / file).open("a") as module:
                module.write(code)
        elif file == "params.yaml":
            dataset = yaml.safe_load(code)["datasets"]["rooms"]
            copy.edit_params({"datasets.rooms": dataset})
    splits = {"train": ["kitchen", "hall"], "val": ["bath"], "test": ["attic"]}
    images = write_rooms(copy.folder / dataset["source"], splits)

    # Run its commands.
    (commands,) = (code for language, code in blocks("A dataset") if language == "console")
    for command in commands.splitlines():
        code, output = copy.run(*shlex.split(command))
        assert code == 0, output

    # Each split has its scenes, with the images that were written.
    for split, names in splits.items():
        packed = copy.folder / "data" / "paper" / "packed" / "rooms" / split
        assert Scenes(packed, CPU).names == names
        stored = np.load(packed / "images-00000.npy")
        np.testing.assert_array_equal(stored, np.stack([images[name] for name in names]))
