"""Solids and the ray caster, single objects, and the files of layout nmr that show them."""

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
from srt.data.synthetic.as_nmr import ObjectKey, write_nmr
from srt.data.synthetic.objects import CLASSES, random_object, shape_to_world
from srt.data.synthetic.raycaster import Light, first_hits, pixel_rays, render
from srt.data.synthetic.solids import Colour, Material, Solid, bounding_box
from srt.geometry.cameras import look_at, pinhole

FROM_ABOVE = Light(direction=(0.0, 0.0, 1.0), ambient=0.4)
SHAPES = [("sphere", 1.0), ("box", 1.0), ("frustum", 1.0), ("frustum", 0.4), ("frustum", 0.0)]

# A small dataset of single objects.
SCENES = {"train": 5, "val": 4, "test": 6}
VIEWS, SIZE, SEED = 6, 32, 3
CONFIG = dataclasses.replace(
    load_dataset(PARAMS, "nmr", "quick"),
    views=VIEWS,
    image_size=(SIZE, SIZE),
    synthetic=SyntheticConfig(scene="object", **SCENES),
)


def material(colour: Colour, specular: float = 0.0) -> Material:
    """Return a material of one colour."""
    return Material(
        colours=(colour, (1.0, 1.0, 1.0)),
        pattern=(0.0, 0.0, 0.0),
        specular=specular,
        shininess=20.0,
    )


def solid(
    shape, centre=(0, 0, 0), sizes=(1, 1, 1), axis=(0, 0, 1), colour=(0.0, 0.0, 0.0), **kwargs
):
    """Return a solid, black and matte unless a colour is passed."""
    to_world = shape_to_world(centre, sizes, axis)
    return Solid(shape=shape, to_world=to_world, material=material(colour), **kwargs)


def is_inside(solid: Solid, points: Tensor) -> Tensor:
    """Say which of the points (n, 3) are inside, by the definition of the shape."""
    inverse = torch.from_numpy(np.linalg.inv(solid.to_world)).float()
    x, y, z = (points @ inverse[:3, :3].T + inverse[:3, 3]).unbind(-1)
    if solid.shape == "sphere":
        return x**2 + y**2 + z**2 < 1
    if solid.shape == "box":
        return (x.abs() < 1) & (y.abs() < 1) & (z.abs() < 1)
    radius = (1 + solid.taper) / 2 - (1 - solid.taper) / 2 * z
    return (z.abs() < 1) & (x**2 + y**2 < radius**2)


