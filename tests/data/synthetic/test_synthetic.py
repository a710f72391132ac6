from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.paths import PARAMS
from torch import Tensor

from srt.common.errors import UserError
from srt.config.load import load_dataset
from srt.config.schema import SPLITS, SyntheticConfig
from srt.data.synthetic.as_nmr import SyntheticScene, write_nmr
from srt.data.synthetic.objects import CLASSES, place, random_object
from srt.data.synthetic.raycaster import Light, first_hits, pixel_rays, render
from srt.data.synthetic.solids import Colour, Material, Solid, bounding_box
from srt.geometry.cameras import look_at, pinhole

FROM_ABOVE = Light(direction=(0.0, 0.0, 1.0), ambient=0.4)
SHAPES = [("sphere", 1.0), ("box", 1.0), ("frustum", 1.0), ("frustum", 0.4), ("frustum", 0.0)]
SCENES = {"train": 5, "val": 4, "test": 6}
VIEWS, SIZE, SEED = 6, 32, 3
CONFIG = dataclasses.replace(
    load_dataset(PARAMS, "nmr", "quick"),
    views=VIEWS,
    image_size=(SIZE, SIZE),
    synthetic=SyntheticConfig(scene="object", **SCENES),
)


def material(colour: Colour, specular: float = 0.0) -> Material:
    return Material(
        colours=(colour, (1.0, 1.0, 1.0)),
        pattern=(0.0, 0.0, 0.0),
        specular=specular,
        shininess=20.0,
    )


def solid(
    shape, centre=(0, 0, 0), sizes=(1, 1, 1), axis=(0, 0, 1), colour=(0.0, 0.0, 0.0), **kwargs
):
    to_world = place(centre, sizes, axis)
    return Solid(shape=shape, to_world=to_world, material=material(colour), **kwargs)


def is_inside(of: Solid, points: Tensor) -> Tensor:
    """Returns for points (n, 3) whether they are inside, by the definition of the shape."""
    inverse = torch.from_numpy(np.linalg.inv(of.to_world)).float()
    x, y, z = (points @ inverse[:3, :3].T + inverse[:3, 3]).unbind(-1)
    if of.shape == "sphere":
        return x**2 + y**2 + z**2 < 1
    if of.shape == "box":
        return (x.abs() < 1) & (y.abs() < 1) & (z.abs() < 1)
    radius = (1 + of.taper) / 2 - (1 - of.taper) / 2 * z
    return (z.abs() < 1) & (x**2 + y**2 < radius**2)


