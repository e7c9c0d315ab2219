"""A sweep and its results from numbers written down: what a report is made of, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Factor, Study
from selfsup.sweeps.spec.sweep import Sweep

KNN, LINEAR = "eval/knn/top1", "eval/linear/top1"
RATIO, DEPTH = "hyper.mask_ratio", "hyper.decoder_depth"
DEFAULTS = {RATIO: 0.75, DEPTH: 8}

Numbers = Sequence[float | str]  # one a seed; a text is why a run failed


def result(key: str, seed: int, value: float | str, params: Mapping[str, Any]) -> Result:
    failed = isinstance(value, str)
    return Result(
        id=key,
        seed=seed,
        run=f"run-of-{key}",
        status="failed" if failed else "finished",
        reason=value if isinstance(value, str) else "",
        metrics={} if isinstance(value, str) else {KNN: value, "pretrain/seconds": 60.0 + seed},
        params={name: str(held) for name, held in params.items()} | {"seed": str(seed), "optim.lr": "0.001"},
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
    """numbers: "0.75, 8" (ratio, depth) -> one a seed; the default, which is "0.75, 8", first."""
    made, found = [], []
    for label, held in numbers.items():
        ratio, depth = label.split(", ")
        here = {RATIO: float(ratio), DEPTH: int(depth)}
        changed = {path: value for path, value in here.items() if value != DEFAULTS[path]}
        name = ", ".join(f"{path.partition('.')[2]}={value}" for path, value in changed.items()) or "default"
        one, results = arm(name, held, changed, method)
        made.append(one)
        found += results
    factors = tuple(
        Factor(path, tuple(sorted({one.values[path] for one in made})), default, None, False)
        for path, default in DEFAULTS.items()
    )
    shares = ((), factors) if grid else (tuple(factor for factor in factors if len(factor.values) > 1), ())
    return Study(method, method, *shares, tuple(made), expected.get("expected", {}), expected.get("source", "")), found


def sweep(*studies: Study, baselines: Sequence[Arm] = (), metrics: Sequence[str] = (KNN,)) -> Sweep:
    seeds = tuple(studies[0].arms[0].ids)
    standing = tuple(replace(study, floor=tuple(baselines)) for study in studies)
    return Sweep("toy", "Does it hold?", "sweeps/toy.yaml", "5eed", seeds, tuple(metrics), standing)
