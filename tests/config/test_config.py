"""params.yaml: an error in it is named before anything runs, and its layers are merged."""

import dataclasses

import pytest
import torch
from support.broken_params import (
    ABSENT,
    LEVELS,
    MISSING,
    PARAMS,
    RAW,
    WRONG_VALUES,
    write_edited_params,
)

from srt.common.errors import UserError
from srt.common.fingerprint import differences, fingerprint
from srt.config.load import load_dataset, load_experiment, load_params, load_weights
from srt.config.schema import shard_numbers
from srt.config.strict import ConfigError
from srt.model.srt import build_model
from srt.model.weights import training_config


def subset(**changes):
    return {"classes": None, "shards": None, "max_scenes": None, **changes}


def refusal(path):
    """Return the message with which a file is refused. A single experiment is refused, too."""
    with pytest.raises(ConfigError) as error:
        load_params(path)
    with pytest.raises(ConfigError):
        load_experiment(path, "nmr_srt", "quick")

    # The command line prints a UserError without a traceback.
    assert isinstance(error.value, UserError)
    return str(error.value)


@pytest.mark.parametrize("level", LEVELS)
def test_an_unknown_key_is_refused_by_its_name_at_every_level(tmp_path, level):
    path = write_edited_params(tmp_path, (f"{level}lerning_rate", {}))
    assert refusal(path).startswith(f"{path}: {level}lerning_rate: unknown key; possible keys: ")


@pytest.mark.parametrize(
    ("level", "key", "meant"),
    [
        ("", "sed", "seed"),
        ("datasets.nmr", "veiws", "views"),
        ("models", "vsrtt", "vsrt"),
        ("models.vsrt", "course_samples", "coarse_samples"),
        ("experiments.msn_isrt.model", "query_hiden", "query_hidden"),
        ("experiments.nmr_srt", "evalute", "evaluate"),
        ("profiles.quick.model", "frane", "frame"),
        ("profiles.quick.experiments.nmr_vsrt.model", "fine_sample", "fine_samples"),
        ("profiles.quick.train", "batchsize", "batch_size"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_key_that_was_probably_meant(
    tmp_path, level, key, meant
):
    name = f"{level}.{key}".lstrip(".")
    text = refusal(write_edited_params(tmp_path, (name, {})))
    assert text.startswith(f"{tmp_path / 'params.yaml'}: {name}: unknown key; possible keys: ")
    assert text.endswith(f"; did you mean {meant}?")


def test_a_key_like_no_other_is_refused_without_a_guess(tmp_path):
    assert "did you mean" not in refusal(write_edited_params(tmp_path, ("defaults.xyzzy", {})))


def test_an_unknown_key_in_a_section_of_an_experiment_is_refused_by_its_name(tmp_path):
    path = write_edited_params(tmp_path, ("experiments.nmr_srt.train", {"lerning_rate": 1.0}))
    assert f"{path}: experiments.nmr_srt.train.lerning_rate: unknown key" in refusal(path)


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES, ids=str)
def test_a_wrong_value_is_refused_with_file_key_and_value(tmp_path, key, value):
    path = write_edited_params(tmp_path, (key, value))
    assert refusal(path).startswith(f"{path}: {key}: {value!r} is not ")


def test_a_wrong_value_in_a_section_of_an_experiment_is_refused_by_its_name(tmp_path):
    path = write_edited_params(tmp_path, ("experiments.nmr_srt.train", {"steps": "many"}))
    assert f"{path}: experiments.nmr_srt.train.steps: 'many' is not of type int" in refusal(path)


@pytest.mark.parametrize("key", ["defaults.train.learning_rate", "profiles.quick.train.decay_rate"])
def test_a_float_without_a_dot_is_refused_with_the_way_to_write_it(tmp_path, key):
    path = write_edited_params(tmp_path, (key, "1e-4"))
    assert f"{key}: '1e-4' is not a float" in (text := refusal(path))
    assert "1.0e-4" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(tmp_path, value):
    path = write_edited_params(tmp_path, ("defaults.train.learning_rate", value))
    assert f"defaults.train.learning_rate: {value!r} is not a finite number" in refusal(path)


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_key_or_section_is_refused_by_its_name(tmp_path, key):
    path = write_edited_params(tmp_path, (key, ABSENT))
    *parents, name = key.split(".")
    section = f"{path}: {'.'.join(parents)}" if parents else str(path)
    assert refusal(path) == f"{section}: the key {name} is missing"


def test_a_dataset_without_a_key_that_has_no_default_is_refused_by_its_name(tmp_path):
    path = write_edited_params(tmp_path, ("datasets.nmr.views", ABSENT))
    assert refusal(path) == f"{path}: datasets.nmr, profile quick: the key views is missing"


@pytest.mark.parametrize(
    ("text", "numbers"), [("3", [3]), ("0-3,7", [0, 1, 2, 3, 7]), ("5, 1-2,2", [1, 2, 5])]
)
def test_shards_are_given_as_numbers_and_ranges(text, numbers):
    assert shard_numbers(text) == numbers


@pytest.mark.parametrize("value", [None, {}, {"train": {}}, {"datasets": {"nmr": {}}}], ids=str)
def test_a_profile_names_only_what_it_changes(tmp_path, value):
    path = write_edited_params(tmp_path, ("profiles.paper", value))
    load_params(path)
    assert load_experiment(path, "nmr_srt", "paper") == load_experiment(PARAMS, "nmr_srt", "paper")
    assert load_weights(path, "lpips_vgg", "paper") == load_weights(PARAMS, "lpips_vgg", "paper")


def test_a_profile_that_extends_another_names_only_its_own_changes(tmp_path):
    mine = {"extends": "quick", "datasets": {"nmr": {"image_size": [40, 50]}}}
    path = write_edited_params(
        tmp_path, ("profiles.mine", mine), ("profiles.ours", {"extends": "mine"})
    )
    quick = load_experiment(path, "nmr_srt", "quick")
    for name in ("mine", "ours"):
        experiment = load_experiment(path, "nmr_srt", name)
        assert (experiment.model, experiment.train) == (quick.model, quick.train)
        assert experiment.dataset.image_size == (40, 50)
        assert load_experiment(path, "msn_srt", name).dataset == load_dataset(path, "msn", "quick")


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("quik", "'quik' is not one of .*did you mean quick"),
        ("mine", "'mine' extends 'mine'"),
        (3, "3 is"),
    ],
)
def test_a_profile_can_only_extend_another_one(tmp_path, base, message):
    path = write_edited_params(tmp_path, ("profiles.mine", {"extends": base}))
    with pytest.raises(ConfigError, match=f"profiles.mine.extends: {message}"):
        load_params(path)


