"""The end of a process: asked for by a signal, or of one that has imported much, whose freeing would take seconds."""

import atexit
import os
import signal
import sys
import threading
from typing import NoReturn

AGAIN = 0.05  # seconds until an interrupt that was lost comes again


def end_when_told() -> None:
    """Let SIGTERM, which `ray job stop` sends, raise KeyboardInterrupt as Ctrl-C does, and let neither be lost.

    Python only tells of an error while it frees something, and goes on: an interrupt that came then is sent again.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _tell_or_repeat


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _tell_or_repeat(lost: "sys.UnraisableHookArgs") -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt):
        threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        sys.__unraisablehook__(lost)


def leave(code: int = 0) -> NoReturn:
    """End this process as Python does, but free nothing, and run no exit handlers of C: one of Ray's can deadlock."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
