"""The end of a process: as Python's own, but for what C would do."""

import subprocess
import sys


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
