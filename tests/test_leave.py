"""The end of a process: as Python's own, but for what C would do."""

import subprocess
import sys

import pytest


def test_threads_end_and_exit_handlers_run_and_nothing_that_was_printed_is_lost() -> None:
    code = (
        "import atexit, ctypes, sys, threading, time; from selfsup.leave import leave\n"
        "c = ctypes.CDLL(None); c['__cxa_atexit'](c.pause, None, None)\n"
        "atexit.register(print, 'handler', end='')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread', end=' '))).start()\n"
        "print('end', end=' ', file=sys.stderr); leave(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "thread handler", "end ")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_even_where_an_object_is_freed(name: str) -> None:
    code = (
        "import os, signal, time; from selfsup.leave import end_when_told\n"
        "class Freed:\n"
        f"    def __del__(self): os.kill(os.getpid(), signal.{name}); time.sleep(0)\n"
        "end_when_told()\n"
        "try: Freed(); time.sleep(500)\n"
        "except KeyboardInterrupt: print('ended')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
