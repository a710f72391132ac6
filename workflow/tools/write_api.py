"""Write docs/api.md, the reference of the public functions and classes, from their docstrings.

    python -m workflow.tools.write_api

Run it after a change of a public docstring or signature; a test holds the page equal to them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import srt
from srt.common.files import write_atomically
from workflow import REPOSITORY
from workflow.common.cli import run

PAGE = REPOSITORY / "docs" / "api.md"
ORDER = ("load", "TrainedModel", "make_cameras", "Camera", "Scene", "View")
HEAD = """# The library

<!-- written by python -m workflow.tools.write_api; edit the docstrings instead -->

Ten lines from a trained model to a view and a turntable:

```python
import srt
from srt.geometry.cameras import look_at

model = srt.load("outputs/quick/nmr_srt")
cameras = srt.make_cameras(intrinsics, camera_to_world, height, width)
scene = model.encode(images, cameras)

view = scene.render(srt.make_cameras(other_intrinsics, other_pose, height, width))
orbit = look_at(positions, center)
turntable = scene.render(srt.make_cameras(intrinsics, orbit, height, width), size=(128, 128))
```

`images` are `(views, height, width, 3)` bytes or floats in [0, 1]; arrays are numpy's or PyTorch's.
[examples/novel_views.ipynb](../examples/novel_views.ipynb) runs this on a picture of an airplane.
The conventions of cameras are in [srt/geometry/cameras.py](../srt/geometry/cameras.py).
"""


def write_api(*, out: Path = PAGE) -> None:
    """Write the page.

    Args:
        out: the page's file.
    """
    write_atomically(out, api_page().encode())


def api_page() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *(line for name in ORDER for line in describe_object(name))])


def describe_object(name: str) -> Iterator[str]:
    """Yield the lines that describe a public function or class."""
    public = getattr(srt, name)
    yield f"## `srt.{name}`\n"
    if inspect.isclass(public):
        yield f"{clean_docstring(public)}\n"
        if dataclasses.is_dataclass(public) or issubclass(public, tuple):
            yield from (f"- `{field}`: `{kind}`" for field, kind in public_fields(public))
            yield ""
        for method, value in public_methods(public):
            yield f"### `{name}.{method}`\n"
            yield from describe_member(method, value)
    else:
        yield from describe_member(name, public)


def public_fields(public: type) -> list[tuple[str, str]]:
    """Return the fields of a class of data with their types."""
    return [(name, str(kind).replace('"', "")) for name, kind in public.__annotations__.items()]


def public_methods(public: type) -> list[tuple[str, Any]]:
    """Return the methods and properties that a class defines for its users, in their order."""
    members = vars(public).items()
    kinds = (property, type(describe_object))
    return [(n, value) for n, value in members if isinstance(value, kinds) and n[0] != "_"]


def describe_member(name: str, value: Any) -> Iterator[str]:
    """Yield the signature and the docstring of a function, a method or a property."""
    if isinstance(value, property):
        yield f"{clean_docstring(value)}\n"
        return
    signature = inspect.signature(value)
    parameters = [one for key, one in signature.parameters.items() if key != "self"]
    text = re.sub(r"[\"']", "", str(signature.replace(parameters=parameters)))
    yield f"```python\n{name}{text}\n```\n"
    yield f"{clean_docstring(value)}\n"


def clean_docstring(value: Any) -> str:
    """Return a docstring as Markdown: its sections are bold, and their entries are a list."""
    text = inspect.getdoc(value) or ""
    text = re.sub(r"^(Args|Raises):$", r"**\1**\n", text, flags=re.M)
    text = re.sub(r"^    (\w[\w, ]*): ", r"- `\1`: ", text, flags=re.M)
    return re.sub(r"^ {8}", "  ", text, flags=re.M)


if __name__ == "__main__":
    run(write_api)
