"""The default of `stream.feeder`."""

import os

from selfsup.sections import Feeder


def usual_feeder() -> Feeder:
    """Return the feeder for the machine at hand: threads on one machine, Ray's tasks on a cluster.

    To be called where the user's command runs, since RAY_ADDRESS is set in Ray's own processes on one machine, too.
    """
    return "ray" if os.environ.get("RAY_ADDRESS") else "threads"
