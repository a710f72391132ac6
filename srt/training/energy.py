"""What a training costs: seconds, joules by the GPUs' own counters, and GPU memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch

from srt.common.distributed import Processes
from srt.training.state import TrainingState

log = logging.getLogger(__name__)


class CostMeter:
    """Adds the cost of this call of a training to the cost of its earlier calls.

    A training that is stopped and goes on is one training: its cost is that of all its calls,
    without the time between them.
    """

    def __init__(self, training: TrainingState, processes: Processes) -> None:
        self.training = training
        self.processes = processes

        # What the earlier calls cost, as the resume state says. The clock starts that much earlier.
        self.start_time = time.monotonic() - training.seconds
        self.earlier_joules = training.joules
        self.earlier_peak = training.peak_gigabytes
        self.energy_meter = EnergyMeter(processes.device)

    def measure_seconds(self) -> None:
        """Set the seconds of the training to those up to now."""
        self.training.seconds = time.monotonic() - self.start_time

    def measure(self) -> None:
        """Set seconds, joules and peak memory of the training to those up to now.

        All processes must call this, because energy and memory are those of all GPUs.
        """
        # Energy is added up over calls and GPUs. Memory is that of the call and GPU with the most.
        self.measure_seconds()
        joules = self.processes.gather(self.energy_meter.joules())
        self.training.joules = sum_if_known([self.earlier_joules, *joules])
        peaks = self.processes.gather(peak_gigabytes(self.processes.device))
        self.training.peak_gigabytes = max_if_known([self.earlier_peak, *peaks])


class EnergyMeter:
    """Counts the energy of one GPU's board from now on, whichever process uses the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self._read_millijoules()

    def joules(self) -> float | None:
        """Return the energy since this meter was made, or None if nothing counts it."""
        now = self._read_millijoules()
        return None if now is None or self.start is None else (now - self.start) / 1000

    def _read_millijoules(self) -> int | None:
        """Return the GPU's counter, or None if it cannot be read."""
        if self.device.type != "cuda":
            return None
        try:
            import pynvml

            # NVIDIA's library numbers GPUs otherwise than PyTorch does, so find this one by its id.
            pynvml.nvmlInit()
            name = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"
            handle = pynvml.nvmlDeviceGetHandleByUUID(name)
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except Exception as error:
            # Old GPUs have no counter, or the library is missing. This must not end a training.
            log.info("energy is not measured: %s", error)
            return None


def peak_gigabytes(device: torch.device) -> float | None:
    """Return the most GPU memory that PyTorch has had at once, in GB, or None on a CPU."""
    if device.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)


def sum_if_known(terms: Sequence[float | None]) -> float | None:
    """Return the sum, or None if a term is None."""
    numbers = [term for term in terms if term is not None]
    return sum(numbers) if len(numbers) == len(terms) else None


def max_if_known(terms: Sequence[float | None]) -> float | None:
    """Return the maximum, or None if a term is None."""
    numbers = [term for term in terms if term is not None]
    return max(numbers) if len(numbers) == len(terms) else None
