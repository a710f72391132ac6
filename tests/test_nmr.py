"""The NMR reader: parity with the published loader, and every check of the raw data."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srt.config import load_dataset
from srt.data import nmr, packing
from srt.data.sampling import whole_views
from srt.data.scenes import DataError, Scenes

REPOSITORY = Path(__file__).parents[1]
REAL = REPOSITORY.parent / "shared" / "data" / "nmr_real"
PUBLISHED = dataclasses.replace(load_dataset(REPOSITORY / "params.yaml", "nmr", "paper"), view_list=0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def real_packed(tmp_path_factory):
    if not REAL.is_dir():
        pytest.skip("the small set of real renders is not beside the repository")
    out = tmp_path_factory.mktemp("packed") / "nmr"
    packing.pack(REAL, None, PUBLISHED, out, provenance={}, workers=2)
    return out


@pytest.mark.parametrize("frame", ["canonical", "world"])
@pytest.mark.parametrize("item", [0, 1, 2])
def test_items_equal_the_published_loaders(real_packed, frame, item):
    """Images, positions, directions: 1e-5 (the corner grid, as published)."""
    file = np.load(REPOSITORY / "tests" / "reference" / "loader_nmr.npz")
    recorded = {k.removeprefix(f"{frame}_{item}_"): v for k, v in file.items() if k.startswith(frame)}
    recorded = {k: file[f"{frame}_{item}_{k}"] for k in recorded if f"{frame}_{item}_{k}" in file}
    scenes = Scenes(real_packed / "val", CPU)
    names = [info.name.split("/")[1] for info in scenes.infos]
    scene, view = names.index(str(recorded["scene"])), int(recorded["view"])
    others = [i for i in range(24) if i != view]
    batch = whole_views(
        scenes,
        torch.tensor([scene]),
        torch.tensor([[view]]),
        torch.tensor([others]),
        canonical=frame == "canonical",
    )
    close = {"rtol": 0, "atol": 1e-5}
    image = recorded["input_image"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(batch.images[0], image, **close)
    np.testing.assert_allclose(batch.image_origins[0], recorded["input_camera_pos"], **close)
    step = 64 // recorded["input_rays_sub"].shape[1] + (64 % recorded["input_rays_sub"].shape[1] > 0)
    rays = batch.image_directions[0, :, ::step, ::step]
    np.testing.assert_allclose(rays, recorded["input_rays_sub"], **close)
    index = recorded["target_index"]
    np.testing.assert_allclose(batch.colours[0, index], recorded["target_pixels"], **close)
    np.testing.assert_allclose(batch.origins[0, index], recorded["target_camera_pos"], **close)
    np.testing.assert_allclose(batch.directions[0, index], recorded["target_rays"], **close)
    if frame == "canonical":
        to_canonical = scenes.camera_to_world[scene, view].inverse()
        np.testing.assert_allclose(to_canonical, recorded["transform"], **close)
