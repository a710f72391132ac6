"""A digest of the code that a module runs: of what it says, not of how it is written down.

The digest covers the module and every module of this repository that it imports, directly or not,
wherever in a file the import stands. Comments, docstrings and layout do not change it, and neither
does the version of Python. A change of any statement does.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

from srt import PACKAGE

ROOT = PACKAGE.parent
DIGITS = 12

# Changes of these modules show in no product of a stage. They read and check the configuration (its
# resolved values count instead), register layouts (a dataset's entry counts instead), start
# processes, report to MLflow, or name the code itself.
WITHOUT_EFFECT = (
    "srt/__init__.py",
    "srt/common/code_digest.py",
    "srt/common/devices.py",
    "srt/common/errors.py",
    "srt/common/fingerprint.py",
    "srt/common/shapes.py",
    "srt/config/",
    "srt/data/raw/layouts.py",
    "srt/tracking/",
    "workflow/__init__.py",
    "workflow/common/cli.py",
    "workflow/common/gpus.py",
    "workflow/common/jobs.py",
    "workflow/common/provenance.py",
    "workflow/common/torchrun.py",
    "workflow/common/tracked_run.py",
)


def code_digests(module: str, root: Path = ROOT) -> dict[str, str]:
    """Return the digest of each file that determines what a module does, by the file's path.

    Args:
        module: a file, relative to the repository, such as `workflow/train.py`.
        root: the repository, which has the folders `srt` and `workflow`.
    """
    return {file: file_digest(root, file) for file in sorted(imported_files(root, module))}


def combined_digest(digests: dict[str, str]) -> str:
    """Return one digest of all files in `digests`."""
    text = "\n".join(f"{file} {digest}" for file, digest in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


@functools.cache
def imported_files(root: Path, module: str) -> frozenset[str]:
    """Return a file, all files of this repository that it imports, and the data that they name.

    A module without effect is left out. What it imports has no effect through it either.
    """
    files: set[str] = set()
    new = {module}
    while new:
        files |= new
        imported = {file for path in new for file in direct_imports(root, path)}
        new = {file for file in imported - files if not file.startswith(WITHOUT_EFFECT)}
    return frozenset(files | {file for path in files for file in package_data(root, path)})


@functools.cache
def direct_imports(root: Path, file: str) -> frozenset[str]:
    """Return the repository's files that one file imports by name."""
    names: set[str] = set()
    for node in ast.walk(syntax_tree(root, file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}

    # A name is a module, a package, or something inside one. Importing it runs its packages too.
    candidates: set[Path] = set()
    for name in names:
        path = Path(*name.split("."))
        candidates |= {path.with_suffix(".py"), path / "__init__.py"}
        candidates |= {parent / "__init__.py" for parent in path.parents}
    own = {path.as_posix() for path in candidates if path.parts[0] in ("srt", "workflow")}
    return frozenset(path for path in own if (root / path).is_file())


@functools.cache
def package_data(root: Path, file: str) -> frozenset[str]:
    """Return the files in a folder without code that stands beside a module and that it names.

    The report's templates are such files.
    """
    if not file.startswith("srt/"):
        return frozenset()
    nodes = ast.walk(syntax_tree(root, file))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    folders = [path for path in (root / file).parent.iterdir() if path.is_dir()]
    named = [path for path in folders if path.name in texts and not any(path.glob("*.py"))]
    data = (path for folder in named for path in folder.rglob("*") if path.is_file())
    return frozenset(path.relative_to(root).as_posix() for path in data)


@functools.cache
def file_digest(root: Path, file: str) -> str:
    """Return the digest of a module's statements, or of the bytes of a file that is no module."""
    if file.endswith(".py"):
        content = " ".join(describe_syntax(syntax_tree(root, file))).encode()
    else:
        content = (root / file).read_bytes()
    return hashlib.sha256(content).hexdigest()[:DIGITS]


@functools.cache
def syntax_tree(root: Path, file: str) -> ast.Module:
    """Return the syntax tree of a file of the repository."""
    return ast.parse((root / file).read_text(encoding="utf-8"), filename=file)


def describe_syntax(node: ast.AST) -> Iterator[str]:
    """Yield the words that describe a syntax tree without its docstrings.

    `ast.dump` is not used, because what it prints differs between versions of Python. Fields that
    are empty are left out for the same reason: new versions add such fields.
    """
    yield f"({type(node).__name__}"
    for name, value in ast.iter_fields(node):
        values = value if isinstance(value, list) else [value]
        if name == "body" and has_docstring(node):
            values = values[1:]
        if name in ("ctx", "kind", "type_ignores") or values in ([], [None]):
            continue
        yield f"{name}:"
        for item in values:
            if isinstance(item, ast.AST):
                yield from describe_syntax(item)
            else:
                yield f"{type(item).__name__} {item!r}"
    yield ")"


def has_docstring(node: ast.AST) -> bool:
    """Return whether a node begins with a text that documents it."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    match node.body:
        case [ast.Expr(value=ast.Constant(value=str())), *_]:
            return True
    return False
