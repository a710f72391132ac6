"""What can be wrong with a raw NMR dataset, and which message it must give.

`FAULTS` has for each fault a function that changes the data in a folder, and a regular expression
for the message.
"""

import shutil

import numpy as np
from support.small_nmr import FOCAL, LISTS, VIEWS, delete_lines, image, resave, truncate


def cameras(raw):
    return raw / "04256520" / "s0" / "cameras.npz"


def change_cameras(raw, **changes):
    """Change matrices of view 1.

    Args:
        changes: a function for each matrix's name; None deletes the matrix.
    """
    arrays = dict(np.load(cameras(raw)))
    for name, change in changes.items():
        if change is None:
            del arrays[f"{name}_1"]
        else:
            arrays[f"{name}_1"] = change(arrays[f"{name}_1"])
    np.savez(cameras(raw), **arrays)


def change_pose(raw, change):
    """Change world_mat_inv of view 1, and make world_mat its exact inverse."""
    change_cameras(raw, world_mat_inv=change)
    pose = np.load(cameras(raw))["world_mat_inv_1"]
    change_cameras(raw, world_mat=lambda _: np.linalg.inv(pose))


def swap_poses(raw):
    arrays = dict(np.load(cameras(raw)))
    for view in range(VIEWS):
        ours, theirs = f"world_mat_{view}", f"world_mat_inv_{view}"
        arrays[ours], arrays[theirs] = arrays[theirs], arrays[ours]
    np.savez(cameras(raw), **arrays)


def set_entry(index, value):
    """Return a function that changes one entry of a matrix."""

    def change(matrix):
        matrix = matrix.copy()
        matrix[index] = value
        return matrix

    return change


def add_line(path, line):
    path.write_text(path.read_text() + line + "\n")


def add_to_list(raw, class_id, split, name):
    add_line(raw / class_id / f"softras_{split}.lst", name)


def empty_lists(raw):
    for class_id in LISTS:
        (raw / class_id / "softras_val.lst").write_text("\n")


# Parts of messages that several faults have.
NOT_RIGID = r"s0/cameras\.npz: world_mat_inv_1 is not a rotation and a translation"
NOT_4X4 = r"s0/cameras\.npz: {}_1 is not 4x4 or not finite"
PLAIN = r"s0/cameras\.npz: camera_mat_1 is not diag"
PNG = r"s1/image/0001\.png: "
LINE_4 = r"views\.txt, line 4: "

