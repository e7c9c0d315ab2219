"""A registry of a test's own methods, so that texts of mistakes depend on no shipped method's knobs."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

import selfsup
from selfsup.spec import run_type, spec_type


@contextmanager
def registered(methods: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let these be all methods that there are, inside the block."""
    module: Any = ModuleType("selfsup.method")
    module.names, module.load, module.is_known = lambda: sorted(methods), methods.__getitem__, methods.__contains__
    monkeypatch.setitem(sys.modules, "selfsup.method", module)
    monkeypatch.setattr(selfsup, "method", module, raising=False)
    for cached in (run_type, spec_type):
        cached.cache_clear()
    yield
    for cached in (run_type, spec_type):
        cached.cache_clear()
