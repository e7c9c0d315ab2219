"""The end of a process that has imported much: freeing all of it piece by piece would take seconds."""

import atexit
import os
import sys
import threading
from typing import NoReturn


def leave(code: int = 0) -> NoReturn:
    """End this process as Python does, but free nothing, and run no exit handlers of C: one of Ray's can deadlock."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