FAULTS = {
    "no list": (
        lambda raw: (raw / "02828884" / "softras_val.lst").unlink(),
        r"02828884/softras_val\.lst: there is no such file",
    ),
    "no metadata": (
        lambda raw: (raw / "metadata.yaml").unlink(),
        r"metadata\.yaml: .* no such file",
    ),
    "metadata of another form": (
        lambda raw: (raw / "metadata.yaml").write_text("[sofa, bench]"),
        r"metadata\.yaml: not of the form",
    ),
    "metadata without a name": (
        lambda raw: (raw / "metadata.yaml").write_text("a: {id: '04256520'}"),
        r"metadata\.yaml: not of the form",
    ),
    "metadata broken": (
        lambda raw: (raw / "metadata.yaml").write_text("{04256520: {"),
        r"metadata\.yaml: not of the form",
    ),
    "no scene folder": (
        lambda raw: shutil.rmtree(raw / "04256520" / "s1"),
        r"04256520/s1/image/0000\.png: there is no such file",
    ),
    "no image": (lambda raw: image(raw).unlink(), PNG + "there is no such file"),
    "image truncated": (lambda raw: truncate(image(raw), 0.5), PNG + "not readable as an image"),
    "image empty": (lambda raw: truncate(image(raw), 0), PNG + "not readable as an image"),
    "image too wide": (lambda raw: resave(image(raw), "RGB", (9, 8)), PNG + "8 x 9 pixels"),
    "image too high": (lambda raw: resave(image(raw), "RGB", (8, 9)), PNG + "9 x 8 pixels"),
    "image too small": (
        lambda raw: resave(image(raw), "RGBA", (4, 4)),
        PNG + r"4 x 4 pixels \(rows x columns\), image_size is 8 x 8",
    ),
    "image grey": (lambda raw: resave(image(raw), "L"), PNG + "an image of mode L; RGB"),
    "image with a palette": (lambda raw: resave(image(raw), "P"), PNG + "an image of mode P; RGB"),
    "no camera file": (
        lambda raw: cameras(raw).unlink(),
        r"s0/cameras\.npz: there is no such file",
    ),
    "cameras truncated": (lambda raw: truncate(cameras(raw), 0.7), r"cameras\.npz: not readable"),
    "cameras empty": (lambda raw: truncate(cameras(raw), 0), r"cameras\.npz: not readable"),
    "cameras no npz": (
        lambda raw: np.save(cameras(raw).open("wb"), np.eye(4)),
        r"cameras\.npz: not readable as npz",
    ),
    **{
        f"no {name}": (
            lambda raw, name=name: change_cameras(raw, **{name: None}),
            rf"s0/cameras\.npz: {name}_1 is missing",
        )
        for name in ("world_mat", "world_mat_inv", "camera_mat")
    },
    "a 3x4 pose": (
        lambda raw: change_cameras(raw, world_mat=lambda pose: pose[:3]),
        NOT_4X4.format("world_mat"),
    ),
    "a nan": (
        lambda raw: change_cameras(raw, world_mat_inv=set_entry((0, 3), np.nan)),
        NOT_4X4.format("world_mat_inv"),
    ),
    "an infinite focal length": (
        lambda raw: change_cameras(raw, camera_mat=set_entry((0, 0), np.inf)),
        NOT_4X4.format("camera_mat"),
    ),
    "a scaled pose": (
        lambda raw: change_pose(raw, np.diag([1.1, 1.1, 1.1, 1]).__matmul__),
        NOT_RIGID,
    ),
    "a mirrored pose": (lambda raw: change_pose(raw, np.diag([1, -1, 1, 1]).__matmul__), NOT_RIGID),
    "a sheared pose": (lambda raw: change_pose(raw, set_entry((0, 1), 5)), NOT_RIGID),
    "a projective pose": (lambda raw: change_pose(raw, set_entry((3, 0), 0.1)), NOT_RIGID),
    "an inverse of another pose": (
        lambda raw: change_cameras(raw, world_mat=set_entry((0, 3), 3.0)),
        r"cameras\.npz: world_mat_inv_1 .* not the inverse of world_mat_1",
    ),
    "poses and inverses swapped": (
        swap_poses,
        r"s0/cameras\.npz: 3 of 3 cameras do not see .* are world_mat and world_mat_inv swapped",
    ),
    "a matrix of text": (
        lambda raw: change_cameras(raw, camera_mat=lambda matrix: matrix.astype(str)),
        r"s0/cameras\.npz: camera_mat_1 is missing, or no array of numbers",
    ),
    "skew": (lambda raw: change_cameras(raw, camera_mat=set_entry((0, 1), 0.01)), PLAIN),
    "a centre off the middle": (
        lambda raw: change_cameras(raw, camera_mat=set_entry((1, 2), 0.1)),
        PLAIN,
    ),
    "a mirrored image": (
        lambda raw: change_cameras(raw, camera_mat=set_entry((1, 1), -FOCAL)),
        PLAIN,
    ),
    "a scene listed twice": (
        lambda raw: add_to_list(raw, "04256520", "train", "s0"),
        r"04256520/softras_train\.lst: s0 is listed twice",
    ),
    "a scene in two splits": (
        lambda raw: (
            add_to_list(raw, "02828884", "test", "b0")
            or add_line(raw / "views.txt", "02828884 b0 0")
        ),
        r"raw: 02828884/b0 is in the lists of both train and test",
    ),
    "an empty split": (empty_lists, r"raw: .*softras_val\.lst name no scene: the split is empty"),
    "a view list of other columns": (
        lambda raw: add_line(raw / "views.txt", "02828884 b2"),
        LINE_4 + "'02828884 b2' is not",
    ),
    "a view that is no number": (
        lambda raw: add_line(raw / "views.txt", "02828884 b9 -1"),
        LINE_4 + "'02828884 b9 -1' is not",
    ),
    "a view that is not there": (
        lambda raw: add_line(raw / "views.txt", f"02828884 b9 {VIEWS}"),
        LINE_4 + f"'02828884 b9 {VIEWS}' is not `class scene view`, view below {VIEWS}",
    ),
    "two source views": (
        lambda raw: add_line(raw / "views.txt", "02828884 b2 1"),
        LINE_4 + "02828884/b2 has view 0 further up",
    ),
    "a test scene without a source view": (
        lambda raw: delete_lines(raw / "views.txt", "b2"),
        r"views\.txt: no source view for the test scene 02828884/b2",
    ),
    "an empty view list": (
        lambda raw: (raw / "views.txt").write_text("\n"),
        r"views\.txt: no source view for the test scene 04256520/s3",
    ),
    "no view list": (
        lambda raw: (raw / "views.txt").unlink(),
        r"views\.txt: there is no such file",
    ),
}
