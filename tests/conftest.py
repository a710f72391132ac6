"""What all tests share: checked shapes, and an empty MLflow store.

During the tests, every call of a function of `srt` is checked against the shapes in its signature.
"""

import shutil

import pytest
from jaxtyping import install_import_hook

install_import_hook("srt", "beartype.beartype")


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """The path of an empty MLflow store, for tests to copy: to make its tables takes 8 s."""
    from srt.tracking.delivery import _create_database

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    _create_database(path)
    return path


@pytest.fixture
def store(tmp_path, database, monkeypatch):
    """An MLflow store for one test."""
    from support.mlflow_store import Store

    # Where a server does not answer, MLflow gives up at once instead of after minutes.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    shutil.copy(database, tmp_path)
    return Store(tmp_path)
