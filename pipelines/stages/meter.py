"""The cost of a training over all attempts and workers: time, memory, energy, restarts; and its hardware."""

import math
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from selfsup.parts import dist
from selfsup.stage import read_json, write_json


class StartTimes(NamedTuple):
    """Times of the launch of a run, of the start of its worker, and of its built model; seconds since 1970."""

    launch: float
    worker: float
    model: float

    def durations(self, first_step: float) -> dict[str, float]:
        """Return the seconds from the launch to the end of the first step, in total and by phase."""
        return {
            "start_seconds": first_step - self.launch,
            "start_seconds_ray": self.worker - self.launch,
            "start_seconds_model": self.model - self.worker,
            "start_seconds_data": first_step - self.model,
        }


class Meter:
    """A cost meter, one per worker, saved at every reading, so that a killed attempt counts up to its last one.

    path: of the file. launched: time of this attempt, in seconds since 1970. gpus: of all workers.
    """

    def __init__(self, path: Path, launched: float, device: torch.device, gpus: float) -> None:
        self._path, self._launched, self._device, self._gpus = path, launched, device, gpus
        self._joules = joules(device)
        self._earlier = read(path)
        self._restarts = self._earlier.get("restarts", -1.0) + 1.0

    def read(self) -> dict[str, float]:
        """Return the cost of all attempts so far; a collective operation of all workers.

        seconds, restarts, peak_memory_mib of the worker that needs most; with GPUs also gpu_hours, and energy_wh where
        NVML reports it.
        """
        seconds, earlier = time.time() - self._launched, self._earlier
        own = torch.tensor([[peak_memory(self._device), joules(self._device) - self._joules]], device=self._device)
        memory, energy = dist.gather(own).T
        cost = {
            "seconds": earlier.get("seconds", 0.0) + seconds,
            "restarts": self._restarts,
            "peak_memory_mib": max(earlier.get("peak_memory_mib", 0.0), float(memory.max())),
        }
        if self._gpus:
            cost["gpu_hours"] = earlier.get("gpu_hours", 0.0) + self._gpus * seconds / 3600
        if bool(energy.isfinite().all()):
            cost["energy_wh"] = earlier.get("energy_wh", 0.0) + float(energy.sum()) / 3600
        if dist.rank() == 0:
            write_json(self._path, cost)
        return cost

    def gpu_use(self) -> dict[str, float]:
        """Return gpu_memory_mib, which this process has reserved, and gpu_utilization, 0 to 1, by NVML; {} of a CPU."""
        if self._device.type != "cuda":
            return {}
        memory = torch.cuda.memory_reserved(self._device) / 2**20
        busy = _nvml(self._device, lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu) / 100
        return {"gpu_memory_mib": memory} | ({"gpu_utilization": busy} if math.isfinite(busy) else {})


def read(path: Path) -> dict[str, float]:
    return read_json(path) if path.exists() else {}


def peak_memory(device: torch.device) -> float:
    """Return the peak of memory in MiB: of tensors on a GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def joules(device: torch.device) -> float:
    """Return the GPU's energy since its driver was loaded, by all processes; nan where NVML does not report it."""
    return _nvml(device, lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1000


def _nvml(device: torch.device, ask: Callable[[Any, Any], float]) -> float:
    """Ask NVML about a GPU; nan where it does not answer, or of a CPU."""
    if device.type != "cuda":
        return math.nan
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(ask(pynvml, handle))
    except pynvml.NVMLError:
        return math.nan


def hardware(device: torch.device) -> str:
    """Return such as "2 x NVIDIA H200" for two workers, or number and name of a machine's CPUs."""
    if device.type == "cuda":
        return f"{dist.world_size()} x {torch.cuda.get_device_name(device)}"
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else "CPU"
    return f"{os.cpu_count()} x {name}"
