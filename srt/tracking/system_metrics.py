"""The load of this machine, under the names that MLflow's page of system metrics shows."""

from __future__ import annotations

import os
from typing import Any

MEGABYTE = 1e6


class Machine:
    """Measures the processors, memory, disk and network, and NVIDIA's GPUs if there are any."""

    def __init__(self) -> None:
        import psutil

        # Processors and network are measured between two samples, so the first interval begins now.
        self.sent, self.received = psutil.net_io_counters()[:2]
        psutil.cpu_percent()
        self.gpus = _gpu_handles()

    def sample(self) -> dict[str, float]:
        """Return the present use of memory and disk, and the processors' load since the last call.

        Network figures count from the start.
        """
        import psutil

        sent, received = psutil.net_io_counters()[:2]
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            **_memory_and_disk(),
            "network_receive_megabytes": (received - self.received) / MEGABYTE,
            "network_transmit_megabytes": (sent - self.sent) / MEGABYTE,
        }
        for index, gpu in enumerate(self.gpus):
            values |= {f"gpu_{index}_{key}": value for key, value in _gpu_load(gpu).items()}
        return {f"system/{key}": round(float(value), 1) for key, value in values.items()}


def _memory_and_disk() -> dict[str, float]:
    """Return the present use of memory and disk."""
    import psutil

    memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
    return {
        "system_memory_usage_megabytes": memory.used / MEGABYTE,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
        "disk_usage_percentage": disk.percent,
        "disk_usage_megabytes": disk.used / MEGABYTE,
        "disk_available_megabytes": disk.free / MEGABYTE,
    }


def _gpu_handles() -> list[Any]:
    """Return the handles of NVIDIA's library for all GPUs; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _gpu_load(gpu: Any) -> dict[str, float]:
    """Return the figures that a GPU reports. Under MIG, for example, it reports no utilization."""
    import pynvml

    # Each function raises NVMLError if the GPU does not report its figures.
    values: dict[str, float] = {}
    for read in (_gpu_memory, _gpu_utilization, _gpu_power):
        try:
            values |= read(gpu)
        except pynvml.NVMLError:
            continue
    return values


def _gpu_memory(gpu: Any) -> dict[str, float]:
    import pynvml

    use = pynvml.nvmlDeviceGetMemoryInfo(gpu)
    return {
        "memory_usage_megabytes": use.used / MEGABYTE,
        "memory_usage_percentage": 100 * use.used / use.total,
    }


def _gpu_utilization(gpu: Any) -> dict[str, float]:
    import pynvml

    return {"utilization_percentage": float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)}


def _gpu_power(gpu: Any) -> dict[str, float]:
    import pynvml

    # NVIDIA's library counts in milliwatts.
    watts = pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000
    limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000
    return {"power_usage_watts": watts, "power_usage_percentage": 100 * watts / limit}
