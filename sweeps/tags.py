"""Names of the tags of a sweep's runs in MLflow; those of any run are in track.py."""

SWEEP, KIND = "selfsup.sweep", "selfsup.kind"  # the digest of the plan; sweep, arm, run, search, trial
DRAWN, SPENT = "selfsup.drawn", "selfsup.spent"  # a trial's values, as JSON; the budget that a search ended with
SESSIONS = "selfsup.sessions"  # in how many pieces a search was made
TRIAL = "trial"
STUDY, ARM, FACTOR, VALUE = "selfsup.study", "selfsup.arm", "selfsup.factor", "selfsup.value"
ABOVE = ("sweep", "search", "arm")  # kinds of runs in MLflow that stand for several