def rays_towards(origins: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the arguments of `render` for one ray from each origin (n, 3) to its target."""
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    return origins.T.contiguous(), directions.T.contiguous()[:, :, None]


@pytest.mark.parametrize(("shape", "taper"), SHAPES)
def test_a_ray_meets_a_solid_where_it_first_gets_inside(shape: str, taper: float):
    random = torch.Generator().manual_seed(0)
    tilted = solid(shape, (0.2, -0.1, 0.3), (0.8, 0.5, 0.3), (1, 2, -0.5), taper=taper)
    origins = 4 * torch.nn.functional.normalize(torch.randn(400, 3, generator=random), dim=-1)
    targets = torch.tensor([0.2, -0.1, 0.3]) + 0.4 * torch.randn(400, 3, generator=random)
    o, d = rays_towards(origins, targets)
    distances, owners = first_hits([tilted], o, d)
    steps = torch.linspace(2, 6, 2001)
    inside = is_inside(tilted, origins[:, None] + steps[:, None] * d[:, :, 0].T[:, None])
    entered = torch.where(inside, steps, torch.inf).amin(1)
    hit = owners[:, 0] >= 0
    assert 50 < hit.sum() < 350
    assert not inside[~hit].any()
    crossed = hit & entered.isfinite()  # a ray may graze the solid between two steps
    assert crossed.sum() > 0.9 * hit.sum()
    late = (entered - distances[:, 0])[crossed]
    assert late.min() > -1e-4
    assert late.max() < 0.002 + 1e-4


def test_a_spheres_silhouette_has_the_analytic_area():
    radius, distance, size = 0.5, 2.732, 128
    pose = look_at(distance * torch.tensor([[0.6, 0.0, 0.8]]), torch.zeros(1, 3))
    rays = pixel_rays(pinhole(3.732, 2.0, size, size).float()[None], pose, size, size)
    ball = solid("sphere", sizes=(radius, radius, radius))
    covered = 1 - render([ball], Light(direction=(1.0, 0.0, 1.0), ambient=0.0), *rays)[:, 0] / 255.0
    angle = np.arcsin(radius / distance)
    area = np.pi * (3.732 * size / 2 * np.tan(angle)) ** 2
    assert covered.sum().item() == pytest.approx(area, rel=0.002)


def test_light_that_is_blocked_leaves_the_ambient_part():
    plate = solid("box", (0, 0, -1), (2, 2, 0.1), colour=(1.0, 1.0, 1.0))
    ball = solid("sphere", (0, 0, 0.5), (0.4, 0.4, 0.4))
    targets = torch.tensor([[0.0, 0.0, -0.9], [0.38, 0.0, -0.9], [0.42, 0.0, -0.9]])
    rays = rays_towards(torch.tensor([[0.0, 9.0, 2.0]]).expand(3, 3), targets)
    seen = render([plate, ball], FROM_ABOVE, *rays)[:, 0].tolist()
    assert seen == [round(255 * 0.4), round(255 * 0.4), 255]
    assert render([plate], FROM_ABOVE, *rays)[:, 0].tolist() == [255, 255, 255]


def test_a_glossy_surface_shines_where_it_mirrors_the_light():
    matte = solid("box", (0, 0, -1), (2, 2, 1), colour=(0.2, 0.2, 0.2))
    glossy = Solid(
        shape="box", to_world=matte.to_world, material=material((0.2, 0.2, 0.2), specular=0.5)
    )
    rays = rays_towards(torch.tensor([[1.0, 0.0, 1.0], [9.0, 0.0, 1.0]]), torch.zeros(2, 3))
    light = Light(direction=(-1.0, 0.0, 1.0), ambient=0.4)
    extra = render([glossy], light, *rays).float() - render([matte], light, *rays)
    assert extra[0, 0] == pytest.approx(0.5 * 255, abs=1)
    assert 0 < extra[1, 0] < extra[0, 0] / 2


def test_rays_that_miss_show_exactly_white():
    rays = rays_towards(torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[5.0, 0.0, 9.0]]))
    assert render([solid("sphere")], FROM_ABOVE, *rays).tolist() == [[255, 255, 255]]


@pytest.mark.parametrize("name", CLASSES)
def test_objects_fill_the_unit_cube_and_differ(name: str):
    sizes = []
    for index in range(20):
        objects = random_object(name, np.random.default_rng([0, index]))
        boxes = np.array([bounding_box(part) for part in objects])
        low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
        assert np.abs(np.stack((low, high))).max() <= 0.5 + 1e-9
        assert (high - low).max() > 0.7
        sizes.append(high - low)
    assert len(np.unique(np.round(sizes, 3), axis=0)) == 20


@pytest.fixture(scope="module")
def nmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("nmr") / "two", workers=2)


def write(root: Path, workers: int) -> Path:
    write_nmr(root, config=CONFIG, name="nmr", seed=SEED, workers=workers)
    return root


def members(root: Path) -> list[SyntheticScene]:
    """Returns the scenes that the lists name."""
    found = []
    for number, class_id in enumerate(yaml.safe_load((root / "metadata.yaml").read_text())):
        for split in SPLITS:
            names = (root / class_id / f"softras_{split}.lst").read_text().splitlines()
            for index, name in enumerate(names):
                found.append(
                    SyntheticScene(seed=SEED, split=split, class_index=number, index=index)
                )
                assert (found[-1].class_id, found[-1].name) == (class_id, name)
    return found


def images(root: Path, scene: SyntheticScene) -> np.ndarray:
    paths = sorted((root / scene.class_id / scene.name / "image").iterdir())
    assert [path.name for path in paths] == [f"{view:04d}.png" for view in range(VIEWS)]
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def cameras(root: Path, scene: SyntheticScene, key: str) -> np.ndarray:
    with np.load(root / scene.class_id / scene.name / "cameras.npz") as file:
        assert len(file.files) == 4 * VIEWS
        return np.stack([file[f"{key}_{view}"] for view in range(VIEWS)])


def test_the_lists_name_every_scene_once(nmr: Path):
    scenes = members(nmr)
    assert {split: sum(s.split == split for s in scenes) for split in SPLITS} == SCENES
    folders = {path.parent.relative_to(nmr).as_posix() for path in nmr.glob("*/*/cameras.npz")}
    assert sorted(folders) == sorted(f"{s.class_id}/{s.name}" for s in scenes)
    sources = [line.split() for line in (nmr / "src_dvr.txt").read_text().splitlines()]
    tests = [[s.class_id, s.name] for s in scenes if s.split == "test"]
    assert [line[:2] for line in sources] == tests
    assert all(int(view) in range(VIEWS) for _, _, view in sources)


def test_the_bytes_do_not_depend_on_the_number_of_workers(nmr: Path, tmp_path: Path):
    again = write(tmp_path / "one", workers=1)
    files = {path.relative_to(nmr) for path in nmr.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert all((nmr / file).read_bytes() == (again / file).read_bytes() for file in files)


def test_images_show_an_object_that_turns_before_white(nmr: Path):
    for scene in members(nmr):
        pictures = images(nmr, scene)
        assert pictures.shape == (VIEWS, SIZE, SIZE, 3)
        assert pictures.dtype == np.uint8
        frame = np.ones((SIZE, SIZE), bool)
        frame[1:-1, 1:-1] = False
        assert (pictures[:, frame] == 255).all()
        assert 0.04 < (pictures < 255).any(-1).mean() < 0.5
        for view in range(VIEWS):
            change = np.abs(pictures[view].astype(float) - pictures[view - 1])
            assert change.mean() > 3


def test_no_two_objects_look_alike(nmr: Path):
    views = [images(nmr, scene)[0].astype(float) for scene in members(nmr)]
    for number, view in enumerate(views):
        assert all(np.abs(view - other).mean() > 3 for other in views[:number])


def test_cameras_are_rigid_and_invert_each_other(nmr: Path):
    scene = members(nmr)[0]
    world, inverse = cameras(nmr, scene, "world_mat"), cameras(nmr, scene, "world_mat_inv")
    camera, back = cameras(nmr, scene, "camera_mat"), cameras(nmr, scene, "camera_mat_inv")
    assert world.dtype == inverse.dtype == camera.dtype == back.dtype == np.float64
    identity = np.broadcast_to(np.eye(4), world.shape)
    np.testing.assert_allclose(world @ inverse, identity, atol=1e-12)
    np.testing.assert_allclose(camera @ back, identity, atol=1e-12)
    rotation = world[:, :3, :3]
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1), identity[:, :3, :3], atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-12)
    position = inverse[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(position, axis=1), 2.732, atol=1e-9)
    np.testing.assert_allclose(position[:, 1], 2.732 / 2, atol=1e-9)  # y is up, 30° above


def test_points_of_an_object_project_onto_pixels_that_show_it(nmr: Path):
    for scene in members(nmr):
        parts = random_object(list(CLASSES)[scene.class_index], scene.generator())
        x, y, z = np.stack([part.to_world[:3, 3] for part in parts], axis=1)
        points = np.stack((x, z, -y, np.ones_like(x)))  # the layout's world is y-up
        matrices = cameras(nmr, scene, "camera_mat") @ cameras(nmr, scene, "world_mat")
        for picture, (u, v, depth, _) in zip(images(nmr, scene), matrices @ points):
            column, row = (((c / depth + 1) / 2 * SIZE).astype(int) for c in (u, v))
            assert (picture[row, column] < 255).any(-1).all()


def test_images_that_are_not_square_are_refused(tmp_path: Path):
    config = dataclasses.replace(CONFIG, image_size=(24, 32))
    with pytest.raises(UserError, match=r"datasets\.nmr: image_size \[24, 32\].*square"):
        write_nmr(tmp_path, config=config, name="nmr", seed=0, workers=1)
