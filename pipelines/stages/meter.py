"""What a training costs: time, memory, energy, restarts, over all of its attempts and workers; and on what it ran."""

import os
import resource
import time
from pathlib import Path
from typing import NamedTuple

import torch

from selfsup.parts import dist
from selfsup.stage import read_json, write_json


class Start(NamedTuple):
    """When a run was launched, when its worker began, and when that had built its model; seconds since 1970."""

    launched: float
    entered: float
    built: float

    def spent(self, first_step: float) -> dict[str, float]:
        """Seconds from the launch to the end of the first step, and where they went."""
        return {
            "start_seconds": first_step - self.launched,
            "start_seconds_ray": self.entered - self.launched,
            "start_seconds_model": self.built - self.entered,
            "start_seconds_data": first_step - self.built,
        }


class Meter:
    """Kept in a file at every reading, so that an attempt that is killed counts up to its last one.

    launched: when this attempt was, in seconds since 1970. gpus: of all workers. Every worker makes one.
    """

    def __init__(self, path: Path, launched: float, device: torch.device, gpus: float) -> None:
        self._path, self._launched, self._device, self._gpus = path, launched, device, gpus
        self._joules = joules(device)
        self._before = read(path)
        self._attempts = self._before.get("restarts", -1.0) + 1.0

    def read(self) -> dict[str, float]:
        """seconds; restarts; peak_memory_mib of the worker that needs most; and on GPUs gpu_hours and energy_wh, which
        is not there where NVML does not tell it. The workers call it together.
        """
        seconds, before = time.time() - self._launched, self._before
        own = torch.tensor([[peak_memory(self._device), joules(self._device) - self._joules]], device=self._device)
        memory, energy = dist.gather(own).T
        cost = {
            "seconds": before.get("seconds", 0.0) + seconds,
            "restarts": self._attempts,
            "peak_memory_mib": max(before.get("peak_memory_mib", 0.0), float(memory.max())),
        }
        if self._gpus:
            cost["gpu_hours"] = before.get("gpu_hours", 0.0) + self._gpus * seconds / 3600
        if bool(energy.isfinite().all()):
            cost["energy_wh"] = before.get("energy_wh", 0.0) + float(energy.sum()) / 3600
        if dist.rank() == 0:
            write_json(self._path, cost)
        return cost


def read(path: Path) -> dict[str, float]:
    return read_json(path) if path.exists() else {}


def peak_memory(device: torch.device) -> float:
    """MiB: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def joules(device: torch.device) -> float:
    """What the GPU has used since its driver was loaded, whoever used it; nan where NVML does not tell."""
    if device.type != "cuda":
        return float("nan")
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except pynvml.NVMLError:
        return float("nan")


def hardware(device: torch.device) -> str:
    """Such as "2 x NVIDIA H200" for two workers, or the name and number of a machine's CPUs."""
    if device.type == "cuda":
        return f"{dist.world_size()} x {torch.cuda.get_device_name(device)}"
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = named[0].partition(":")[2].strip() if named else "CPU"
    return f"{os.cpu_count()} x {name}"
