"""What the knobs of a search matter: Optuna's PED-ANOVA over its trials.

Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces",
IJCAI 2023, arXiv:2304.10255. A knob matters as its values among the best trials are spread unlike those among all.
"""

import json
import warnings
from typing import TYPE_CHECKING, Any

from selfsup.knob import Choice
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.spec.trials import Searched, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 10  # finished trials from which on it is told
TOP = 5  # trials, or a tenth of them, count as the best


def top(searched: Searched) -> int:
    """How many trials count as the best: with them, all that equal the last of them, by the one metric there is."""
    number = max(TOP, len(searched.ended) // 10)
    if len(searched.search.objectives) > 1:  # Optuna tells equals apart near a Pareto front
        return min(number, len(searched.ended))
    [metric] = searched.search.objectives
    values = [trial.metrics[metric] for trial in searched.ranked]
    return sum(value in values[:number] for value in values)


def alike(searched: Searched) -> bool:
    """Whether no trial is better than the others."""
    results = {tuple(trial.metrics[name] for name in searched.search.objectives) for trial in searched.ended}
    return len(results) < 2 or top(searched) == len(searched.ended)


def importance(searched: Searched) -> dict[str, float]:
    """Path, after its study's name where there are several, -> share, the largest first.

    Nothing from too few trials, nor where nothing sets the best apart. With several metrics the best are those near the
    Pareto front.
    """
    ended = searched.ended
    if len(ended) < FEWEST or alike(searched):
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    modes = searched.search.objectives.values()
    study = optuna.create_study(directions=["minimize" if mode == "min" else "maximize" for mode in modes])
    study.add_trials([_frozen(searched, trial) for trial in ended])
    names = sorted({name for trial in study.trials for name in trial.params})
    share = (top(searched) - 0.5) / len(ended)  # of which Optuna makes a number again, rounded up
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a study that was hardly drawn
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names, normalize=False)
    total = sum(found.values())  # Optuna makes equal shares of nothing
    return {name: value / total for name, value in found.items()} if total else {}


def _frozen(searched: Searched, trial: Trial) -> Any:
    import optuna

    several = len(searched.space) > 1
    lines = {f"{trial.study}: {line.path}" if several else line.path: line for line in searched.space[trial.study]}
    return optuna.trial.create_trial(
        params={name: _drawn(line, trial.values[line.path]) for name, line in lines.items()},
        distributions={name: _distribution(line) for name, line in lines.items()},
        values=[trial.metrics[metric] for metric in searched.search.objectives],
    )


def _drawn(line: Dimension, value: Any) -> Any:
    """A choice by its place, as it was drawn; a list is a tuple here and none there."""
    if isinstance(line.range, Choice):
        return [json.dumps(each) for each in line.range.values].index(json.dumps(value))
    return value


def _distribution(line: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    held = line.range
    if isinstance(held, Choice):
        return CategoricalDistribution(range(len(held.values)))
    if line.integer:
        return IntDistribution(int(held.low), int(held.high), log=held.log)
    return FloatDistribution(held.low, held.high, log=held.log)
