#!/usr/bin/env bash
# Optuna's TPE learns nothing from trials pruned without a reported value, and takes the oldest of them for good ones.
#
# Versions: optuna 5.0.0, numpy 2.4.6, Python 3.11.
# Expected: a trial told as PRUNED was bad; TPE moves away from it, or leaves it out, and does better than random search.
# Happens: TPE takes pruned trials, and fills its good set up with them once complete ones run out. Those without intermediate
#   values all rank alike, so they enter in the order of their numbers: the first ones of the study are good forever, the ones
#   after them bad, whatever they were. With report() before tell() the same study finds the optimum.
# Why it matters: schedulers outside Optuna stop trials by themselves and tell the state alone. Where most trials are stopped
#   early, as in successive halving, the search looks like TPE and is no better than random.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check optuna==5.0.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS, STUDIES = 120, 10


def near(sampler: optuna.samplers.BaseSampler, report: bool) -> float:
    """Share of the second half of trials within 0.3 of the optimum."""
    study = optuna.create_study(sampler=sampler)
    losses = []
    for _ in range(TRIALS):
        trial = study.ask()
        loss = (trial.suggest_float("x", 0, 1) - 0.8) ** 2 + (trial.suggest_float("y", 0, 1) - 0.3) ** 2
        losses.append(loss)
        if report:
            trial.report(loss, step=1)
        if loss > 0.002:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, loss)
    return float(np.mean(np.array(losses[TRIALS // 2 :]) < 0.09))


reported = np.mean([near(TPESampler(seed=seed), report=True) for seed in range(STUDIES)])
silent = np.mean([near(TPESampler(seed=seed), report=False) for seed in range(STUDIES)])
random = np.mean([near(RandomSampler(seed=seed), report=False) for seed in range(STUDIES)])
print(f"trials near the optimum: TPE {reported:.2f}, TPE of pruned without a value {silent:.2f}, random {random:.2f}")
assert reported > 0.9 and random < 0.35
assert silent < 0.5, "the behaviour has changed"
PY
env/bin/python see.py
