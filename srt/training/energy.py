"""What a GPU has used: energy by its own counter, which NVIDIA's library reads, and memory."""

from __future__ import annotations

import logging

import torch

log = logging.getLogger(__name__)


class EnergyMeter:
    """Counts the energy of one GPU's board from now on, whoever uses it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.started = self._millijoules()

    def joules(self) -> float | None:
        """Returns what was used since; None where nothing counts it."""
        now = self._millijoules()
        return None if now is None or self.started is None else (now - self.started) / 1000

    def _millijoules(self) -> int | None:
        if self.device.type != "cuda":
            return None
        try:
            import pynvml

            pynvml.nvmlInit()
            name = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"
            return int(
                pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(name))
            )
        except Exception as error:  # a GPU, a driver or a library that cannot stops no training
            log.info("energy is not measured: %s", error)
            return None


def peak_gigabytes(device: torch.device) -> float | None:
    """Returns the most memory that PyTorch has had of a GPU; None elsewhere."""
    if device.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
