"""Models in params.yaml: each has its own keys, an experiment names one, a profile changes all."""

import dataclasses

import pytest
from support.broken_params import PARAMS, RAW, write_edited_params

from srt.config.load import load_experiment, load_params
from srt.config.schema import MODELS, IsrtConfig, ModelConfig, SrtConfig, VsrtConfig
from srt.config.strict import ConfigError

VSRT_KEYS = {"coarse_samples": 4, "fine_samples": 2, "separate_fine_net": False}


def load_model_config(path, experiment, profile):
    return load_experiment(path, experiment, profile).model


def edit_model(folder, name, value):
    """Return the message with which params.yaml is refused after one value was changed."""
    path = write_edited_params(folder, (name, value))
    with pytest.raises(ConfigError) as error:
        load_params(path)
    text = str(error.value)
    assert text.startswith(f"{path}: {name}")
    return text


def test_every_model_has_a_class_of_its_own_that_allows_only_its_name():
    assert {"srt": SrtConfig, "isrt": IsrtConfig, "vsrt": VsrtConfig}.items() <= MODELS.items()
    assert len(set(MODELS.values())) == len(MODELS)
    for name, config in MODELS.items():
        assert issubclass(config, ModelConfig)
        assert RAW["models"][name].keys() | {"name"} == {
            field.name for field in dataclasses.fields(config)
        }


@pytest.mark.parametrize("name", MODELS)
def test_an_experiment_that_only_names_a_model_has_the_settings_of_models(tmp_path, name):
    path = write_edited_params(tmp_path, ("experiments.nmr_srt.model", name))
    model = load_model_config(path, "nmr_srt", "paper")
    assert type(model) is MODELS[name]
    for key, value in RAW["models"][name].items():
        assert getattr(model, key) == (tuple(value) if isinstance(value, list) else value)


def test_an_experiment_changes_single_settings_of_its_model(tmp_path):
    path = write_edited_params(
        tmp_path, ("experiments.nmr_srt.model", {"name": "isrt", "heads": 2})
    )
    unchanged = load_model_config(PARAMS, "nmr_isrt", "paper")
    changed = load_model_config(path, "nmr_srt", "paper")
    assert changed == dataclasses.replace(unchanged, heads=2)


@pytest.mark.parametrize("key", VSRT_KEYS)
@pytest.mark.parametrize("name", ["srt", "isrt"])
def test_a_key_of_another_model_is_refused_with_the_keys_of_this_one(tmp_path, name, key):
    keys = ", ".join(RAW["models"][name])
    text = edit_model(tmp_path, f"models.{name}.{key}", VSRT_KEYS[key])
    assert f".{key}: unknown key; possible keys: {keys}" in text

    value = {"name": name, key: VSRT_KEYS[key]}
    path = write_edited_params(tmp_path, ("experiments.nmr_srt.model", value))
    expected = f"experiments.nmr_srt.model.{key}: unknown key; possible keys: name, frame, "
    with pytest.raises(ConfigError, match=expected):
        load_params(path)

    section = f"profiles.quick.experiments.nmr_{name}.model.{key}"
    assert f": unknown key; possible keys: {keys}" in edit_model(tmp_path, section, VSRT_KEYS[key])


def test_a_model_without_a_name_is_refused(tmp_path):
    text = edit_model(tmp_path, "experiments.nmr_srt.model", {"frame": "world"})
    assert "experiments.nmr_srt.model: the key name is missing" in text


def test_no_model_is_added_that_has_no_class(tmp_path):
    text = edit_model(tmp_path, "models.nerf", RAW["models"]["srt"])
    assert f"models.nerf: unknown key; possible keys: {', '.join(MODELS)}" in text


def test_a_profile_changes_all_models_and_each_skips_the_keys_of_others(tmp_path):
    changes = {"latent_dim": 32, "coarse_samples": 7}
    path = write_edited_params(tmp_path, ("profiles.paper.model", changes))
    for name in MODELS:
        expected = dataclasses.replace(
            load_model_config(PARAMS, f"nmr_{name}", "paper"),
            latent_dim=32,
            **({"coarse_samples": 7} if name == "vsrt" else {}),
        )
        assert load_model_config(path, f"nmr_{name}", "paper") == expected


def test_a_profile_changes_the_model_of_one_experiment_last(tmp_path):
    path = write_edited_params(
        tmp_path,
        ("profiles.paper.model", {"heads": 2}),
        ("profiles.paper.experiments", {"nmr_srt": {"model": {"heads": 3}}}),
    )
    assert load_model_config(path, "nmr_srt", "paper").heads == 3
    assert load_model_config(path, "msn_srt", "paper").heads == 2


@pytest.mark.parametrize("section", ["profiles.quick", "profiles.quick.experiments.nmr_srt"])
def test_a_profile_does_not_exchange_the_model_of_an_experiment(tmp_path, section):
    text = edit_model(tmp_path, f"{section}.model.name", "isrt")
    assert "model.name: unknown key; possible keys: frame, " in text