def rays_towards(origins: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the arguments of `render` for one ray from each origin (n, 3) to its target."""
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    return origins.T.contiguous(), directions.T.contiguous()[:, :, None]


@pytest.mark.parametrize(("shape", "taper"), SHAPES)
def test_a_ray_hits_a_solid_where_it_first_gets_inside(shape: str, taper: float):
    # Rays from all sides to points near the solid: some hit it, some miss it.
    random = torch.Generator().manual_seed(0)
    tilted = solid(shape, (0.2, -0.1, 0.3), (0.8, 0.5, 0.3), (1, 2, -0.5), taper=taper)
    origins = 4 * torch.nn.functional.normalize(torch.randn(400, 3, generator=random), dim=-1)
    targets = torch.tensor([0.2, -0.1, 0.3]) + 0.4 * torch.randn(400, 3, generator=random)
    ray_origins, directions = rays_towards(origins, targets)
    distances, owners = first_hits([tilted], ray_origins, directions)
    hit = owners[:, 0] >= 0
    assert 50 < hit.sum() < 350

    # Walk along each ray in small steps and look where it is inside.
    steps = torch.linspace(2, 6, 2001)
    points = origins[:, None] + steps[:, None] * directions[:, :, 0].T[:, None]
    inside = is_inside(tilted, points)
    assert not inside[~hit].any()

    # A ray that grazes the solid may be inside only between two steps.
    entered = torch.where(inside, steps, torch.inf).amin(1)
    crossed = hit & entered.isfinite()
    assert crossed.sum() > 0.9 * hit.sum()
    delay = (entered - distances[:, 0])[crossed]
    assert delay.min() > -1e-4
    assert delay.max() < 0.002 + 1e-4


def test_the_silhouette_of_a_sphere_has_the_analytic_area():
    # A black sphere before white: the darkness of a pixel is the covered share of it.
    radius, distance, size = 0.5, 2.732, 128
    pose = look_at(distance * torch.tensor([[0.6, 0.0, 0.8]]), torch.zeros(1, 3))
    rays = pixel_rays(pinhole(3.732, 2.0, size, size).float()[None], pose, size, size)
    ball = solid("sphere", sizes=(radius, radius, radius))
    covered = 1 - render([ball], Light(direction=(1.0, 0.0, 1.0), ambient=0.0), *rays)[:, 0] / 255.0

    # The silhouette is the circle of the cone that touches the sphere.
    angle = np.arcsin(radius / distance)
    area = np.pi * (3.732 * size / 2 * np.tan(angle)) ** 2
    assert covered.sum().item() == pytest.approx(area, rel=0.002)


def test_a_surface_in_shadow_has_only_the_ambient_light():
    plate = solid("box", (0, 0, -1), (2, 2, 0.1), colour=(1.0, 1.0, 1.0))
    ball = solid("sphere", (0, 0, 0.5), (0.4, 0.4, 0.4))

    # The ball's shadow has a radius of 0.4: two points of the plate are in it, one is not.
    targets = torch.tensor([[0.0, 0.0, -0.9], [0.38, 0.0, -0.9], [0.42, 0.0, -0.9]])
    rays = rays_towards(torch.tensor([[0.0, 9.0, 2.0]]).expand(3, 3), targets)
    brightness = render([plate, ball], FROM_ABOVE, *rays)[:, 0].tolist()
    assert brightness == [round(255 * 0.4), round(255 * 0.4), 255]
    assert render([plate], FROM_ABOVE, *rays)[:, 0].tolist() == [255, 255, 255]


def test_a_glossy_surface_has_a_highlight_where_it_mirrors_the_light():
    matte = solid("box", (0, 0, -1), (2, 2, 1), colour=(0.2, 0.2, 0.2))
    glossy = Solid(
        shape="box", to_world=matte.to_world, material=material((0.2, 0.2, 0.2), specular=0.5)
    )

    # The first ray comes from the mirrored direction, the second one does not.
    rays = rays_towards(torch.tensor([[1.0, 0.0, 1.0], [9.0, 0.0, 1.0]]), torch.zeros(2, 3))
    light = Light(direction=(-1.0, 0.0, 1.0), ambient=0.4)
    highlight = render([glossy], light, *rays).float() - render([matte], light, *rays)
    assert highlight[0, 0] == pytest.approx(0.5 * 255, abs=1)
    assert 0 < highlight[1, 0] < highlight[0, 0] / 2


def test_rays_that_hit_nothing_are_exactly_white():
    rays = rays_towards(torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[5.0, 0.0, 9.0]]))
    assert render([solid("sphere")], FROM_ABOVE, *rays).tolist() == [[255, 255, 255]]


@pytest.mark.parametrize("name", CLASSES)
def test_objects_fill_the_unit_cube_and_differ(name: str):
    sizes = []
    for index in range(20):
        solids = random_object(name, np.random.default_rng([0, index]))
        boxes = np.array([bounding_box(solid) for solid in solids])
        low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
        assert np.abs(np.stack((low, high))).max() <= 0.5 + 1e-9
        assert (high - low).max() > 0.7
        sizes.append(high - low)
    assert len(np.unique(np.round(sizes, 3), axis=0)) == 20


@pytest.fixture(scope="module")
def nmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the small dataset once for all tests."""
    return write(tmp_path_factory.mktemp("nmr") / "two", workers=2)


def write(root: Path, workers: int) -> Path:
    """Write the small dataset and return its root."""
    write_nmr(root, config=CONFIG, name="nmr", seed=SEED, workers=workers)
    return root


def list_scenes(root: Path) -> list[ObjectKey]:
    """Return the scenes of all lists, and check their names."""
    scenes = []
    for number, class_id in enumerate(yaml.safe_load((root / "metadata.yaml").read_text())):
        for split in SPLITS:
            names = (root / class_id / f"softras_{split}.lst").read_text().splitlines()
            for index, name in enumerate(names):
                scene = ObjectKey(seed=SEED, split=split, class_index=number, index=index)
                assert (scene.class_id, scene.name) == (class_id, name)
                scenes.append(scene)
    return scenes


def read_images(root: Path, scene: ObjectKey) -> np.ndarray:
    """Return the images of all views of a scene."""
    paths = sorted((root / scene.class_id / scene.name / "image").iterdir())
    assert [path.name for path in paths] == [f"{view:04d}.png" for view in range(VIEWS)]
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def read_matrices(root: Path, scene: ObjectKey, key: str) -> np.ndarray:
    """Return a matrix of all views of a scene."""
    with np.load(root / scene.class_id / scene.name / "cameras.npz") as file:
        assert len(file.files) == 4 * VIEWS
        return np.stack([file[f"{key}_{view}"] for view in range(VIEWS)])


def test_every_scene_is_listed_once(nmr: Path):
    scenes = list_scenes(nmr)
    counts = {split: len([s for s in scenes if s.split == split]) for split in SPLITS}
    assert counts == SCENES
    folders = {path.parent.relative_to(nmr).as_posix() for path in nmr.glob("*/*/cameras.npz")}
    assert sorted(folders) == sorted(f"{s.class_id}/{s.name}" for s in scenes)

    # Every test scene has a source view.
    sources = [text.split() for text in (nmr / "src_dvr.txt").read_text().splitlines()]
    tests = [[s.class_id, s.name] for s in scenes if s.split == "test"]
    assert [words[:2] for words in sources] == tests
    assert all(int(view) in range(VIEWS) for _, _, view in sources)


def test_the_files_do_not_depend_on_the_number_of_workers(nmr: Path, tmp_path: Path):
    one_worker = write(tmp_path / "one", workers=1)
    files = {path.relative_to(nmr) for path in nmr.rglob("*") if path.is_file()}
    assert files == {
        path.relative_to(one_worker) for path in one_worker.rglob("*") if path.is_file()
    }
    assert all((nmr / file).read_bytes() == (one_worker / file).read_bytes() for file in files)


def test_images_show_a_turning_object_before_white(nmr: Path):
    for scene in list_scenes(nmr):
        images = read_images(nmr, scene)
        assert images.shape == (VIEWS, SIZE, SIZE, 3)
        assert images.dtype == np.uint8

        # The object does not touch the images' edges.
        edge = np.ones((SIZE, SIZE), bool)
        edge[1:-1, 1:-1] = False
        assert (images[:, edge] == 255).all()
        assert 0.04 < (images < 255).any(-1).mean() < 0.5

        # From view to view, the image changes.
        for view in range(VIEWS):
            change = np.abs(images[view].astype(float) - images[view - 1])
            assert change.mean() > 3


def test_no_two_objects_look_the_same(nmr: Path):
    images = [read_images(nmr, scene)[0].astype(float) for scene in list_scenes(nmr)]
    for number, image in enumerate(images):
        assert all(np.abs(image - earlier).mean() > 3 for earlier in images[:number])


def test_cameras_are_rigid_and_their_inverses_are_right(nmr: Path):
    scene = list_scenes(nmr)[0]
    world, world_inverse = (
        read_matrices(nmr, scene, name) for name in ("world_mat", "world_mat_inv")
    )
    camera, camera_inverse = (
        read_matrices(nmr, scene, name) for name in ("camera_mat", "camera_mat_inv")
    )
    matrices = (world, world_inverse, camera, camera_inverse)
    assert all(matrix.dtype == np.float64 for matrix in matrices)
    identity = np.broadcast_to(np.eye(4), world.shape)
    np.testing.assert_allclose(world @ world_inverse, identity, atol=1e-12)
    np.testing.assert_allclose(camera @ camera_inverse, identity, atol=1e-12)

    # The linear part is a rotation.
    rotation = world[:, :3, :3]
    transposed = rotation.transpose(0, 2, 1)
    np.testing.assert_allclose(rotation @ transposed, identity[:, :3, :3], atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-12)

    # The cameras are 30° above the object, where y is up.
    position = world_inverse[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(position, axis=1), 2.732, atol=1e-9)
    np.testing.assert_allclose(position[:, 1], 2.732 / 2, atol=1e-9)


def test_the_centres_of_solids_project_onto_pixels_of_the_object(nmr: Path):
    for scene in list_scenes(nmr):
        # The centres of the solids, from our z-up world to the layout's y-up world.
        solids = random_object(list(CLASSES)[scene.class_index], scene.generator())
        x, y, z = np.stack([solid.to_world[:3, 3] for solid in solids], axis=1)
        points = np.stack((x, z, -y, np.ones_like(x)))

        # The layout's image coordinates are in [-1, 1].
        matrices = read_matrices(nmr, scene, "camera_mat") @ read_matrices(nmr, scene, "world_mat")
        for image, (u, v, depth, _) in zip(read_images(nmr, scene), matrices @ points):
            column, row = (((c / depth + 1) / 2 * SIZE).astype(int) for c in (u, v))
            assert (image[row, column] < 255).any(-1).all()


def test_images_that_are_not_square_are_refused(tmp_path: Path):
    config = dataclasses.replace(CONFIG, image_size=(24, 32))
    with pytest.raises(UserError, match=r"datasets\.nmr: image_size \[24, 32\].*square"):
        write_nmr(tmp_path, config=config, name="nmr", seed=0, workers=1)
