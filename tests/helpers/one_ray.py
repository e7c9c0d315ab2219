"""One Ray of two CPUs for all tests of a worker that want one, and one worker for all of these tests."""

import re
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent.parent


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
    """A worker at a time for a file, and one for all files of which every test wants Ray."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "ray" if _is_of_ray(file) else file


@cache
def _is_of_ray(file: str) -> bool:
    """Return whether a file says so of all its tests; the process that hands them out has not imported it."""
    return re.search(r'^pytestmark = .*"cluster"', (ROOT / file).read_text(), re.MULTILINE) is not None
