"""The whole pipeline at its smallest size, in copies of the repository.

Its only experiment is nmr_srt of the profile `quick`, on synthetic scenes of 16 x 16 pixels.
"""

import csv
import shutil
import time

import psutil
from support.repository_copy import Copy

WIDTHS = ("conv_channels", "decoder_hidden", "head_dim", "latent_dim", "mlp_dim")

# What is changed in params.yaml.
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
    "profiles.quick.weights": {name: {"source": None} for name in ("lpips_vgg", "lpips_alex")},
    "profiles.quick.render": {"frames": 4, "fps": 4, "scenes": [0], "height": 16, "width": 16},
}

# A training that lasts long enough to be killed in the middle.
LONGER = {
    "steps": 1000,
    "validate_every": 500,
    "picture_every": 1000,
    "log_every": 100,
    "checkpoint_every": 20,
}

SNAKEMAKE = ("snakemake", "--cores", "1", "results")  # sets OMP_NUM_THREADS to 1
DVC = ("dvc", "repro")
MODEL = "outputs/quick/nmr_srt/model.safetensors"

# A closed port in place of a tracking server: this takes less time than a new store.
NOWHERE = "http://127.0.0.1:9"

# The last bits of the weights depend on the number of threads.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
DEADLINE = 120  # seconds, for what usually takes one

# Columns of results.csv that depend on the machine.
COSTS = (
    "training_seconds",
    "encode_seconds",
    "frame_seconds",
    "gpu_hours",
    "joules",
    "training_peak_gigabytes",
)


def tiny_copy(folder):
    """Return a copy whose pipeline runs in a minute, without a tracking server."""
    folder.mkdir(exist_ok=True)
    copy = Copy(folder)
    copy.reduce_params("nmr_srt")
    copy.edit_params(TINY)
    copy.variables |= ONE_THREAD | {"MLFLOW_TRACKING_URI": NOWHERE, "SHELL": "/bin/sh"}
    return copy


def read_results(copy):
    """Return the rows of results.csv without what depends on the machine."""
    text = (copy.folder / "reports/quick/results.csv").read_text()
    table = list(csv.DictReader(text.splitlines()))
    assert all(cost in table[0] for cost in COSTS)
    return [{key: row[key] for key in row if key not in COSTS} for row in table]


def duplicate(copy, folder):
    """Return a copy of a copy with all results in it, but without resume states."""
    shutil.copytree(copy.folder, folder, symlinks=True)
    shutil.rmtree(folder / "ckpt", ignore_errors=True)

    # Its constructor would copy the repository.
    twin = Copy.__new__(Copy)
    twin.folder = folder
    twin.variables = copy.variables
    return twin


def running_stages(copy):
    """Return the names of the stages that run in a copy, by process."""
    stages = {}
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = process.info["cmdline"] or []
        names = [word for word in command if word.startswith("workflow.")]
        if names and process.info["cwd"] == str(copy.folder):
            stages[process.pid] = names[0].removeprefix("workflow.")
    return stages


def wait_until(condition, process=None):
    """Return when a condition is true; fail at the deadline, or if the process ends before."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        assert process is None or process.poll() is None
        time.sleep(0.05)
