"""A packed dataset of a few 16 x 16 images, and a model that trains on it in a second."""

import contextlib
import dataclasses

import numpy as np
import torch
import yaml
from support import small_packed
from support.paths import PARAMS

from srt.common.distributed import Processes, StopRequest
from srt.config.load import load_experiment
from srt.data.packed.reader import Scenes
from srt.geometry.cameras import look_at, pinhole
from srt.model.weights import save_weights, training_config
from srt.tracking.tracker import Tracker
from srt.training.loop import Requests, TrainingData, fit
from srt.training.states import state_folder

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU, None)
VIEWS = 4  # of a scene
SIZE = 16  # of an image: rows and columns
SPLITS = {"train": 5, "val": 3, "test": 3}  # numbers of scenes

# The smallest model that still has every component.
MODEL = {
    "frame": "canonical",
    "position_octaves": 3,
    "position_start_octave": -1,
    "direction_octaves": 3,
    "conv_blocks": 2,
    "conv_channels": 4,
    "latent_dim": 16,
    "heads": 2,
    "head_dim": 8,
    "mlp_dim": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "decoder_hidden": 8,
}

# What changes MODEL into each of the models.
VARIANTS = {
    "srt": {},
    "isrt": {"name": "isrt", "query_hidden": 12, "decoder_hidden_layers": 2},
    "vsrt": {"name": "vsrt", "coarse_samples": 6, "fine_samples": 4},
    "vsrt, two nets": {
        "name": "vsrt",
        "coarse_samples": 6,
        "fine_samples": 4,
        "separate_fine_net": True,
    },
}

# Eight steps in which everything happens. Logs come every three steps, validations and saves every
# two, so that there are steps with one of them, with both and with none.
TRAIN = {
    "steps": 8,
    "batch_size": 4,
    "rays_per_scene": 96,
    "rays_per_group": 192,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "decay_steps": 8,
    "log_every": 3,
    "validate_every": 2,
    "validation_items": 3,
    "picture_every": 8,
    "checkpoint_every": 2,
}


@contextlib.contextmanager
def one_thread():
    """Compute with one thread: with several, such small tensors take longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_params(path, model=None, **train):
    """Write a params.yaml whose profile `quick` is this small, and return `path`.

    Args:
        model, train: changes of the model's and the training's settings. The model's may have a
            `name`, which makes it the model of experiment `nmr_srt`.
    """
    params = yaml.safe_load(PARAMS.read_text())
    quick = params["profiles"]["quick"]
    quick["datasets"]["nmr"] |= {"image_size": [SIZE, SIZE], "views": VIEWS}
    quick["experiments"] = {}
    changes = dict(model or {})
    params["experiments"]["nmr_srt"]["model"] = changes.pop("name", "srt")
    quick["model"] |= MODEL | changes
    quick["train"] |= TRAIN | train
    path.write_text(yaml.safe_dump(params))
    return path


def tiny_experiment(folder, model=None, **train):
    """Return the experiment `nmr_srt` at this size, with changes as in `write_params`."""
    return load_experiment(write_params(folder / "params.yaml", model, **train), "nmr_srt", "quick")


def write_packed(folder, source_view=None):
    """Write a packed dataset of coloured gradients and return `folder`."""
    for seed, (split, scenes) in enumerate(SPLITS.items()):
        write_split(folder / split, scenes, np.random.default_rng(seed), source_view)
    (folder / "manifest.json").write_text("{}")
    return folder


def write_split(folder, scenes, rng, source_view):
    """Write a split of some scenes.

    The first two cameras of a scene have the same position, and look at the scene's centre. Only
    the first one is rolled about its axis.
    """
    # Each view has a random colour that grows with the rows, and another one with the columns.
    ramp = np.linspace(0, 200, SIZE)
    image = ramp[:, None, None] * rng.random((scenes, VIEWS, 1, 1, 3))
    image = image + ramp[None, :, None] * rng.random((scenes, VIEWS, 1, 1, 3))

    # Random cameras that look at the centre.
    positions = torch.from_numpy(rng.normal((2, 0, 1), size=(scenes, VIEWS, 3)))
    positions[:, 1] = positions[:, 0]
    poses = look_at(positions, torch.zeros_like(positions))

    # Roll the first camera.
    roll = torch.eye(4, dtype=torch.float64)
    roll[:2, :2] = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    poses[:, 0] = poses[:, 0] @ roll
    intrinsics = pinhole(1.5, 1.0, SIZE, SIZE).expand(scenes, VIEWS, 3, 3)
    small_packed.write_split(
        folder,
        image.clip(0, 255).astype(np.uint8),
        intrinsics,
        poses,
        names=[f"s{number}" for number in range(scenes)],
        classes=("cube", "ball"),
        source_view=source_view,
    )


def read_packed(folder):
    """Return the splits of `write_packed` that a training reads."""
    return TrainingData(Scenes(folder / "train", CPU), Scenes(folder / "val", CPU))


class NeverStop(StopRequest):
    """A request that never comes. It leaves the signal handlers of the test run as they are."""

    def __init__(self):
        self.number = 0


def make_config(experiment):
    """Return the configuration that the states of this experiment's training have."""
    return training_config(experiment, "digest of the data")


def states_folder_of(states, experiment):
    """Return the folder of the experiment's states below the folder `states`."""
    return state_folder(states, experiment, make_config(experiment))


def train(experiment, data, states, stop_after=None):
    """Train, or go on from the last state, as `workflow.train` does."""
    folder = states_folder_of(states, experiment)
    config = make_config(experiment)
    requests = Requests(stop_after=stop_after)
    return fit(experiment, config, data, folder, Tracker(), ALONE, NeverStop(), requests)


def weights_file(training, path):
    """Write the best weights of a training to `path` and return the file's bytes."""
    save_weights(path, training.best, make_config(training.experiment))
    return path.read_bytes()


def change_train(experiment, **train):
    """Return the experiment with changes of its training's settings."""
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, **train))
