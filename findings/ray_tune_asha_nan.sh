#!/usr/bin/env bash
# A trial whose loss is NaN is never stopped by Ray Tune's ASHA, and never ends for OptunaSearch: divergence takes the budget.
#
# Versions: ray 2.60.0, optuna 5.0.0, pandas 3.1.1, numpy 2.4.6, Python 3.11.
# Expected: a trial that reports NaN is the worst of its rung, is stopped at the first one, and is told to the search as failed.
# Happens: ASHA stops what is below the rung's quantile; NaN is below nothing, so it trains to max_t, while worse but finite
#   trials are stopped. OptunaSearch then tells Optuna a COMPLETE trial of NaN, Optuna refuses, a warning is logged, and the
#   trial stays RUNNING for good. Optuna's TPE draws at random until it has ten ended trials, and so goes on drawing where
#   losses diverge.
# Why it matters: in a search over learning rates a good part of the space diverges. These trials get the whole budget, healthy
#   ones are cut, and the sampler never learns where not to go: here over half of the trials, without an error.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check "ray[tune]==2.60.0" optuna==5.0.0 pandas==3.1.1 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import logging
import os

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

STEPS = 27


def train(config: dict) -> None:
    for step in range(1, STEPS + 1):
        tune.report({"loss": float("nan") if config["lr"] > 0.5 else 1 / step + config["lr"], "step": step})


optuna.logging.set_verbosity(optuna.logging.ERROR)
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
search = OptunaSearch(sampler=optuna.samplers.TPESampler(seed=0))
setting = tune.TuneConfig(
    metric="loss",
    mode="min",
    num_samples=16,
    max_concurrent_trials=1,
    search_alg=search,
    scheduler=ASHAScheduler(time_attr="step", max_t=STEPS, grace_period=1, reduction_factor=3),
)
place = tune.RunConfig(storage_path=os.getcwd(), verbose=0)
results = tune.Tuner(train, param_space={"lr": tune.uniform(0, 1)}, tune_config=setting, run_config=place).fit()
lost = [result for result in results if result.config["lr"] > 0.5]
sound = [result for result in results if result.config["lr"] <= 0.5]
states = [trial.state.name for trial in search._ot_study.trials]
print(f"{len(lost)} trials of NaN, steps: {[result.metrics['step'] for result in lost]}")
print(f"{len(sound)} trials of finite loss, steps: {[result.metrics['step'] for result in sound]}")
print(f"for Optuna, after the search has ended: {states.count('RUNNING')} RUNNING, {states.count('COMPLETE')} COMPLETE")
assert lost and any(result.metrics["step"] < STEPS for result in sound)
assert all(result.metrics["step"] == STEPS for result in lost), "the behaviour has changed"
assert states.count("RUNNING") == len(lost), "the behaviour has changed"
PY
env/bin/python see.py 2> log || { cat log; exit 1; }
