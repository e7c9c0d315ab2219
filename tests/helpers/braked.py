"""Small runs for clusters, which train slowly for as long as a file says so: time to do something to them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ray_nodes import RayNode, RayNodes
from sweeping import Bench, same, until
from tiny import BACKBONE

from selfsup.pipelines.data.manifest import Manifest

BRAKE = "SELFSUP_TEST_BRAKE"  # a variable: the file
METHOD = f"""import os
import time

from selfsup.methods.simclr import SimCLR


class Braked(SimCLR):
    def forward(self, batch):
        if os.path.exists(os.environ.get("{BRAKE}", "")):
            time.sleep(1.0)
        return super().forward(batch)
"""
STEPS, EVERY = 40, 4
SPEC: dict[str, Any] = {
    "name": "braked",
    "method": "./braked.py",
    "backbone": BACKBONE,
    "optim": {"name": "sgd", "lr": 0.05, "lr_rule": "none", "weight_decay": 0.0},
    "train": {"duration": {"steps": STEPS}, "batch": 16, "checkpoint_every": EVERY, "log_every": 2},
    "stream": {"lanes": 4, "chunk": 8, "mix": 4, "feeder": "ray"},
    "evals": {"knn": {"k": 3}},
    "baselines": False,
    "resources": {"workers": 4, "cpus_per_worker": 0.9, "data_cpus": 0.4},
}
TWO: dict[str, Any] = {  # changes: two workers, each with threads of its own for data
    "resources": {"workers": 2, "cpus_per_worker": 0.9, "data_cpus": 0.1},
    "stream": {"feeder": "threads"},
}


class BrakedBench(Bench):
    """A place to sweep in. changes: of SPEC, as section={knob: value}. sets: folders of shards by split."""

    def __init__(self, folder: Path, sets: dict[str, str], **changes: dict[str, Any]) -> None:
        changed = {section: SPEC[section] | values for section, values in changes.items()}
        (folder / "braked.py").write_text(METHOD)
        (folder / "braked.yaml").write_text(yaml.safe_dump(SPEC | {"data": sets} | changed))
        super().__init__(folder, folder / "braked.yaml")

    def alone(self, cpus: int) -> "BrakedBench":
        """Sweep on a Ray of one node."""
        self.environment |= {"RAY_OVERRIDE_RESOURCES": f'{{"CPU": {cpus}}}'}
        self.sweep()
        assert set(self.table().status) == {"done"}
        return self

    def on(self, nodes: RayNodes) -> "BrakedBench":
        """Sweep on a cluster from now on."""
        self.environment |= nodes.environment | {"RAY_ADDRESS": nodes.address}
        return self

    def beside(self, node: RayNode) -> "BrakedBench":
        """Sweep from a node of the cluster from now on, as on a machine that is no other one."""
        self.program = [sys.executable, str(Path(__file__).with_name("beside_node.py")), node.ip]
        return self

    def goes_on(self, process: "subprocess.Popen[str]") -> None:
        """Wait until there is another checkpoint than now."""
        seen = set(self.home.glob("stages/pretrain-*/checkpoint_*"))
        until(lambda: not seen >= set(self.home.glob("stages/pretrain-*/checkpoint_*")), process)

    def losses(self) -> list[tuple[int, float]]:
        """Return steps and losses of its one training."""
        [curve] = self.curves("pretrain", "loss").values()
        return curve


def sets_in(folder: Path, make: Callable[..., Manifest]) -> dict[str, str]:
    """Write photographs to train on and to evaluate with; return their folders by split."""
    return {name: make(folder / name, number=number).root for name, number in (("train", 2100), ("val", 60))}


def same_digits(bench: Bench, other: Bench) -> None:
    """Assert that tables, losses and weights are equal, digit for digit."""
    same(bench, other)
    same_training(bench, other)


def same_training(bench: Bench, other: Bench) -> None:
    """Assert that losses and weights are equal, digit for digit."""
    assert bench.curves("pretrain", "loss") == other.curves("pretrain", "loss")
    found, expected = bench.weights(), other.weights()
    assert found.keys() == expected.keys() != set()
    for stage, weights in expected.items():
        assert all(np.array_equal(found[stage][name], weight) for name, weight in weights.items())
