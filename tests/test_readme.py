"""What the README says about results and files is what the tree holds."""

import csv
import json
import re

import pytest
from support.paths import REPOSITORY

from srt.report.format.numbers import count

README = (REPOSITORY / "README.md").read_text()
BASELINES = ("mean_colour_psnr", "input_view_psnr", "warped_input_psnr")
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))


def table_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_results_table_is_the_one_that_the_pipeline_wrote():
    shown = re.search(r"<!-- results.*?-->\n(.*?)<!-- /results -->", README, re.DOTALL)
    report = (REPOSITORY / "reports" / "quick" / "results.md").read_text()
    wanted = table_of(report.split("## Results of profile quick")[1].split("\n- ")[0])
    assert len(wanted) > 2
    assert table_of(shown[1]) == wanted


def test_the_figures_of_profile_bench_are_those_that_were_measured():
    shown = re.search(r"<!-- bench.*?-->\n(.*?)<!-- /bench -->", README, re.DOTALL)
    with (REPOSITORY / "reports" / "bench" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = []
    for row in rows:
        best = max(float(row[name]) for name in BASELINES if row[name])
        ssim = f"{float(row['ssim']):.3f}" if row["ssim"] else "–"
        cells = [row["run"], row["protocol"], f"{float(row['psnr']):.2f}", ssim, f"{best:.2f}"]
        cells += [count(int(row["steps"])), f"{float(row['training_seconds']) / 60:.1f} min"]
        wanted.append(f"| {' | '.join(cells)} |")
    assert table_of(shown[1])[2:] == wanted


def test_params_yaml_says_of_each_experiment_what_the_reproduction_table_does():
    with (REPOSITORY / "reports" / "quick" / "reproduction.csv").open() as file:
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
    section = README.split("## What differs from the published code")[1].split("\n## ")[0]
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
    shown = re.search(r"<!-- cards.*?-->\n(.*?)<!-- /cards -->", README, re.DOTALL)
    rows = json.loads((REPOSITORY / "reports" / "performance" / "cards.json").read_text())["rows"]
    wanted = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == setting]
        assert [row["card_gb"] for row in own] == [8, 16, 24, 40, 80]
        cells = [f"{row['median_ms'] / 3.6:.1f} h ({row['peak_gb']:.1f} GB)" for row in own]
        wanted.append(f"| {' | '.join((setting, *cells))} |")
    assert table_of(shown[1])[2:] == wanted


def test_every_module_has_its_place_in_the_tree():
    tree = README.split("## Where things are")[1].split("## ")[0]
    modules = [
        path for folder in ("srt", "workflow") for path in (REPOSITORY / folder).rglob("*.py")
    ]
    missing = [path.name for path in modules if path.stem != "__init__" and path.name not in tree]
    assert not missing


@pytest.mark.parametrize("page", [REPOSITORY / "README.md", *PAGES], ids=lambda path: path.name)
def test_every_picture_and_file_that_is_linked_exists(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_page_of_docs_is_linked_and_has_its_place_in_the_tree():
    tree = README.split("## Where things are")[1].split("## ")[0]
    assert PAGES
    for page in PAGES:
        assert f"](docs/{page.name})" in README
        assert page.name in tree
