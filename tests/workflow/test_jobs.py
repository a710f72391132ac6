"""A job is made again when a value that it reads or its code changes, and for nothing else."""

import dataclasses

import pytest
import yaml
from support.paths import PARAMS

from srt.config.strict import ConfigError
from srt.data.raw.layouts import LAYOUTS, RawLayout
from workflow.common.jobs import plan_jobs
from workflow.plan import plan


@pytest.fixture
def planned(tmp_path):
    """A function that returns what each job depends on, with some values of params.yaml changed."""
    number = iter(range(100))

    def compute(changes=None, profile="quick"):
        params = yaml.safe_load(PARAMS.read_text())
        for name, value in (changes or {}).items():
            *sections, key = name.split(".")
            section = params
            for part in sections:
                section = section.setdefault(part, {})
            section[key] = value
        path = tmp_path / f"{next(number)}.yaml"
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        return {"@".join(key): job.describe() for key, job in plan_jobs(path, profile).items()}

    return compute


def changed(before, after):
    """Return the jobs that differ, but for the tables, which compare all experiments."""
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert "tabulate@" in names
    return names - {"tabulate@"}


LAYERS = ("defaults.{}", "experiments.nmr_srt.{}", "profiles.quick.{}")
OVERRIDES = "profiles.quick.experiments.nmr_srt.{}"


@pytest.mark.parametrize(
    ("setting", "value", "stage"),
    [
        ("train.clip_norm", 0.5, "train"),
        ("model.position_octaves", 5, "train"),
        ("evaluate.comparison_scenes", 3, "evaluate"),
        ("render.fps", 9, "render"),
    ],
)
def test_a_value_of_one_experiment_in_a_profile_makes_one_job_again(planned, setting, value, stage):
    after = planned({OVERRIDES.format(setting): value})
    assert changed(planned(), after) == {f"{stage}@nmr_srt"}


@pytest.mark.parametrize("layer", [*LAYERS, OVERRIDES])
@pytest.mark.parametrize("setting", ["train.clip_norm", "evaluate.pose_noise", "render.fade"])
def test_a_value_counts_wherever_it_stands(planned, layer, setting):
    value = True if setting == "render.fade" else 0.5
    job = f"{setting.split('.')[0]}@nmr_srt"
    assert job in changed(planned(), planned({layer.format(setting): value}))


def test_a_value_that_is_overridden_makes_nothing_again(planned):
    assert (
        planned({"defaults.train.steps": 2_000_000})["train@nmr_srt"] == planned()["train@nmr_srt"]
    )


def test_a_value_of_a_dataset_makes_what_reads_it_again(planned):
    after = planned({"profiles.quick.datasets.msn.far": 30.0})
    trainings = {"train@msn_srt", "train@msn_isrt", "train@msn_vsrt"}
    assert changed(planned(), after) == {"fetch@msn", "pack@msn", "survey@msn", *trainings}


def test_the_seed_makes_synthetic_scenes_and_trainings_again(planned):
    stages = {name.split("@")[0] for name in changed(planned(), planned({"seed": 1}))}
    assert stages == {"fetch", "train"}


def test_a_new_experiment_makes_no_other_again(planned):
    after = planned({"experiments.second": {"dataset": "nmr", "model": "srt"}})
    assert changed(planned(), after) == {"train@second", "evaluate@second", "render@second"}


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("srt/report/page.py", {"tabulate"}),
        ("srt/report/templates/page.css", {"tabulate"}),
        ("srt/report/dataset_summary.py", {"survey"}),
        ("srt/model/encoder.py", {"train", "evaluate", "render", "tabulate"}),
        ("srt/training/loop.py", {"train"}),
        ("srt/evaluation/model_costs.py", {"evaluate"}),
        ("srt/rendering/trajectories.py", {"render"}),
        ("srt/data/raw/obsurf.py", {"pack"}),
        ("srt/data/raw/layouts.py", set()),
        ("srt/data/synthetic/solids.py", {"fetch"}),
        ("srt/tracking/tracker.py", set()),
    ],
)
def test_the_stages_that_run_a_file_and_no_others_depend_on_it(file, stages):
    assert {job.stage for job in plan_jobs(PARAMS, "quick").values() if file in job.code} == stages


def test_a_job_depends_on_the_code_of_its_own_layout_only():
    jobs = plan_jobs(PARAMS, "quick")
    readers = {name: f"srt/data/raw/{name}.py" for name in LAYOUTS}
    for name, layout in {"nmr": "nmr", "clevr3d": "obsurf", "msn_hard": "msn"}.items():
        code = jobs["pack", name].code
        assert [one for one, file in readers.items() if file in code] == [layout]


def test_a_new_layout_makes_nothing_again(planned, monkeypatch):
    before = planned()
    entry = RawLayout(reader="srt.data.raw.nmr", index="index.json")
    monkeypatch.setitem(LAYOUTS, "another", entry)
    assert planned() == before


def test_a_changed_entry_of_a_layout_makes_its_datasets_again(planned, monkeypatch):
    before = planned()
    monkeypatch.setitem(LAYOUTS, "nmr", dataclasses.replace(LAYOUTS["nmr"], packages=("yaml",)))
    after = planned()
    assert {name for name in after if after[name] != before[name]} == {"fetch@nmr", "pack@nmr"}


def test_a_wrong_value_of_any_profile_stops_the_plan_and_leaves_the_old_one(planned, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS.read_text())
    plan(profile="quick", out=tmp_path / "plan", params=params)
    files = {path: path.read_text() for path in (tmp_path / "plan").rglob("*.json")}
    assert len(files) == len(plan_jobs(PARAMS, "quick"))

    wrong = yaml.safe_load(PARAMS.read_text())
    wrong["profiles"]["bench"]["train"]["learning_rate"] = "1e-4"
    params.write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfigError, match=r"params.yaml: profiles.bench.train.learning_rate"):
        plan(profile="quick", out=tmp_path / "plan", params=params)
    assert {path: path.read_text() for path in files} == files


def test_a_plan_has_no_file_of_an_experiment_that_is_gone(tmp_path):
    (tmp_path / "plan" / "train").mkdir(parents=True)
    (tmp_path / "plan" / "train" / "gone.json").write_text("{}")
    plan(profile="quick", out=tmp_path / "plan", params=PARAMS)
    assert not (tmp_path / "plan" / "train" / "gone.json").exists()
