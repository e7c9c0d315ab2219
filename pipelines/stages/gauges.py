"""Numbers of a training run for whoever watches a Ray cluster, by Prometheus or in Ray's dashboard."""

from collections.abc import Mapping

from ray.util.metrics import Gauge

GAUGES = {
    "loss": "the training loss",
    "samples_per_second": "samples that all workers of a run train on in a second",
    "input_wait": "share of the time in which the first worker waits for its next batch, from 0 to 1",
    "gpu_memory_mib": "memory that the first worker has reserved on its GPU, in MiB",
    "gpu_utilization": "share of the last moment in which a kernel ran on the first worker's GPU, from 0 to 1",
}


class Gauges:
    """The gauges of a run, each named selfsup_ and its name in GAUGES. labels: of Prometheus.

    Ray sends them in the background, and drops them where its metrics are off.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)
        self._gauges = {name: Gauge(f"selfsup_{name}", text, tuple(labels)) for name, text in GAUGES.items()}

    def set(self, values: Mapping[str, float]) -> None:
        """Show these numbers from now on; those without a gauge are left out."""
        for name, gauge in self._gauges.items():
            if name in values:
                gauge.set(float(values[name]), self._labels)
