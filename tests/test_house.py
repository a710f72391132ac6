"""The folders are layers, and a module's name says which module it is."""

import ast
from collections import Counter

import pytest
from support.paths import REPOSITORY

LAYERS = [  # a folder imports only folders below it
    "workflow",
    "pretrained",
    "published",
    "training",
    "report",
    "rendering",
    "evaluation",
    "serving",
    "data",
    "model",
    "tracking",
    "visualization",
    "geometry",
    "config",
    "results",
    "common",
]
MODULES = sorted(
    path for folder in ("srt", "workflow") for path in (REPOSITORY / folder).rglob("*.py")
)


def layer_of(module):
    """Return the layer of a dotted name, or None for the package `srt` itself."""
    first, *others = module.split(".")
    if first == "workflow":
        return first
    return None if others in ([], ["__init__"]) else others[0]


def imported_modules(path):
    """Return the modules of this repository that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("srt", "workflow")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_folder_imports_only_layers_below_it(path):
    own = layer_of(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))
    imported = {layer_of(name) for name in imported_modules(path)} & set(LAYERS) - {own}
    wrong = {layer for layer in imported if own and LAYERS.index(layer) < LAYERS.index(own)}
    assert not wrong, f"{path.relative_to(REPOSITORY)} imports {', '.join(wrong)}"


def test_every_folder_is_a_layer():
    folders = {
        path.name for path in (REPOSITORY / "srt").iterdir() if (path / "__init__.py").exists()
    }
    assert folders | {"workflow", "pretrained", "serving"} == set(LAYERS)


def test_no_module_name_occurs_twice():
    files = [*MODULES, *(REPOSITORY / "benchmarks").glob("*.py")]
    stems = Counter(path.stem for path in files if path.stem != "__init__")
    assert [stem for stem, count in stems.items() if count > 1] == []
