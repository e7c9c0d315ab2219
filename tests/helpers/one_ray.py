"""One Ray of two CPUs for all tests of a worker that want one, and one worker for all of these tests."""

from contextlib import ExitStack

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

GROUP = "ray"


class SharedRay:
    """A Ray that runs while tests in a row want it."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self.runs = False

    def start(self) -> None:
        """Start it, unless it runs."""
        from selfsup.pipelines.cluster.ray_context import local_ray

        if not self.runs:
            self._running.enter_context(local_ray(num_cpus=2))
            self.runs = True

    def stop(self) -> None:
        """Stop it if it runs: it takes memory and CPU, and a test of another file may start a Ray of its own."""
        self.runs = False
        self._running.close()


def wants_ray(item: pytest.Item) -> bool:
    """Return whether a test uses the shared Ray."""
    return "cluster" in getattr(item, "fixturenames", ())


def is_last(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Return whether nothing after a test takes part in its Ray: the rest of its file may."""
    return following is None or not (wants_ray(following) or following.path == item.path)


class FilesAndRay(LoadFileScheduling):  # type: ignore[misc]
    """A worker at a time for a file, and one for everything that wants Ray, whose ids xdist ends with its group."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return GROUP if nodeid.endswith(f"@{GROUP}") else scope
