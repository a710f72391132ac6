"""What git has of reports/: made of the result files beside it, byte for byte; a page that stands
alone; published figures that are told apart by how they were read."""

import csv
import dataclasses
import io
import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.paths import REPOSITORY
from support.small_runs import training_of
from support.tracked_reports import REPORTS, make_again

from srt.common.distributed import describe_cpu
from srt.common.errors import UserError
from srt.config.load import load_params
from srt.evaluation.scores import extremes
from srt.rendering.teaser import read_frames, yuv_to_rgb
from srt.rendering.video import Mp4Writer
from srt.report.figures import pareto_front
from srt.report.format.numbers import format_count, format_threads
from srt.report.format.table import Table, drop_empty_columns
from srt.report.provenance_sentence import trained_sentence
from srt.report.tables.few_cameras import few_cameras_table
from srt.results.record_tables import ItemScores
from srt.results.records import Measures
from workflow.tabulate import tabulate

PERFORMANCE = REPOSITORY / "reports" / "performance" / "training.json"
FEW_CAMERAS = PERFORMANCE.parents[1] / "camera_overfitting"
FILES = (
    "*.csv",
    "*.gif",
    "*.md",
    "*.png",
    "*.tex",
    "runs/*.txt",
    "runs/*/*.*",
    "seeds/*/*/*",
)


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.name)
def test_a_report_is_made_again_byte_for_byte_from_the_result_files_beside_it(report, tmp_path):
    out = tmp_path / "reports" / report.name
    make_again(report, out)
    committed = {path.relative_to(report) for pattern in FILES for path in report.glob(pattern)}
    made = {path.relative_to(out) for pattern in FILES for path in out.glob(pattern)}
    assert made == committed
    assert not [name for name in made if (out / name).read_bytes() != (report / name).read_bytes()]


def test_the_front_is_what_no_cheaper_one_reaches():
    points = [(1.0, 2.0), (2.0, 1.0), (3.0, 3.0), (4.0, 3.0), (5.0, 4.0)]
    assert pareto_front(points) == [points[0], points[2], points[4]]


def test_remarks_on_runs_stand_below_their_results(site):
    for path in site.glob("*/runs/remarks.txt"):
        for text in ("results.md", "index.html", "results.tex"):
            shown = " ".join((path.parents[1] / text).read_text().split())
            assert [line for line in path.read_text().splitlines() if line not in shown] == []


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no experiment of profile quick has been measured"):
        tabulate(
            profile="quick",
            outputs=tmp_path,
            surveys=tmp_path,
            performance=PERFORMANCE,
            few_cameras=FEW_CAMERAS,
            out=tmp_path / "report",
            params=REPOSITORY / "params.yaml",
            partial=True,
        )
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.name)
def test_the_page_loads_nothing_and_leads_only_to_what_is_there(report, site):
    report = site / report.name
    text = (report / "index.html").read_text()
    assert not [source for source in re.findall(r'src="(.{5})', text) if source != "data:"]
    assert "<script" not in text
    links = set(re.findall(r'<a [^>]*href="([^"]*)"', text))
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]*)"', text))
    files = {link for link in links if not link.startswith(("#", "http://127.0.0.1:5000/"))}
    assert all((report / link).is_file() for link in files)
    assert all('alt="' in image for image in re.findall(r"<img [^>]*>", text))
    assert text.count("<video ") == len(list(report.glob("runs/*/video.mp4"))) > 0


def test_the_overview_leads_to_every_report(site):
    text = (site / "index.html").read_text()
    found = re.findall(r'(?:href|src)="([^"#:]+)"', text)
    assert {f"{report.name}/index.html" for report in REPORTS} <= set(found)
    assert not [link for link in found if not (site / link).is_file()]


def test_what_is_published_is_the_folder_that_the_overview_leads_through():
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "pages.yml").read_text())
    (job,) = workflow["jobs"].values()
    steps = {step["uses"].split("@")[0]: step for step in job["steps"] if "uses" in step}
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make reports"]
    assert steps["actions/upload-pages-artifact"]["with"]["path"] == "reports"
    assert list(steps)[-1] == "actions/deploy-pages"
    assert workflow["permissions"] == {"contents": "read", "pages": "write", "id-token": "write"}
    assert job["environment"]["name"] == "github-pages"
    address = job["environment"]["url"].strip("${ }")
    assert address == f"steps.{job['steps'][-1]['id']}.outputs.page_url"


def test_every_link_of_what_is_published_is_relative_and_leads_to_a_published_file(site):
    published = {path for path in site.rglob("*") if path.is_file()}
    assert site / "index.html" in published
    assert not [path for path in site.rglob("*") if path.is_symlink()]  # they are not uploaded
    texts = [path for path in published if path.suffix in (".html", ".md")]
    assert [dead for path in texts for dead in dead_links(path, published)] == []


def test_what_a_profile_of_ones_own_writes_is_ignored_and_what_is_shown_is_tracked():
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a checkout of git, which says what is ignored")
    names = ["quick", "mine", "bench"]
    paths = [f"reports/{name}/{file}" for name in names for file in ("results.md", "index.html")]
    command = [git, "-C", REPOSITORY, "check-ignore", "--no-index", *paths]
    ignored = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert set(paths) - set(ignored) == {"reports/bench/results.md"}


