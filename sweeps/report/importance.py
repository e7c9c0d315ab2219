"""Importance of the knobs of a search: Optuna's PED-ANOVA over its trials.

Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces",
IJCAI 2023, arXiv:2304.10255. A knob matters where its values are distributed differently among the best trials than
among all.
"""

import json
import warnings
from typing import TYPE_CHECKING, Any

from selfsup.knob import Choice
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.spec.trials import SearchResult, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 10  # finished trials from which on it is told
TOP = 5  # trials, or a tenth of them, count as the best


def num_best(search_result: SearchResult) -> int:
    """Return how many trials count as the best, with all that tie with the last of them where there is one metric."""
    number = max(TOP, len(search_result.ended) // 10)
    if len(search_result.search.objectives) > 1:  # Optuna tells equals apart near a Pareto front
        return min(number, len(search_result.ended))
    [metric] = search_result.search.objectives
    values = [trial.metrics[metric] for trial in search_result.ranked]
    return sum(value in values[:number] for value in values)


def alike(search_result: SearchResult) -> bool:
    """Return whether no trial is better than the others."""
    results = {tuple(trial.metrics[name] for name in search_result.search.objectives) for trial in search_result.ended}
    return len(results) < 2 or num_best(search_result) == len(search_result.ended)


def importance(search_result: SearchResult) -> dict[str, float]:
    """-> path: share of the importance, the largest first; the path follows its study's name where there are several.

    Empty with too few trials, or where nothing sets the best apart. With several metrics the best are those near the
    Pareto front.
    """
    ended = search_result.ended
    if len(ended) < FEWEST or alike(search_result):
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    modes = search_result.search.objectives.values()
    study = optuna.create_study(directions=["minimize" if mode == "min" else "maximize" for mode in modes])
    study.add_trials([_optuna_trial(search_result, trial) for trial in ended])
    names = sorted({name for trial in study.trials for name in trial.params})
    share = (num_best(search_result) - 0.5) / len(ended)  # of which Optuna makes a number again, rounded up
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a study that was hardly drawn
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names, normalize=False)
    total = sum(shares.values())  # Optuna makes equal shares of nothing
    return {name: value / total for name, value in shares.items()} if total else {}


def _optuna_trial(search_result: SearchResult, trial: Trial) -> Any:
    """Return a trial as Optuna stores it."""
    import optuna

    several = len(search_result.space) > 1
    dimensions = {
        f"{trial.study}: {dimension.path}" if several else dimension.path: dimension
        for dimension in search_result.space[trial.study]
    }
    return optuna.trial.create_trial(
        params={
            name: _index_or_value(dimension, trial.values[dimension.path]) for name, dimension in dimensions.items()
        },
        distributions={name: _distribution(dimension) for name, dimension in dimensions.items()},
        values=[trial.metrics[metric] for metric in search_result.search.objectives],
    )


def _index_or_value(dimension: Dimension, value: Any) -> Any:
    """Return a value as Optuna knows it: a choice by its index. Lists and tuples are equal here."""
    if isinstance(dimension.range, Choice):
        return [json.dumps(option) for option in dimension.range.values].index(json.dumps(value))
    return value


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    domain = dimension.range
    if isinstance(domain, Choice):
        return CategoricalDistribution(range(len(domain.values)))
    if dimension.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)
