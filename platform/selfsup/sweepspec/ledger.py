"""Where every run of a sweep stands, from the folders of its stages: they are all there is to a sweep's state."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from selfsup import failures
from selfsup.planning import Planned
from selfsup.spool import tail
from selfsup.sweepspec.arms import Sweep

Standing = Literal["done", "running", "failed", "pending"]


class Entry(NamedTuple):
    """One run. study: "" for a baseline. why: it failed, or what it waits for; "" where it is done."""

    study: str
    arm: str
    seed: int
    id: str
    status: Standing
    why: str


def ledger(sweep: Sweep, planned: Mapping[str, Planned]) -> list[Entry]:
    """Baselines first, then arm by arm; a run that arms share stands at each of them."""
    arms = [("", arm) for arm in sweep.baselines] + [(study.name, arm) for study in sweep.studies for arm in study.arms]
    return [
        Entry(study, arm.name, seed, id, *_standing(planned[id]))
        for study, arm in arms
        for seed, id in arm.ids.items()  # noqa: A001
    ]


def text(entries: Sequence[Entry]) -> str:
    """A line for each that is not done, under how many stand where."""
    number = Counter(entry.status for entry in entries)
    head = ", ".join(f"{number[status]} {status}" for status in ("done", "running", "failed", "pending"))
    return "\n".join([head, *_lines([entry for entry in entries if entry.status != "done"])])


def _lines(entries: Sequence[Entry]) -> Iterator[str]:
    names = [": ".join(part for part in (entry.study, entry.arm) if part) for entry in entries]
    width = max(map(len, names), default=0)
    for name, entry in zip(names, entries, strict=True):
        yield f"  {name:<{width}}  seed {entry.seed}  {entry.status:<7}  {entry.id}  {entry.why}".rstrip()


def _standing(run: Planned) -> tuple[Standing, str]:
    if run.done:
        return "done", ""
    missing = next(stage for stage in run.stages if not stage.done)
    if missing.running:
        return "running", f"{missing.kind}{_progress(run)}"
    if failure := failures.read(run.failure):
        return "failed", failure.reason
    return "pending", f"{missing.kind} {'was interrupted' if missing.folder.exists() else 'not begun'}{_progress(run)}"


def _progress(run: Planned) -> str:
    record = tail(run.pretrain.spool) if run.pretrain and not run.pretrain.done else None
    return f" at step {record.step} of {run.steps}" if record else ""