def dead_links(path, published):
    """Yield the links of a page that are not relative, or lead to nothing that is published."""
    text = path.read_text()
    pattern = r'(?:href|src)="([^"]+)"' if path.suffix == ".html" else r"\]\(([^()\s]+)\)"
    for link in re.findall(pattern, text):
        if link.startswith(("data:", "#", "http://127.0.0.1:5000/")):  # mlflow ui, where it runs
            continue
        target = Path(os.path.normpath(path.parent / link.partition("#")[0]))
        if ":" in link or target not in published:
            yield f"{path.name}: {link}"


def test_a_dead_link_is_found(tmp_path):
    page, notes = tmp_path / "index.html", tmp_path / "notes.md"
    page.write_text('<a href="notes.md#a"><img src="/b.png"><a href="https://c.org"><a href="#d">')
    notes.write_text("[a](index.html) ![b](../b.png)")
    found = [dead for path in (page, notes) for dead in dead_links(path, {page, notes})]
    assert found == ["index.html: /b.png", "index.html: https://c.org", "notes.md: ../b.png"]


def test_when_and_where_runs_were_trained_is_said_as_far_as_it_is_known():
    old = training_of("a", hardware="x86_64 CPU, 1 threads")
    assert trained_sentence([old, old]) == (
        "Trained on x86_64 CPU, 1 thread; date: not recorded; commit: not recorded."
    )
    new = training_of("b", hardware="1 x GPU", finished="2026-11-27", commit="0123456789" * 4)
    commit = f"{'9876543210' * 4} and changes"
    other = dataclasses.replace(new, finished="2026-11-26", commit=commit)
    assert trained_sentence([new, other, old]) == (
        "Trained on 1 x GPU, x86_64 CPU, 1 thread; date: 2026-11-26 to 2026-11-27;"
        " commit: 0123456, 9876543 and changes."
    )


def test_the_known_limit_is_shown_as_it_was_measured():
    measured = json.loads((FEW_CAMERAS / "results.json").read_text())
    table = few_cameras_table(measured)
    rows = {row[0]: row[1:] for row in table.rows}
    for name, run in measured["runs"].items():
        model, _, cameras = name.partition(", ")
        values = rows[f"{model.upper()}, {cameras}, {format_count(run['steps'])} steps"]
        assert values == [f"{value:.1f}" for value in run["psnr_by_angle"]]
    assert rows["input copied"] == [f"{v:.1f}" for v in measured["baselines"]["input copied"]]
    assert len(table.header) == len(measured["angle_edges"])
    assert any(measured["device"] in note for note in table.notes)


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.name)
def test_every_page_shows_the_known_limit_and_says_that_it_is_not_of_its_runs(report, site):
    for name in ("index.html", "results.md"):
        text = (site / report.name / name).read_text()
        assert "Known limit: few cameras" in text
        assert "Not of this profile" in text
        assert "../camera_overfitting.md" in text


def test_a_frame_of_a_video_has_the_colours_that_were_written(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    frame = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128), axis=-1).astype(np.uint8)
    with Mp4Writer(tmp_path / "a.mp4", 8) as writer:
        writer.write(frame)
    (seen,) = read_frames(tmp_path / "a.mp4")
    assert np.abs(seen.astype(int) - frame).mean() < 3
    assert yuv_to_rgb(np.full((3, 2), 128, np.uint8), 2).tolist() == [[[130] * 3] * 2] * 2


def test_the_raw_figures_have_a_row_for_each_cell_of_the_tables():
    for report in REPORTS:
        rows = list(csv.DictReader(io.StringIO((report / "reproduction.csv").read_text())))
        assert {row["ours"] for row in rows} - {""} == set(
            load_params(REPOSITORY / "params.yaml").experiments
        )


def test_columns_without_a_figure_are_left_out_of_the_page_and_no_others():
    rows = [["1", "–", "–", "not measured"], ["–", "–", "2", "–"]]
    told = drop_empty_columns(Table("a", "llrl", ["x", "y", "z", "u"], rows, []))
    assert (told.header, told.align, told.rows) == (["x", "z"], "lr", [["1", "–"], ["–", "2"]])


def test_one_thread_is_one_in_old_and_new_files():
    assert format_threads("x86_64 CPU, 1 threads") == describe_cpu(1).replace(
        platform.machine(), "x86_64"
    )
    assert format_threads("x86_64 CPU, 11 threads") == "x86_64 CPU, 11 threads"
    assert format_threads(describe_cpu(2)) == describe_cpu(2)


def test_the_extremes_are_the_best_the_median_and_the_worst_by_psnr():
    rows = [
        ItemScores(
            protocol="gta",
            scene="a",
            class_name="table",
            inputs=(0,),
            scores=Measures(psnr=value),
            baselines=None,
        )
        for value in (20.0, 31.5, 12.25, 25.0, 24.0)
    ]
    places, labels = extremes(rows)
    assert places == [1, 4, 2]
    assert labels[2] == "worst of 5: 12.25 dB (table)"
    assert extremes(rows[:1])[0] == [0, 0, 0]
