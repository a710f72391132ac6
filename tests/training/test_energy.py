"""What a training costs: energy is the difference of two readings of a counter, or unknown."""

import sys
from types import SimpleNamespace

import pytest
import torch
from support.tiny_training import (
    CPU,
    make_config,
    one_thread,
    read_packed,
    states_folder_of,
    tiny_experiment,
    train,
    write_packed,
)

from srt.training.energy import EnergyMeter, max_if_known, peak_gigabytes, sum_if_known
from srt.training.states import load_latest_state, save_state

GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture
def counter(monkeypatch):
    """A GPU whose energy NVIDIA's library reads from `counter.millijoules`."""
    import pynvml

    gpu = SimpleNamespace(millijoules=1_000_000)
    properties = SimpleNamespace(uuid="0123-4567")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", {"GPU-0123-4567": gpu}.__getitem__)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: handle.millijoules
    )
    return gpu


def test_the_memory_of_a_training_is_the_peak_of_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {GPU: 6_661_569_536}.__getitem__)
    assert peak_gigabytes(GPU) == 6.662
    assert peak_gigabytes(CPU) is None


def test_energy_counts_from_when_the_meter_was_made(counter):
    meter = EnergyMeter(GPU)
    counter.millijoules += 2500
    assert meter.joules() == 2.5


def test_a_gpu_that_does_not_count_has_no_energy(counter, monkeypatch):
    import pynvml

    def refuse(handle):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    meter = EnergyMeter(GPU)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", refuse)
    assert meter.joules() is None
    assert EnergyMeter(GPU).joules() is None


def test_without_nvidias_library_or_a_gpu_there_is_no_energy(counter, monkeypatch):
    assert EnergyMeter(CPU).joules() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter(GPU).joules() is None


def test_a_sum_or_a_maximum_with_an_unknown_term_is_unknown():
    assert sum_if_known([1.5, 2.0, 0.0]) == 3.5
    assert sum_if_known([1.5, None, 2.0]) is None
    assert max_if_known([1.5, 2.0, 0.0]) == 2.0
    assert max_if_known([1.5, None, 2.0]) is None


class SevenJoules:
    """A meter that counts seven joules in each call of a training."""

    def __init__(self, device):
        pass

    def joules(self):
        return 7.0


def test_energy_used_before_a_training_was_stopped_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("srt.training.energy.EnergyMeter", SevenJoules)
    data, experiment = read_packed(write_packed(tmp_path / "packed")), tiny_experiment(tmp_path)
    assert train(experiment, data, tmp_path / "states", stop_after=3).joules == 7.0
    assert train(experiment, data, tmp_path / "states").joules == 14.0


def test_the_memory_of_a_training_is_the_largest_peak_of_its_calls(tmp_path, monkeypatch):
    data, experiment = read_packed(write_packed(tmp_path / "packed")), tiny_experiment(tmp_path)
    for peak, stop_after, most in ((4.0, 3, 4.0), (6.5, 5, 6.5), (2.0, None, 6.5)):
        monkeypatch.setattr("srt.training.energy.peak_gigabytes", lambda device, peak=peak: peak)
        training = train(experiment, data, tmp_path / "states", stop_after=stop_after)
        assert training.peak_gigabytes == most

    # A finished training does no further step, so the memory of another call does not count.
    monkeypatch.setattr("srt.training.energy.peak_gigabytes", lambda device: 9.0)
    assert train(experiment, data, tmp_path / "states").peak_gigabytes == 6.5


def test_a_training_whose_first_call_was_not_measured_has_no_energy(tmp_path, monkeypatch):
    # The first call is on a CPU, which counts nothing. Its state becomes one of an older version,
    # which has no cost at all.
    data, experiment = read_packed(write_packed(tmp_path / "packed")), tiny_experiment(tmp_path)
    assert train(experiment, data, tmp_path / "states", stop_after=3).joules is None
    monkeypatch.setattr("srt.training.energy.EnergyMeter", SevenJoules)
    folder = states_folder_of(tmp_path / "states", experiment)
    state = load_latest_state(folder, make_config(experiment))
    del state.progress["joules"], state.progress["peak_gigabytes"]
    save_state(folder, state, make_config(experiment))

    # The second call is measured, but what the first one used is unknown.
    training = train(experiment, data, tmp_path / "states")
    assert training.joules is None
    assert training.peak_gigabytes is None
