"""A sweep and its results from given numbers, for tests of reports, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Factor, Study
from selfsup.sweeps.spec.sweep import Sweep

KNN, LINEAR = "eval/knn/top1", "eval/linear/top1"
RATIO, DEPTH = "hyper.mask_ratio", "hyper.decoder_depth"
DEFAULTS = {RATIO: 0.75, DEPTH: 8}

Numbers = Sequence[float | str]  # one a seed; a text is the reason of a failure


def result(key: str, seed: int, value: float | str, params: Mapping[str, Any]) -> Result:
    failed = isinstance(value, str)
    return Result(
        id=key,
        seed=seed,
        run=f"run-of-{key}",
        status="failed" if failed else "done",
        reason=value if isinstance(value, str) else "",
        metrics={} if isinstance(value, str) else {KNN: value, "pretrain/seconds": 60.0 + seed},
        params={name: str(given) for name, given in params.items()}
        | {"seed": str(seed), "optim.lr": "0.001", "data.train": "s3://bucket/train"},
        tags={"selfsup.commit": "c0ffee", "selfsup.data.train": "d1"},
        curves={},
    )


def arm(name: str, numbers: Numbers, changed: Mapping[str, Any], method: str = "mae") -> tuple[Arm, list[Result]]:
    values = DEFAULTS | dict(changed)
    ids = {seed: f"{method}-{name}-{seed}" for seed in range(len(numbers))}
    results = [result(ids[seed], seed, value, {"method": method} | values) for seed, value in enumerate(numbers)]
    return Arm(name, values, dict(changed), ids), results


def study(
    numbers: Mapping[str, Numbers], *, method: str = "mae", grid: bool = False, **expected: Any
) -> tuple[Study, list[Result]]:
    """Return a study and its results. numbers: "0.75, 8" (ratio, depth) -> one a seed; that default comes first."""
    arms, all_results = [], []
    for label, seeds in numbers.items():
        ratio, depth = label.split(", ")
        here = {RATIO: float(ratio), DEPTH: int(depth)}
        changed = {path: value for path, value in here.items() if value != DEFAULTS[path]}
        name = ", ".join(f"{path.partition('.')[2]}={value}" for path, value in changed.items()) or "default"
        own_arm, results = arm(name, seeds, changed, method)
        arms.append(own_arm)
        all_results += results
    factors = tuple(
        Factor(path, tuple(sorted({own_arm.values[path] for own_arm in arms})), default, None, False)
        for path, default in DEFAULTS.items()
    )
    varied = tuple(factor for factor in factors if len(factor.values) > 1)
    ablated, crossed = ((), factors) if grid else (varied, ())
    numbers_of_paper, source = expected.get("expected", {}), expected.get("source", "")
    return Study(method, method, ablated, crossed, tuple(arms), numbers_of_paper, source), all_results


def sweep(*studies: Study, baselines: Sequence[Arm] = (), metrics: Sequence[str] = (KNN,)) -> Sweep:
    seeds = tuple(studies[0].arms[0].ids)
    standing = tuple(replace(study, floor=tuple(baselines)) for study in studies)
    return Sweep("toy", "Does it hold?", "sweeps/toy.yaml", "5eed", seeds, tuple(metrics), standing)
