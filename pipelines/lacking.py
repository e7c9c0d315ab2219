"""Samples that lack what an objective reads of them: which these are, and what `stream.lacking` makes of them."""

from selfsup.errors import SpecError
from selfsup.method import load
from selfsup.modality import member_of
from selfsup.outside import short
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.subset import Subset
from selfsup.spec import BASELINES, Run


def lacked(run: Run, data: Manifest) -> tuple[str, ...]:
    """Return what the method of a run reads and some samples lack: modalities, and maps."""
    return tuple(name for name in _read(run) if name in data.lacking) if data.lacking else ()


def _read(run: Run) -> tuple[str, ...]:
    """Return what the method reads: of samples, and beside them."""
    if run.method in BASELINES:
        return ()
    maps = (spec.name for spec in load(run.method).views(run.hyper).maps)
    return tuple(dict.fromkeys((*map(member_of, (run.modality, *run.beside)), *maps)))


def complete(run: Run, data: Manifest) -> Manifest:
    """Return the part of the data that has all that the method reads."""
    names = lacked(run, data)
    return data.part(Subset(fields=names)) if names else data


def number(run: Run, data: Manifest) -> int:
    """Return how many samples lack something that the method reads."""
    return data.num_samples - complete(run, data).num_samples


def learned(run: Run, data: Manifest) -> Manifest:
    """Return the data that training reads."""
    return complete(run, data) if run.stream.lacking == "skip" else data


def masked(run: Run, data: Manifest) -> tuple[str, ...]:
    """Return what samples lack in training."""
    return lacked(run, data) if run.stream.lacking == "mask" else ()


def shown(run: Run, val: Manifest | None, train: Manifest) -> Manifest:
    """Return the samples that have all that the method reads, or that training reads: validation samples, if any."""
    if val and {*_read(run)} <= {*val.fields, *val.annotations, *val.beside}:
        part = val if run.stream.lacking == "mask" else complete(run, val)
        if part.num_samples:
            return part
    return learned(run, train)


def check(run: Run, data: Manifest) -> None:
    """Raise SpecError where samples lack what the method reads, and the policy is none for that."""
    for name in lacked(run, data):
        what = f"{data.lacking[name]:,} of {data.num_samples:,} samples of {data.root} have no {name}"
        what = f"{what}, which {short(run.method)} reads"
        is_masked = name in load(run.method).masks_out
        if run.stream.lacking == "fail":
            other = ", stream.lacking=mask learns from what they have" if is_masked else ""
            raise SpecError(f"{what}: stream.lacking=skip leaves them out{other}", "stream.lacking", "data.train")
        if run.stream.lacking == "mask" and not is_masked:
            message = f"{what}, and its loss is of samples that have it: stream.lacking=skip leaves them out"
            raise SpecError(message, "stream.lacking", "method")
    if run.stream.lacking == "skip" and not complete(run, data).num_samples:
        names = " and ".join(lacked(run, data))
        raise SpecError(f"no sample of {data.root} has {names}, which {short(run.method)} reads", "data.train")


def note(run: Run, data: Manifest) -> list[tuple[str, str]]:
    """Return a line of a plan, and what it is about; none where no sample lacks anything."""
    if not (names := lacked(run, data)):
        return []
    total = f"of {data.num_samples:,} samples have no"
    if run.stream.lacking == "skip":
        return [("lacking", f"{number(run, data):,} {total} {' or '.join(names)}: left out")]
    parts = [f"{data.lacking[name]:,} {total} {name}" for name in names]
    return [("lacking", f"{', '.join(parts)}: learned from without it")]
