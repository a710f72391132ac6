"""Many trainings log to one server with PostgreSQL, and nothing is lost or logged twice."""

import contextlib
import importlib.util
import multiprocessing
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from support import small_server

WRITERS = 8
STEPS = 600
PICTURES = 3  # of each writer

# The folder in which Debian's package has the programs.
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def database():
    """Start a PostgreSQL that listens on no port, and return the address of a database."""
    if not PROGRAMS or not importlib.util.find_spec("psycopg2"):
        pytest.skip("needs Debian's postgresql and the package psycopg2-binary")

    # PostgreSQL refuses to run as root. The path of its socket must be short.
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    shutil.chown(folder, user)
    data, options = folder / "data", f"-c listen_addresses= -c unix_socket_directories={folder}"

    def control(program, *arguments):
        command = [PROGRAMS[-1] / program, "-D", data, *arguments]
        subprocess.run(command, user=user, check=True, capture_output=True, cwd=folder)

    control("initdb", "--auth=trust", "--username=mlflow", "--encoding=UTF8", "--locale=C")
    control("pg_ctl", "-w", "-l", folder / "log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg2://mlflow@/postgres?host={folder}"
    finally:
        control("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def write(number, root, address):
    """Log a run as training does, with a delivery at every saved state."""
    from srt.tracking.tracker import open_tracker

    os.environ["MLFLOW_TRACKING_URI"] = address
    names = {"experiment": "paper: nmr", "description": "", "tags": {"writer": str(number)}}
    tracker = open_tracker(
        root / str(number),
        root=root,
        run_name=f"writer {number}",
        parameters={"seed": number},
        parent="writers",
        **names,
    )
    for step in range(1, STEPS + 1):
        tracker.log_metrics({"loss": number + 1 / step, "rate": 0.5}, step)
        if step % (STEPS // PICTURES) == 0:
            tracker.log_image("views/validation", np.zeros((8, 8, 3), np.uint8), step)
            tracker.release()
            tracker.deliver_in_background()
    tracker.close("FINISHED", timeout=300)


def test_eight_concurrent_writers_have_every_point_once(tmp_path, database):
    from mlflow import MlflowClient

    server = small_server.Server(database, tmp_path / "files")
    with contextlib.ExitStack() as stack:
        stack.enter_context(server.running())
        spawn = multiprocessing.get_context("spawn")
        arguments = [(number, tmp_path, server.address) for number in range(WRITERS)]
        writers = [spawn.Process(target=write, args=values) for values in arguments]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0

        # All runs are below one parent.
        client = MlflowClient(server.address)
        experiment = client.get_experiment_by_name("paper: nmr")
        runs = client.search_runs([experiment.experiment_id], order_by=["params.seed ASC"])
        (parent,) = [run for run in runs if run.info.run_name == "writers"]
        children = [run for run in runs if run is not parent]
        assert [run.data.params["seed"] for run in children] == list(map(str, range(WRITERS)))

        # Each run has all its points and pictures.
        for number, run in enumerate(children):
            assert run.info.status == "FINISHED"
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            history = client.get_metric_history(run.info.run_id, "loss")
            points = [(point.step, point.value) for point in history]
            assert points == [(step, number + 1 / step) for step in range(1, STEPS + 1)]
            files = client.list_artifacts(run.info.run_id, "images")
            assert len([file for file in files if file.path.endswith(".png")]) == PICTURES