def test_a_file_that_was_changed_is_read_again(tmp_path):
    assert load_params(write_edited_params(tmp_path, ("seed", 1))).seed == 1
    assert load_params(write_edited_params(tmp_path, ("seed", 2))).seed == 2


def test_decay_steps_of_null_are_as_many_as_steps(tmp_path):
    path = write_edited_params(
        tmp_path, ("profiles.paper.train", {"steps": 20000, "decay_steps": None})
    )
    assert load_experiment(path, "nmr_srt", "paper").train.decay_steps == 20000


@pytest.mark.parametrize("section", ["datasets", "experiments", "profiles.paper.datasets"])
@pytest.mark.parametrize("name", [False, 2026])
def test_a_name_that_yaml_does_not_read_as_text_is_refused(tmp_path, section, name):
    values = RAW
    for key in section.split("."):
        values = values[key]
    path = write_edited_params(tmp_path, (section, {**values, name: {}}))
    assert f"{path}: {section}.{name}: the key {name!r} is not text" in refusal(path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", -1, "seed -1 is not in"),
        ("seed", 2**31, f"seed {2**31} is not in"),
        ("datasets.nmr.image_size", [64, 0], "profile paper: image_size [64, 0] is not positive"),
        ("datasets.nmr.input_views", 24, "datasets.nmr, profile quick: input_views 24 is not in 1"),
        ("datasets.nmr.view_list", 24, "datasets.nmr, profile paper: view_list 24 is not in 0..23"),
        ("datasets.nmr.source", "synthetic", "profile paper: source is synthetic, so"),
        ("datasets.nmr.near", 4.0, "datasets.nmr, profile quick: near 4.0 is not in 0..4.0 (far)"),
        ("datasets.msn.near", -0.1, "near -0.1 is not in 0..20.0 (far)"),
        ("models.vsrt.coarse_samples", 1, "models.vsrt: coarse_samples 1 is less than 2"),
        ("datasets.clevr3d.ranges.val", [5, 5], "val [5, 5] is not a range of scenes"),
        ("datasets.msn.subset", subset(shards="3-1"), "shards '3-1' is neither like `0-3,7` nor"),
        ("datasets.msn.subset", subset(shards="0-"), "shards '0-' is neither like `0-3,7` nor"),
        ("datasets.msn.subset", subset(max_scenes=0), "max_scenes 0 is not positive"),
        ("models.srt.latent_dim", 0, "models.srt: latent_dim 0 is not positive"),
        ("models.vsrt.heads", -1, "models.vsrt: heads -1 is not positive"),
        ("defaults.train.learning_rate", -0.1, "defaults.train: learning_rate -0.1 is not pos"),
        ("defaults.train.validate_every", 7, "is not a multiple of validate_every 7"),
        ("defaults.evaluate.max_items", 0, "defaults.evaluate: max_items 0 is not positive"),
        ("defaults.render.fps", 0, "defaults.render: fps 0 is not positive"),
        ("profiles.paper.train.steps", -5, "train of experiment nmr_srt, profile paper: steps -5"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(tmp_path, key, value, expected):
    path = write_edited_params(tmp_path, (key, value))
    with pytest.raises(ConfigError) as error:
        load_params(path)
    assert str(error.value).startswith(f"{path}: ")
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("seed: 1\nseed: 2\n", "params.yaml, line 2: the key 'seed' occurs a second time"),
        ("a:\n  b: {c: 1,\n      c: 2}\n", "params.yaml, line 3: the key 'c' occurs a second"),
        ("seed: [1\n", "params.yaml: not readable as YAML: .*line 2"),
        ("seed: \x00\n", "params.yaml: not readable as YAML"),
        ("- seed\n", r"params.yaml: \['seed'\] is not a mapping"),
        ("", "params.yaml: None is not a mapping"),
    ],
)
def test_a_file_that_is_not_a_mapping_of_unique_keys_is_refused(tmp_path, broken, expected):
    path = tmp_path / "params.yaml"
    path.write_text(broken)
    with pytest.raises(ConfigError, match=f"(?s){tmp_path}/{expected}"):
        load_params(path)


