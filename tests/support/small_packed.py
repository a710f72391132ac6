"""Write packed splits from arrays, as `workflow.pack` writes them."""

import json

import numpy as np

from srt.data.packed.images import compress
from srt.data.packed.reader import FORMAT


def write_split(
    folder,
    images,
    intrinsics,
    poses,
    *,
    scenes_per_shard=None,
    storage="raw",
    names=None,
    classes=("solid",),
    source_view=None,
    mean_colour=(0.25, 0.5, 0.75),
):
    """Write a split, and return `folder`.

    Args:
        images: (scenes, views, height, width, 3), bytes.
        classes: the scenes have these in turn.
        source_view: of all scenes, or None.
    """
    folder.mkdir(parents=True)
    count = len(images)
    per_shard = scenes_per_shard or count

    # Raw shards are arrays. In compressed shards the images follow each other, and ends.npy says
    # where each of them ends.
    files = []
    ends = []
    for number, start in enumerate(range(0, count, per_shard)):
        shard = images[start : start + per_shard]
        files.append(f"images-{number:05d}.{'npy' if storage == 'raw' else 'webp'}")
        if storage == "raw":
            np.save(folder / files[-1], shard)
        else:
            compressed = [compress(scene) for scene in shard]
            (folder / files[-1]).write_bytes(b"".join(compressed))
            ends.extend(np.cumsum([len(content) for content in compressed]))
    if storage == "compressed":
        np.save(folder / "ends.npy", np.array(ends, np.uint64))

    # The cameras and the header.
    np.savez(folder / "cameras.npz", intrinsics=intrinsics, camera_to_world=poses)
    header = {
        "format": FORMAT,
        "storage": storage,
        "views": images.shape[1],
        "height": images.shape[2],
        "width": images.shape[3],
        "scenes_per_shard": per_shard,
        "files": files,
        "statistics": {
            "mean_colour": list(mean_colour),
            "std_colour": [0.25] * 3,
            "minimum": [0.0] * 3,
            "maximum": [1.0] * 3,
        },
        "names": names or [str(number) for number in range(count)],
        "classes": list(classes),
        "class_of": [number % len(classes) for number in range(count)],
        "source_views": [source_view] * count,
    }
    (folder / "scenes.json").write_text(json.dumps(header))
    return folder
