"""What the README says about results and files is what the tree holds."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def table_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_results_table_is_the_one_that_the_pipeline_wrote():
    shown = re.search(r"<!-- results.*?-->\n(.*?)<!-- /results -->", README, re.DOTALL)
    report = (ROOT / "reports" / "quick" / "results.md").read_text()
    wanted = table_of(report.split("## Results of profile quick")[1].split("\n- ")[0])
    assert len(wanted) > 2
    assert table_of(shown[1]) == wanted


def test_every_module_has_its_place_in_the_tree():
    tree = README.split("## Where things are")[1].split("## ")[0]
    modules = [path for folder in ("srt", "workflow") for path in (ROOT / folder).rglob("*.py")]
    missing = [path.name for path in modules if path.stem != "__init__" and path.name not in tree]
    assert not missing


def test_every_picture_and_file_that_is_linked_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
