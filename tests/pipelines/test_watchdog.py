"""A Ray that dies ends the command in one line."""

import os
import socket
import threading

import pytest
import ray
from servers import free_ports

from selfsup.pipelines.cluster import watchdog
from selfsup.pipelines.cluster.watchdog import Endpoint, watch


class Ended(BaseException):
    pass


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(watchdog, "INTERVAL", 0.01)


def test_what_has_died_is_named_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    with pytest.raises(Ended, match="1"):
        watch({"the raylet": Endpoint("127.0.0.1", port, 0.05)}, threading.Event())
    told = capsys.readouterr().err
    assert told == "selfsup: the raylet of Ray has died (killed, or out of memory); the same command continues\n"


def test_what_lives_or_may_come_back_is_waited_for() -> None:
    stop = threading.Event()
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as lives:
        endpoints = {"the GCS": Endpoint("127.0.0.1", port, 60.0), "the raylet": Endpoint(*lives.getsockname(), 0.05)}
        threading.Timer(0.3, stop.set).start()
        watch(endpoints, stop)  # and returns


def test_a_ray_that_was_left_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    watch({"the raylet": Endpoint("127.0.0.1", *free_ports(1), 0.05)}, stop)
