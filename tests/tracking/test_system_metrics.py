"""The machine's load has the names and units of MLflow's page."""

from types import SimpleNamespace

from srt.tracking.system_metrics import Machine


def fake_gpu(monkeypatch, **answers):
    """Let NVIDIA's library report one GPU, which reports only these figures."""
    import pynvml

    def refuse(_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    for name in ("MemoryInfo", "UtilizationRates", "PowerUsage", "EnforcedPowerLimit"):
        answer = (lambda _, value=answers[name]: value) if name in answers else refuse
        monkeypatch.setattr(pynvml, f"nvmlDeviceGet{name}", answer)


MEMORY = SimpleNamespace(used=2e9, total=8e9)
LOAD = SimpleNamespace(gpu=75)


def test_names_and_units_are_mlflows(monkeypatch):
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    answers = {"MemoryInfo": MEMORY, "UtilizationRates": LOAD}
    fake_gpu(monkeypatch, **answers, PowerUsage=350_000, EnforcedPowerLimit=700_000)
    theirs = {}
    for monitor in (CPUMonitor(), DiskMonitor(), GPUMonitor(), NetworkMonitor()):
        monitor.collect_metrics()
        theirs |= {f"system/{key}": value for key, value in monitor.aggregate_metrics().items()}

    # Only figures that do not change from one moment to the next can be compared.
    ours = Machine().sample()
    assert set(ours) == set(theirs)
    steady = [key for key in ours if "gpu" in key or "disk_usage_percentage" in key]
    assert {key: ours[key] for key in steady} == {key: theirs[key] for key in steady}


def test_a_gpu_that_reports_only_its_memory_gets_no_other_figures(monkeypatch):
    fake_gpu(monkeypatch, MemoryInfo=MEMORY)
    names = {key for key in Machine().sample() if "gpu" in key}
    assert names == {
        "system/gpu_0_memory_usage_megabytes",
        "system/gpu_0_memory_usage_percentage",
    }
