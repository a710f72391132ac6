"""Checks the shapes that every signature of `srt` states, for the whole test run.

And makes the tables of an MLflow store once: that takes 8 s.
"""

import shutil

import pytest
from jaxtyping import install_import_hook

install_import_hook("srt", "beartype.beartype")


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """Returns the path of an empty store, to be copied."""
    from srt.tracking.delivery import _create_database

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    _create_database(path)
    return path


@pytest.fixture
def store(tmp_path, database, monkeypatch):
    """Returns a store of the test's own; a server that is away is given up at once."""
    from support.mlflow_store import Store

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    shutil.copy(database, tmp_path)
    return Store(tmp_path)
