"""A digest changes with what code says, and with nothing else."""

import pytest

from srt.common.code_digest import code_digests, combined_digest

TRAIN = '''"""Train."""
from srt.model import decode


def train(steps):
    """Train a model."""
    return decode(steps + 1)
'''
DECODE = """
def decode(x):
    from srt.geometry import cast
    return cast(x)
"""
FILES = {
    "workflow/train.py": TRAIN,
    "srt/__init__.py": "",
    "srt/model/__init__.py": DECODE,
    "srt/geometry.py": "def cast(rays):\n    return [ray * 2 for ray in rays]\n",
    "srt/page.py": 'FOLDER = "templates"\n',
    "srt/templates/page.css": "p {}\n",
    "srt/tracking/tracker.py": "import srt.geometry\n",
}


@pytest.fixture
def digest(tmp_path):
    """A function that returns the digest of a module after some files were changed."""
    number = iter(range(100))

    def compute(module="workflow/train.py", **changes):
        root = tmp_path / str(next(number))
        named = {name.replace("__", "/") + ".py": text for name, text in changes.items()}
        for name, text in {**FILES, **named}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return combined_digest(code_digests(module, root))

    return compute


@pytest.mark.parametrize(
    "text",
    [
        TRAIN.replace('"""Train."""', '"""Another text."""'),
        TRAIN.replace('    """Train a model."""\n', ""),
        TRAIN.replace(
            "return decode(steps + 1)", "# Why.\n    return decode(\n        steps + 1,\n    )"
        ),
        TRAIN.replace("\n\n\n", "\n"),
        TRAIN.replace("steps + 1", "(steps) + 0x1"),
    ],
    ids=["docstring", "no docstring", "comment and lines", "blank lines", "spelling"],
)
def test_comments_docstrings_and_layout_do_not_change_it(digest, text):
    assert digest(workflow__train=text) == digest()


@pytest.mark.parametrize(
    "text",
    [
        TRAIN.replace("+ 1", "- 1"),
        TRAIN.replace("+ 1", "+ 1.0"),
        TRAIN.replace("steps", "count"),
        TRAIN.replace("(steps):", "(steps=3):"),
        TRAIN.replace("return decode", "return not decode"),
        TRAIN.replace("def train", "async def train"),
        TRAIN.replace("def train(steps):", "def train(steps: int):"),
    ],
)
def test_any_statement_changes_it(digest, text):
    assert digest(workflow__train=text) != digest()


def test_modules_that_are_imported_inside_functions_and_packages_count(digest):
    changed = FILES["srt/geometry.py"].replace("2", "3")
    assert digest(srt__geometry=changed) != digest()
    assert digest(srt__model__init=FILES["srt/geometry.py"]) == digest()  # nobody imports it


def test_modules_without_effect_on_products_do_not_count(digest):
    changes = {
        "workflow__train": TRAIN.replace("from srt", "import srt.tracking.tracker\nfrom srt")
    }
    changed = digest(**changes, srt__tracking__tracker="import srt.geometry\nX = 1\n")
    assert changed == digest(**changes)


def test_files_that_are_no_code_count_for_the_module_that_names_their_folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert set(code_digests("srt/page.py", tmp_path)) == {"srt/page.py", "srt/templates/page.css"}
    assert set(code_digests("workflow/train.py", tmp_path)) == {
        "workflow/train.py",
        "srt/model/__init__.py",
        "srt/geometry.py",
    }


def test_the_digest_is_equal_under_every_version_of_python(digest):
    assert digest() == "fe8c7b622040"
