"""Everything that runs log arrives in MLflow, in order and once, even after kills and outages."""

import json
import logging
import shutil
import socket
import threading

import numpy as np
import pytest
from PIL import Image
from support.mlflow_store import Store

from srt.tracking.delivery import deliver

PICTURE = np.full((32, 48, 3), 200, np.uint8)


def log_steps(tracker, first, last):
    for step in range(first, last + 1):
        tracker.log_metrics({"loss": 1 / step, "rate": 0.5}, step)


def expected_points(last):
    """Return the steps and losses that `log_steps` logs from step 1 on."""
    return [(step, 1 / step) for step in range(1, last + 1)]


def address_without_server():
    """Return an address at which no server listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_run_shows_its_metrics_parameters_tags_and_status(store):
    tracker = store.open_run()
    log_steps(tracker, 1, 5)
    tracker.set_tags({"best_step": "5"})
    tracker.close("FINISHED")
    run = store.run()
    assert store.points() == expected_points(5)
    assert run.data.params == {"seed": "0", "model.latent_dim": "64", "model.heads": "2"}
    assert run.data.tags["synthetic"] == "yes"
    assert run.data.tags["best_step"] == "5"
    assert run.data.tags["mlflow.note.content"] == "SRT on synthetic NMR"
    assert (run.info.run_name, run.info.status) == ("nmr_srt", "FINISHED")


def test_artifacts_pictures_and_datasets_arrive(store):
    # A stage's outputs may be deleted before they are sent.
    tracker = store.open_run()
    table = store.root / "metrics.json"
    table.write_text("{}")
    tracker.log_artifact(table, "tables")
    table.unlink()
    for step in (10, 20):
        tracker.log_image("val/prediction", PICTURE, step)
    source = {"uri": "data/quick/packed/nmr/train", "origin": "synthetic"}
    tracker.log_dataset("nmr", "f" * 64, source, "training", {"scenes": 320})
    tracker.close("FINISHED")

    run = store.run()
    assert run.info.artifact_uri.startswith((store.root / "mlruns").as_uri())
    assert store.files("tables") == ["tables/metrics.json"]
    pictures = [file for file in store.files("images") if file.endswith(".png")]
    assert [int(file.split("+")[2]) for file in pictures] == [10, 20]
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.tags[0].value) == ("nmr", "training")
    assert json.loads(dataset.dataset.source) == source
    assert json.loads(dataset.dataset.profile) == {"scenes": 320}


def test_a_run_that_is_killed_and_repeats_steps_logs_each_once(store):
    # The state of step 7 is saved, but the kill comes before its lines are released.
    killed = store.open_run()
    log_steps(killed, 1, 4)
    killed.release()
    log_steps(killed, 5, 9)
    deliver(killed.folder, store.root)
    assert store.points() == expected_points(4)
    assert store.run().info.status == "RUNNING"

    resumed = store.open_run()
    resumed.rewind(7)
    log_steps(resumed, 8, 12)
    resumed.close("FINISHED")
    assert store.points() == expected_points(12)
    assert store.run().info.status == "FINISHED"


def test_resuming_from_an_older_state_than_was_sent_logs_nothing_twice(store):
    tracker = store.open_run()
    log_steps(tracker, 1, 6)
    tracker.log_image("prediction", PICTURE, step=6)
    tracker.release()
    deliver(tracker.folder, store.root)

    # The newer state is damaged, so training resumes from step 2.
    resumed = store.open_run()
    resumed.rewind(2)
    log_steps(resumed, 3, 8)
    resumed.log_image("prediction", PICTURE, step=6)
    resumed.close("FINISHED")
    assert store.points() == expected_points(8)
    assert len(store.files("images")) == 2  # one picture and its preview


def test_an_interrupted_delivery_is_finished_without_duplicates(store, monkeypatch):
    from mlflow import MlflowClient

    tracker = store.open_run()
    log_steps(tracker, 1, 40)
    tracker.release()
    monkeypatch.setattr("srt.tracking.delivery.METRICS_PER_BATCH", 25)
    log_batch = MlflowClient.log_batch
    calls = []

    # The parameters and one batch are recorded. The third call is sent, but not recorded.
    def send_and_die(self, *arguments, **options):
        log_batch(self, *arguments, **options)
        calls.append(options)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", send_and_die)
        with pytest.raises(KeyboardInterrupt):
            deliver(tracker.folder, store.root)
    assert 0 < len(store.points()) < 40
    deliver(tracker.folder, store.root)
    assert store.points() == expected_points(40)
    assert store.points("rate") == [(step, 0.5) for step in range(1, 41)]


def test_a_picture_whose_preview_was_not_sent_gets_it_and_occurs_once(store, monkeypatch):
    save = Image.Image.save

    def save_or_die(self, path, *arguments, **options):
        if str(path).endswith(".webp"):
            raise KeyboardInterrupt
        save(self, path, *arguments, **options)

    tracker = store.open_run()
    tracker.log_image("val/prediction", PICTURE, step=10)
    tracker.release()
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            deliver(tracker.folder, store.root)
    (picture,) = store.files("images")

    # The next delivery sends the preview of the first picture, and a second picture with its own.
    tracker.log_image("val/prediction", PICTURE, step=20)
    tracker.close("FINISHED")
    first = [file for file in store.files("images") if "+step+10+" in file]
    assert first == [f"{picture.removesuffix('.png')}+compressed.webp", picture]
    assert len(store.files("images")) == 4
    preview = store.client.download_artifacts(store.run().info.run_id, first[0])
    with Image.open(preview) as image:
        assert image.size == (48, 32)
    assert store.run().data.tags["mlflow.loggedImages"] == "True"


def test_a_delivery_that_dies_after_it_created_the_run_leaves_one_run(store, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    tracker = store.open_run()
    with monkeypatch.context() as patch:
        patch.setattr("srt.tracking.delivery.write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            deliver(tracker.folder, store.root)
    tracker.close("FINISHED")
    assert store.run().info.status == "FINISHED"


def test_lines_that_were_logged_without_a_server_arrive_later(store, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address_without_server())
    training = store.open_run()
    log_steps(training, 1, 3)
    with caplog.at_level(logging.WARNING):
        training.close("FINISHED")
    (message,) = caplog.messages
    assert str(training.folder) in message
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    store.open_run().close("FINISHED")
    assert store.points() == expected_points(3)


def test_later_stages_continue_the_run(store):
    training = store.open_run()
    log_steps(training, 1, 2)
    training.close("FINISHED")
    first = store.run().info.run_id
    rendering = store.open_run()
    rendering.log_metrics({"frames": 60}, step=2)
    rendering.close("FINISHED")
    assert store.run().info.run_id == first
    assert store.points("frames") == [(2, 60.0)]


def test_stages_that_end_at_the_same_moment_share_the_run(store):
    trackers = [store.open_run() for _ in range(4)]
    for index, tracker in enumerate(trackers):
        tracker.log_metrics({f"stage_{index}": 1.0}, step=1)
    threads = [threading.Thread(target=tracker.close, args=("FINISHED",)) for tracker in trackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.run().data.metrics) == 4


def test_a_failed_run_has_that_status_until_it_is_resumed(store):
    tracker = store.open_run()
    log_steps(tracker, 1, 2)
    tracker.release()
    log_steps(tracker, 3, 4)
    tracker.close("FAILED")
    assert store.run().info.status == "FAILED"
    assert store.points() == expected_points(2)

    resumed = store.open_run()
    resumed.rewind(2)
    deliver(resumed.folder, store.root)
    assert store.run().info.status == "RUNNING"


def test_a_deleted_run_is_created_again_with_everything(store):
    tracker = store.open_run()
    log_steps(tracker, 1, 3)
    tracker.close("FINISHED")
    first = store.run().info.run_id
    store.client.delete_run(first)
    store.open_run().close("FINISHED")
    assert store.run().info.run_id != first
    assert store.points() == expected_points(3)
    assert store.run().data.params["seed"] == "0"


def test_another_store_gets_everything_again(store, database, monkeypatch):
    tracker = store.open_run()
    log_steps(tracker, 1, 3)
    tracker.close("FINISHED")

    second_store = Store(store.root / "second")
    second_store.root.mkdir()
    shutil.copy(database, second_store.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{second_store.root}/mlflow.db")
    store.open_run().close("FINISHED")
    assert second_store.points() == expected_points(3)


def test_runs_of_one_parent_are_children_of_one_run(store):
    for number in range(3):
        store.open_run(f"ckpt/{number}", parent="nmr_srt: dvc exp from 0123456").close("FINISHED")
    parents = [run for run in store.runs() if run.info.run_name.startswith("nmr_srt: dvc")]
    (parent,) = parents
    assert parent.info.status == "FINISHED"
    children = [run for run in store.runs() if run.info.run_id != parent.info.run_id]
    assert len(children) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}


def test_processes_that_begin_at_the_same_moment_end_with_one_parent(store):
    trackers = [store.open_run(f"ckpt/{number}", parent="a sweep") for number in range(4)]
    threads = [threading.Thread(target=tracker.close, args=("FINISHED",)) for tracker in trackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (parent,) = [run for run in store.runs() if run.info.run_name == "a sweep"]
    tags = [run.data.tags.get("mlflow.parentRunId") for run in store.runs()]
    assert tags.count(parent.info.run_id) == 4


def test_each_run_has_a_colour_of_its_own(store):
    for number in range(4):
        store.open_run(f"ckpt/{number}").close("FINISHED")
    assert len({run.data.tags["mlflow.runColor"] for run in store.runs()}) == 4
