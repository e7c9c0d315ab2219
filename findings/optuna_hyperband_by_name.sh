#!/usr/bin/env bash
# The name of an Optuna study decides which of its trials Hyperband prunes: with the same seed another name gives another search.
#
# Versions: optuna 5.0.0, numpy 2.4.6, Python 3.11.
# Expected: a sampler with a seed and trials one after the other make a search that can be run again: the same trials are pruned.
# Happens: HyperbandPruner puts each trial into a bracket by a checksum of the study's name and the trial's number. The same sweep under
#   two names prunes other trials, spends another number of steps, and can end with another best one; without a name, a study gets a
#   random one, so that no two runs of one script agree. The pruner takes no seed. SuccessiveHalvingPruner and MedianPruner agree.
# Why it matters: sweeps are named by dates, users and versions. A search "with seed 0" that is repeated under a new name is not the
#   same one, and a comparison of two samplers in two studies compares brackets, too. Give the study a name that is part of the seed.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check optuna==5.0.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.ERROR)
STEPS, TRIALS = 27, 60


def search(name: str | None, pruner: BasePruner) -> tuple[list[int], int, float]:
    """Numbers of the trials that were not pruned; steps of all; the best one's learning rate."""
    study = optuna.create_study(study_name=name, sampler=RandomSampler(seed=0), pruner=pruner)

    def loss(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 0, 1)
        for step in range(1, STEPS + 1):
            value = abs(rate - 0.3) + (1 - rate) / step  # slow learners look worse early
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study.optimize(loss, n_trials=TRIALS)
    complete = [trial.number for trial in study.trials if trial.state is TrialState.COMPLETE]
    return complete, sum(len(trial.intermediate_values) for trial in study.trials), study.best_params["rate"]


def hyperband() -> BasePruner:
    return HyperbandPruner(min_resource=1, max_resource=STEPS)


names = ["sweep-monday", "sweep-tuesday", "sweep-wednesday"]
by_name = [search(name, hyperband()) for name in names]
for name, (complete, steps, rate) in zip(names, by_name, strict=True):
    print(f"{name}: {len(complete)} trials to the end, {steps} steps, best rate {rate:.3f}; the first ones {complete[:12]}")
assert by_name[0] == search(names[0], hyperband()), "the same name is the same search"
assert len({tuple(complete) for complete, _, _ in by_name}) == 3, "the behaviour has changed"
nameless = [search(None, hyperband())[0] for _ in range(3)]
print("without a name, trials to the end of three runs of one script:", [len(complete) for complete in nameless])
assert len(set(map(tuple, nameless))) > 1, "the behaviour has changed"
for pruner in (SuccessiveHalvingPruner, MedianPruner):
    assert search("one", pruner()) == search("another", pruner()) == search(None, pruner()), pruner
    print(f"{pruner.__name__}: the same whatever the name")
PY
env/bin/python see.py
