"""Files as version 0.2.0 wrote them: their configuration has the keys of all models."""

from srt.common.fingerprint import fingerprint
from srt.model.weights import read_tensors, write_tensors

# The keys of vsrt, with the values that they had in the other models.
KEYS_OF_ALL = {"coarse_samples": 128, "fine_samples": 64, "separate_fine_net": False}


def old_config(config):
    """Return the configuration of a training as version 0.2.0 recorded it."""
    return config | {"model": KEYS_OF_ALL | config["model"]}


def rewrite_in_old_form(path):
    """Give a file of weights or a state the configuration that version 0.2.0 recorded."""
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, header | {"config": old_config(header["config"])})


def rewrite_states_in_old_form(folder, config):
    """Turn a folder of states into one that version 0.2.0 wrote, and return its new path."""
    for path in folder.glob("state-*"):
        rewrite_in_old_form(path)
    return folder.rename(folder.with_name(fingerprint(old_config(config))))
