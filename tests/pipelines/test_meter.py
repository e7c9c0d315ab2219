"""What training costs, over attempts that were cut short."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pynvml  # type: ignore[import-untyped]
import pytest
import torch

from selfsup.pipelines.stages import meter
from selfsup.pipelines.stages.meter import Meter

CPU = torch.device("cpu")


def test_a_second_attempt_adds_to_what_the_first_had_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    path = tmp_path / "cost.json"
    first = Meter(path, 990.0, CPU, gpus=4).read()
    assert (first["seconds"], first["restarts"], first["gpu_hours"]) == (10.0, 0.0, 40 / 3600)
    second = Meter(path, 980.0, CPU, gpus=2).read()
    assert (second["seconds"], second["restarts"], second["gpu_hours"]) == (30.0, 1.0, 80 / 3600)
    assert json.loads(path.read_text()) == second


def test_no_gpu_has_no_hours_and_no_energy(tmp_path: Path) -> None:
    assert Meter(tmp_path / "cost.json", time.time(), CPU, gpus=0).read().keys() == {
        "seconds",
        "restarts",
        "peak_memory_mib",
    }


def test_energy_is_what_the_counter_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter([5000.0, 12200.0])
    monkeypatch.setattr(meter, "joules", lambda _: next(counter))
    assert Meter(tmp_path / "cost.json", time.time(), CPU, gpus=1).read()["energy_wh"] == pytest.approx(2.0)


def test_the_use_of_a_gpu_is_what_torch_has_reserved_and_nvml_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "joules", lambda _: 0.0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * 2**20)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="0-1"))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", {"GPU-0-1": "the one"}.__getitem__)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", {"the one": SimpleNamespace(gpu=25)}.__getitem__)
    gpu = Meter(tmp_path / "cost.json", time.time(), torch.device("cuda", 0), gpus=1)
    assert gpu.gpu_use() == {"gpu_memory_mib": 3.0, "gpu_utilization": 0.25}

    def silent(_: str) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", silent)
    assert gpu.gpu_use() == {"gpu_memory_mib": 3.0}
    assert Meter(tmp_path / "cost.json", time.time(), CPU, gpus=0).gpu_use() == {}


def test_memory_is_the_most_that_the_kernel_saw() -> None:
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert meter.peak_memory(CPU) == pytest.approx(int(told["VmHWM"].split()[0]) / 1024, rel=0.05)


def test_the_machine_has_a_name() -> None:
    number, _, name = meter.hardware(CPU).partition(" x ")
    assert int(number) > 0
    assert name
