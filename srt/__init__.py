"""Scene Representation Transformers: the library behind the pipeline in `workflow/`.

    import srt

    model = srt.load("outputs/bench/nmr_srt")
    scene = model.encode(images, srt.make_cameras(intrinsics, camera_to_world, height, width))
    view = scene.render(camera)

docs/api.md describes all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srt.geometry.cameras import Camera
    from srt.model.scene import Scene, View
    from srt.pretrained import load
    from srt.serving import TrainedModel, make_cameras

# The folder of this package. A model in MLflow's registry carries a copy of it.
PACKAGE = Path(__file__).parent

# The public names and their modules. They are imported when they are first used, so that a stage
# which needs no model does not wait for PyTorch.
PUBLIC = {
    "Camera": "srt.geometry.cameras",
    "Scene": "srt.model.scene",
    "TrainedModel": "srt.serving",
    "View": "srt.model.scene",
    "load": "srt.pretrained",
    "make_cameras": "srt.serving",
}

__all__ = ["Camera", "Scene", "TrainedModel", "View", "load", "make_cameras"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    import importlib

    if name not in PUBLIC:
        raise AttributeError(f"module 'srt' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*globals(), *PUBLIC])
