"""What the README says about results and files is what the tree holds."""

import csv
import json
import re

import pytest
from support.paths import REPOSITORY

from srt.report.format.numbers import format_count

README = (REPOSITORY / "README.md").read_text()
BASELINES = ("mean_colour_psnr", "input_view_psnr", "warped_input_psnr")
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
TRAINING = (REPOSITORY / "docs" / "training.md").read_text()
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def table_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_figures_of_profile_bench_are_those_that_were_measured():
    table = re.search(r"<!-- bench.*?-->\n(.*?)<!-- /bench -->", README, re.DOTALL)
    with (REPOSITORY / "reports" / "bench" / "results.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file) if row["ssim"]}
    expected = []
    for row in rows.values():
        best = max(float(row[name]) for name in BASELINES if row[name])
        cells = [row["run"], f"{float(row['psnr']):.2f}", f"{float(row['ssim']):.3f}"]
        cells += [f"{best:.2f}", format_count(int(row["steps"]))]
        cells += [f"{float(row['training_seconds']) / 60:.1f} min"]
        expected.append(f"| {' | '.join(cells)} |")
    assert table_of(table[1])[2:] == expected


def test_params_yaml_says_of_each_experiment_what_the_reproduction_table_does():
    with (REPOSITORY / "reports" / "bench" / "reproduction.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["protocol"] == "stelzner"]
    published = [f"{float(row['psnr']):.2f} dB" for row in rows if row["psnr"]]
    costs = {
        row["ours"]: f"{float(row['gpu_hours']):.0f} hours, {float(row['peak_gigabytes']):.1f} GB"
        f" on an {row['hardware']}"
        for row in rows
        if row["gpu_hours"]
    }
    lines = (
        (REPOSITORY / "params.yaml").read_text().split("\nexperiments:")[1].split("\nprofiles:")[0]
    )
    said = dict(re.findall(r"^  (\w+): +# (.*)$", lines, re.MULTILINE))
    assert re.findall(r"expected: ([\d.]+ dB)", lines) == published
    assert {name: cost for name, cost in costs.items() if cost not in said[name]} == {}
    assert len(costs) == lines.count(" hours, ")


def test_the_times_and_memory_of_a_step_are_those_that_were_measured():
    rows = json.loads((REPOSITORY / "reports" / "performance" / "training.json").read_text())[
        "rows"
    ]
    section = TRAINING.split("## Speed and memory")[1].split("\n## ")[0]
    for name, scenes in (("SRT on NMR", 256), ("SRT on MSN", 64), ("ISRT on MSN", 24),
                         ("VSRT on NMR", 32)):  # fmt: skip
        model, dataset = name.lower().split(" on ")
        (line,) = [line for line in table_of(section) if line.startswith(f"| {name}, a step of")]
        assert f" {scenes} scenes" in line
        shown = re.findall(r"(\d+) ms, ([\d.]+) GB", line)
        ours = {row["way"].split(",")[0]: row for row in rows
                if (row["setting"], row["scenes"]) == (f"{dataset}_{model}", scenes)}  # fmt: skip
        measured = [(f"{ours[way]['median_ms']:.0f}", f"{ours[way]['peak_gb']:.1f}")
                    for way in ("plain", "ours")]  # fmt: skip
        assert shown == measured


def test_what_a_card_takes_is_what_was_measured():
    shown = re.search(r"<!-- cards.*?-->\n(.*?)<!-- /cards -->", TRAINING, re.DOTALL)
    rows = json.loads((REPOSITORY / "reports" / "performance" / "cards.json").read_text())["rows"]
    wanted = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == setting]
        assert [row["card_gb"] for row in own] == [8, 16, 24, 40, 80]
        cells = [f"{row['median_ms'] / 3.6:.1f} h ({row['peak_gb']:.1f} GB)" for row in own]
        wanted.append(f"| {' | '.join((setting, *cells))} |")
    assert table_of(shown[1])[2:] == wanted


def test_the_readme_names_every_folder_of_the_library():
    tree = README.split("## Where things are")[1].split("\n## ")[0]
    folders = [
        path.name for path in (REPOSITORY / "srt").iterdir() if (path / "__init__.py").exists()
    ]
    assert folders
    assert not [name for name in folders if f"\n  {name}/ " not in tree]


def test_the_readme_is_short_and_soon_at_its_first_command():
    assert len(README.encode()) <= 9000
    before = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", README.split("| command |")[0])
    assert len(before.split()) <= 120
    assert "No published training has been run" in before
    assert max(line.count("|") for line in table_of(README)) <= 7


@pytest.mark.parametrize(
    "page", [*PAGES, *(REPOSITORY / name for name in TOP)], ids=lambda path: path.name
)
def test_every_picture_file_and_heading_that_is_linked_exists(page):
    for link in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link


def headings(page):
    """Return the anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_of_docs_is_in_the_index():
    index = (REPOSITORY / "docs" / "index.md").read_text()
    assert [page.name for page in PAGES if f"({page.name})" not in index] == ["index.md"]
