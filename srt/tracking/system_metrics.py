"""The load of this machine, under the names that MLflow's page of system metrics shows."""

from __future__ import annotations

import os
from typing import Any

MEGABYTE = 1e6


class Machine:
    """Samples processors, memory, disk, network and, where there are any, NVIDIA's GPUs."""

    def __init__(self) -> None:
        import psutil

        self.sent, self.received = psutil.net_io_counters()[:2]
        psutil.cpu_percent()  # the first call begins the interval that the next one reports
        self.gpus = _gpu_handles()

    def sample(self) -> dict[str, float]:
        """Returns the load since the last call and the present use."""
        import psutil

        memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
        sent, received = psutil.net_io_counters()[:2]
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / MEGABYTE,
            "disk_available_megabytes": disk.free / MEGABYTE,
            "network_receive_megabytes": (received - self.received) / MEGABYTE,
            "network_transmit_megabytes": (sent - self.sent) / MEGABYTE,
        }
        for index, gpu in enumerate(self.gpus):
            values |= {f"gpu_{index}_{key}": value for key, value in _gpu_load(gpu).items()}
        return {f"system/{key}": round(float(value), 1) for key, value in values.items()}


def _gpu_handles() -> list[Any]:
    import pynvml

    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _gpu_load(gpu: Any) -> dict[str, float]:
    """Returns what this GPU tells: under MIG, for one, it keeps some of it to itself."""
    import pynvml

    def memory() -> dict[str, float]:
        use = pynvml.nvmlDeviceGetMemoryInfo(gpu)
        return {
            "memory_usage_megabytes": use.used / MEGABYTE,
            "memory_usage_percentage": 100 * use.used / use.total,
        }

    def load() -> dict[str, float]:
        return {"utilization_percentage": float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)}

    def power() -> dict[str, float]:
        watts = pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000
        limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000
        return {"power_usage_watts": watts, "power_usage_percentage": 100 * watts / limit}

    values: dict[str, float] = {}
    for read in (memory, load, power):
        try:
            values |= read()
        except pynvml.NVMLError:
            continue
    return values
