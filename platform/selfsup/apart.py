"""Requests made by a fork of a process that may fork workers later, and must not have threads of obstore until then."""

import multiprocessing
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

Answer = TypeVar("Answer")


def apart(request: Callable[[], Answer]) -> Answer:
    """Return the answer to a request, or raise its error: from a fork, unless this process has threads already.

    Those of obstore are none of Python's, and a fork that inherits its state without them waits for ever.
    """
    if threading.active_count() > 1 or "obstore" in sys.modules:
        return request()
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(request, sending), daemon=True)
    process.start()
    sending.close()
    try:
        value, error = receiving.recv()
    finally:
        process.join()
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def _answer(request: Callable[[], object], sending: Connection) -> None:
    try:
        answer: tuple[object, Exception | None] = (request(), None)
    except Exception as error:
        answer = (None, error)
    sending.send(answer)
