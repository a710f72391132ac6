"""Several seeds of an experiment: their mean and spread, and the check that only seeds differ."""

import dataclasses
import json
import shutil
import statistics

import pytest
from small_reports import make_report, table_rows, write_runs
from support.paths import PARAMS
from support.small_runs import write_run

from srt.common.errors import UserError
from srt.config.load import load_experiments
from srt.report.tables.seeds import seeds_table
from workflow.common.stage_files import read_run, seed_folders

# The items of each protocol, and the experiment that has several seeds.
ITEMS = {"stelzner": 768, "pixelnerf": 32}
NAME = "nmr_srt"


def write_seed(outputs, seed, **changes):
    """Write the files of a training from another seed, whose PSNR differs by 0.1 dB a seed."""
    folder = outputs / NAME / "seeds" / str(seed)
    write_run(folder, "quick", True, ITEMS, items=32)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["experiment"] = NAME
    for figures in metrics["protocols"].values():
        figures["psnr"] += 0.1 * seed
    (folder / "metrics.json").write_text(json.dumps(metrics))
    change_json(folder / "training.json", **{"seed": seed, "but_for_seed": "abc", **changes})


def change_json(path, **changes):
    """Replace values in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def outputs(tmp_path):
    """Return the folder of all experiments, one of which has two more seeds."""
    write_runs(tmp_path / "outputs", "quick", True, ITEMS, items=32)
    change_json(tmp_path / "outputs" / NAME / "training.json", seed=0, but_for_seed="abc")
    for seed in (1, 12):
        write_seed(tmp_path / "outputs", seed)
    return tmp_path / "outputs"


def experiment():
    """Return the configuration of the experiment that has several seeds."""
    return next(plan for plan in load_experiments(PARAMS, "quick") if plan.name == NAME)


def read_all(outputs):
    """Return the run with the repeats in its own folder."""
    return read_run(outputs / NAME, experiment(), seed_folders(outputs / NAME / "seeds"))


def psnr_of_seeds(outputs, protocol):
    """Return the PSNR of each seed by a protocol."""
    folders = [outputs / NAME, *(outputs / NAME / "seeds").iterdir()]
    files = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    return [file["protocols"][protocol]["psnr"] for file in files]


def test_the_table_has_mean_and_spread_of_all_seeds(outputs):
    run = read_all(outputs)
    table = seeds_table([run], "quick")
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["protocol"] for row in rows] == list(ITEMS)
    for row in rows:
        values = psnr_of_seeds(outputs, row["protocol"])
        assert row["PSNR"] == f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
        assert row["seeds"] == "3"

    # Protocol stelzner defines no SSIM, and LPIPS was not measured.
    assert rows[0]["SSIM"] == "–"
    assert " ± " in rows[1]["SSIM"]
    assert "LPIPS" not in table.header


def test_a_single_seed_has_no_spread(outputs):
    run = dataclasses.replace(read_all(outputs), repeats=())
    assert seeds_table([run], "quick") is None
    assert run.mean_and_deviation("stelzner", "psnr") is None


def test_a_report_with_seeds_can_be_made_again_from_the_files_beside_it(outputs, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    make_report(profile="quick", outputs=outputs, out=first, params=PARAMS)
    shutil.copytree(first / "seeds", second / "seeds")
    make_report(profile="quick", outputs=first / "runs", out=second, params=PARAMS)
    for name in ("results.csv", "results.md", "results.tex", "index.html"):
        assert (first / name).read_bytes() == (second / name).read_bytes()

    # The mean over the seeds is in the Markdown and in the CSV.
    assert "## Over seeds, profile quick" in (first / "results.md").read_text()
    (row,) = [row for row in table_rows(first, "Over seeds") if row["protocol"] == "stelzner"]
    assert row["run"] == NAME
    line = (first / "results.csv").read_text().splitlines()[1]
    assert f"{statistics.mean(psnr_of_seeds(outputs, 'stelzner')):.6g}" in line


def test_remarks_on_runs_are_in_the_report_until_they_are_deleted(outputs, tmp_path):
    # The report copies the remarks beside it, so it can be made again from there.
    first = tmp_path / "first"
    (outputs / "remarks.txt").write_text("Of one chair.\n")
    for source in (outputs, first / "runs"):
        make_report(profile="quick", outputs=source, out=first, params=PARAMS)
        assert "\n- Of one chair.\n" in (first / "results.md").read_text()

    (outputs / "remarks.txt").unlink()
    for source in (outputs, first / "runs"):
        make_report(profile="quick", outputs=source, out=first, params=PARAMS)
        assert "Of one chair." not in (first / "results.md").read_text()


def test_repeats_that_are_not_run_again_stay_in_the_report(outputs, tmp_path):
    first = tmp_path / "first"
    make_report(profile="quick", outputs=outputs, out=first, params=PARAMS)
    shutil.rmtree(outputs / NAME / "seeds")
    shutil.rmtree(first / "runs")  # as DVC and Snakemake do before they run the stage
    for source in (outputs, first / "runs"):
        make_report(profile="quick", outputs=source, out=first, params=PARAMS)
        (row,) = [row for row in table_rows(first, "Over seeds") if row["protocol"] == "stelzner"]
        assert row["seeds"] == "3"


def test_repeats_of_a_run_that_changed_leave_the_report_and_the_log_says_so(
    outputs, tmp_path, caplog
):
    first = tmp_path / "first"
    make_report(profile="quick", outputs=outputs, out=first, params=PARAMS)
    shutil.rmtree(outputs / NAME / "seeds")
    change_json(outputs / NAME / "training.json", but_for_seed="another")
    with caplog.at_level("INFO"):
        make_report(profile="quick", outputs=outputs, out=first, params=PARAMS)
    assert list((first / "seeds" / NAME).iterdir()) == []
    assert "Over seeds" not in (first / "results.md").read_text()
    assert "its but_for_seed is not that of" in caplog.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 5}, "trained from seed 5"),
        ({"but_for_seed": "another"}, "its but_for_seed is not that"),
        ({"steps": 999}, "its steps is not that"),
    ],
)
def test_a_seed_that_was_trained_otherwise_is_refused_by_what_differs(outputs, changes, expected):
    change_json(outputs / NAME / "seeds" / "12" / "training.json", **changes)
    with pytest.raises(UserError, match=expected):
        read_all(outputs)


def test_the_experiments_own_seed_is_not_counted_twice(outputs):
    write_seed(outputs, 0)
    with pytest.raises(UserError, match=r"seeds/0: trained from seed 0, and .* from 0"):
        read_all(outputs)


def test_a_seed_that_was_measured_with_other_settings_is_refused(outputs):
    change_json(outputs / NAME / "seeds" / "1" / "metrics.json", split="val")
    with pytest.raises(UserError, match="not measured as"):
        read_all(outputs)


def test_a_seed_that_was_not_evaluated_is_named_with_the_command_for_it(outputs):
    (outputs / NAME / "seeds" / "12" / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"python -m workflow\.evaluate. for nmr_srt, seed 12,"):
        read_all(outputs)


def test_all_seeds_are_read_in_order(outputs):
    run = read_all(outputs)
    assert [seed.training.seed for seed in run.seeds] == [0, 1, 12]
