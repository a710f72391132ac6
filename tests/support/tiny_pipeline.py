"""The whole pipeline at its smallest, in copies of the repository, and what they are asked."""

import csv
import shutil
import time

import psutil
from support.repository_copy import Copy

WIDTHS = ("conv_channels", "decoder_hidden", "head_dim", "latent_dim", "mlp_dim")
TINY = {
    "profiles.quick.experiments": {},
    "datasets.nmr.views": 6,
    "profiles.quick.datasets.nmr.image_size": [16, 16],
    "profiles.quick.datasets.nmr.synthetic": {"scene": "object", "train": 6, "val": 3, "test": 3},
    **{f"profiles.quick.model.{width}": 8 for width in WIDTHS},
    "profiles.quick.model.heads": 1,
    "profiles.quick.model.encoder_layers": 1,
    "profiles.quick.train": {
        "steps": 6,
        "batch_size": 2,
        "rays_per_scene": 16,
        "rays_per_group": 1024,
        "learning_rate": 1.0e-3,
        "warmup_steps": 2,
        "decay_steps": 6,
        "log_every": 1,
        "validate_every": 3,
        "validation_items": 3,
        "picture_every": 6,
        "checkpoint_every": 2,
    },
    "profiles.quick.render": {"frames": 4, "fps": 4, "scenes": [0], "height": 16, "width": 16},
}
LONGER = {
    "steps": 1000,
    "validate_every": 500,
    "picture_every": 1000,
    "log_every": 100,
    "checkpoint_every": 20,
}
SNAKEMAKE = ("snakemake", "--cores", "1", "results")  # it sets OMP_NUM_THREADS to that
DVC = ("dvc", "repro")
MODEL = "outputs/quick/nmr_srt/model.safetensors"
NOWHERE = "http://127.0.0.1:9"  # a closed port: costs less than a new store
ONE_THREAD = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # the same last bits
DEADLINE = 120  # seconds, for what takes one


def tiny_copy(folder):
    """Returns a copy whose only experiment is made in a minute, with no tracking server."""
    folder.mkdir(exist_ok=True)
    copy = Copy(folder)
    copy.keep("nmr_srt")
    copy.edit_params(TINY)
    copy.variables |= ONE_THREAD | {"MLFLOW_TRACKING_URI": NOWHERE, "SHELL": "/bin/sh"}
    return copy


def rows(copy):
    """Returns results.csv without what the training cost."""
    text = (copy.folder / "reports/quick/results.csv").read_text().splitlines()
    costs = ("training_seconds", "encode_seconds", "frame_seconds", "gpu_hours", "joules")
    costs += ("training_peak_gigabytes",)
    table = list(csv.DictReader(text))
    assert all(cost in table[0] for cost in costs)
    return [{key: row[key] for key in row if key not in costs} for row in table]


def copied(copy, folder):
    """Returns a copy with everything that is made in it, but for the states of its trainings."""
    shutil.copytree(copy.folder, folder, symlinks=True)
    shutil.rmtree(folder / "ckpt", ignore_errors=True)
    twin = Copy.__new__(Copy)
    twin.folder, twin.variables = folder, copy.variables
    return twin


def stages_in(copy):
    """Returns the stages that run in a copy, by process."""
    found = {}
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = process.info["cmdline"] or []
        names = [word for word in command if word.startswith("workflow.")]
        if names and process.info["cwd"] == str(copy.folder):
            found[process.pid] = names[0].removeprefix("workflow.")
    return found


def wait_until(happened, process=None):
    """Returns once something has happened; fails if the process ends before, or at the deadline."""
    end = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < end
        assert process is None or process.poll() is None
        time.sleep(0.05)