def test_a_missing_or_binary_file_is_refused_with_its_name(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(ConfigError, match=f"{path}: there is no such file"):
        load_params(path)
    path.write_bytes(b"seed: \xff\xfe")
    with pytest.raises(ConfigError, match=f"{path}: not readable"):
        load_params(path)


def test_an_unknown_name_is_refused_with_the_possible_names(tmp_path):
    for load, name, what in (
        (load_experiment, "nmr_str", "experiment: 'nmr_str' is not one of .*nmr_srt"),
        (load_dataset, "nrm", "datasets: 'nrm' is not one of .*nmr"),
        (load_weights, "lpips", "weights: 'lpips' is not one of .*lpips_vgg"),
    ):
        with pytest.raises(ConfigError, match=f"{PARAMS}: {what}"):
            load(PARAMS, name, "quick")
    with pytest.raises(ConfigError, match=f"{PARAMS}: profile: 'fast' is not one of quick, paper"):
        load_experiment(PARAMS, "nmr_srt", "fast")
    path = write_edited_params(tmp_path, ("profile", "fast"))
    assert f"{path}: profile: 'fast' is not one of quick, paper" in refusal(path)
    with pytest.raises(ConfigError, match=r"experiment: 'nmr_str' .*; did you mean nmr_srt\?$"):
        load_experiment(PARAMS, "nmr_str", "quick")
    path = write_edited_params(tmp_path, ("experiments.nmr_srt.dataset", "nrm"))
    assert f"{path}: experiments.nmr_srt.dataset: 'nrm' is not one of " in refusal(path)


@pytest.mark.parametrize("name", RAW["experiments"])
@pytest.mark.parametrize("profile", RAW["profiles"])
def test_every_experiment_resolves_under_every_profile_and_its_model_builds(name, profile):
    experiment = load_experiment(PARAMS, name, profile)
    assert (experiment.name, experiment.profile) == (name, profile)
    assert experiment.dataset == load_dataset(PARAMS, experiment.dataset_name, profile)
    with torch.device("cpu" if profile == "quick" else "meta"):
        model = build_model(experiment.model, experiment.seed)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


def test_the_quick_profile_is_synthetic_and_the_paper_profile_is_not():
    for name in RAW["experiments"]:
        assert load_experiment(PARAMS, name, "quick").synthetic
        assert not load_experiment(PARAMS, name, "paper").synthetic


def test_a_profile_overrides_an_experiment_and_an_experiment_overrides_the_defaults(tmp_path):
    # Each layer overrides all earlier ones.
    layers = [
        ("defaults.train.log_every", 1),
        ("experiments.nmr_srt.train", {"log_every": 2}),
        ("profiles.paper.train.log_every", 3),
        ("profiles.paper.experiments", {"nmr_srt": {"train": {"log_every": 4}}}),
    ]
    for count in range(1, 5):
        path = write_edited_params(tmp_path, *layers[:count])
        train = load_experiment(path, "nmr_srt", "paper").train
        unchanged = load_experiment(PARAMS, "nmr_srt", "paper").train
        assert train == dataclasses.replace(unchanged, log_every=count)


def test_the_file_chooses_the_profile_unless_the_caller_does(tmp_path):
    path = write_edited_params(tmp_path, ("profile", "paper"))
    assert load_experiment(path, "nmr_srt").profile == "paper"
    assert load_experiment(path, "nmr_srt") == load_experiment(path, "nmr_srt", "paper")
    assert load_experiment(path, "nmr_srt", "quick").profile == "quick"


def test_a_profile_changes_single_keys_of_a_dataset(tmp_path):
    # The dataset itself has no synthetic scenes, so the profile must give all their keys.
    path = write_edited_params(
        tmp_path, ("profiles.quick.datasets.nmr.synthetic", {"scene": "object", "train": 1})
    )
    with pytest.raises(ConfigError, match=r"nmr, profile quick\.synthetic: the key val is missi"):
        load_dataset(path, "nmr", "quick")

    # If the dataset has them, the profile may change a single one.
    counts = {"scene": "object", "train": 5, "val": 6, "test": 7}
    path = write_edited_params(
        tmp_path,
        ("datasets.nmr.synthetic", counts),
        ("profiles.quick.datasets.nmr.synthetic", {"val": 60}),
    )
    synthetic = load_dataset(path, "nmr", "quick").synthetic
    assert dataclasses.asdict(synthetic) == counts | {"val": 60}


def leaves(values, key=""):
    """Yield the dotted key of every value that is not a dictionary."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{key}{name}.")
        else:
            yield f"{key}{name}"


def change_value(values, key):
    """Return the values with another one at this dotted key."""
    name, _, subkey = key.partition(".")
    new = change_value(values[name], subkey) if subkey else [values[name], "changed"]
    return {**values, name: new}


def reverse_keys(values):
    """Return the values with the keys of every dictionary in reverse order."""
    if not isinstance(values, dict):
        return values
    return {key: reverse_keys(values[key]) for key in reversed(values)}


SETTINGS = training_config(load_experiment(PARAMS, "nmr_srt", "quick"), "0123")


def test_the_fingerprint_changes_with_every_value_of_a_training_and_not_with_their_order():
    keys = list(leaves(SETTINGS))
    assert {"seed", "data", "train.steps", "model.heads", "dataset.synthetic.train"} <= set(keys)
    assert len({fingerprint(change_value(SETTINGS, key)) for key in keys}) == len(keys)
    assert fingerprint(SETTINGS) not in {fingerprint(change_value(SETTINGS, key)) for key in keys}
    assert fingerprint(reverse_keys(SETTINGS)) == fingerprint(SETTINGS)


def test_differences_name_the_keys_that_differ_and_only_those():
    assert differences(SETTINGS, reverse_keys(SETTINGS)) == []
    for key in leaves(SETTINGS):
        (difference,) = differences(SETTINGS, change_value(SETTINGS, key))
        assert difference.startswith(f"{key}: ")
    assert differences({"train": {"steps": 10}}, {"train": {"steps": 20}, "seed": 0}) == [
        "seed: 'absent' here, 0 there",
        "train.steps: 10 here, 20 there",
    ]

    # JSON has no tuples, so a list of equal values is no difference.
    assert differences({"size": (15, 20)}, {"size": [15, 20]}) == []
