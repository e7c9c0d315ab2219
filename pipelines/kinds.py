"""Checks that a method learns from the kinds of data that a run names, and that its data sets hold them."""

import numpy as np

from selfsup.errors import SpecError
from selfsup.input_kinds import shape_beside
from selfsup.method import Method, load, names
from selfsup.modality import DecodeError, member_of, ready
from selfsup.modality import load as load_modality
from selfsup.outside import short
from selfsup.pipelines import lacking
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.planned import PlannedRun
from selfsup.spec import BASELINES, Run

TRIED = 16  # samples


def check(planned: PlannedRun) -> None:
    """Raise SpecError where the method does not learn from this modality, or the data is of another."""
    run, name = planned.run, planned.run.modality
    ready(name)
    known = None if run.method in BASELINES else load(run.method).modalities
    if known is not None and name not in known:
        others = ", ".join(other for other in names() if name in (load(other).modalities or (name,)))
        message = f"{short(run.method)} learns from {' or '.join(known)}, not from {name}; others do: {others}"
        raise SpecError(message, "method", "input")
    for split, manifest in planned.data.items():
        path = f"evals.{split.replace('.', '.data.')}" if "." in split else f"data.{split}"
        if member_of(name) not in manifest.fields:
            contents = " and ".join(manifest.fields)
            wanted = name if name != "image" else "images, unless `input` names another kind of data"
            raise SpecError(f"{manifest.root} holds {contents}, and the run is of {wanted}", path)
        channels = {part.reading(name).channels for part in (manifest, planned.train)}
        if len(channels) > 1:
            counts = " and ".join(map(str, sorted(channels)))
            raise SpecError(f"{manifest.root} and {planned.train.root} hold {name} of {counts} channels", path)
        is_scored = split != "train" or any(planned.splits(other).train is manifest for other in planned.evals)
        if is_scored and (number := manifest.lacking.get(member_of(name))):
            what = f"{number:,} of {manifest.num_samples:,} samples of {manifest.root} have no {name}"
            raise SpecError(f"{what}, which evaluations read; give them data of their own", path, "evals")
    check_beside(planned, planned.train, "data.train")
    lacking.check(run, planned.train)
    for name, evaluation in planned.evals.items():
        own = evaluation.feature.scorer
        if evaluation.feature.is_joint and (run.method in BASELINES or not _has(run.method, own)):
            lack = "embeds no two alike" if own == "joint" else "has no head that does"
            message = f"{name} compares text with {run.modality}, and {short(run.method)} {lack}"
            message = f"{message}; leave it out, or choose {_having(own)}"
            raise SpecError(message, f"evals.{name}", "method")
        if (tower := evaluation.feature.tower) and tower not in _towers(run):
            lack = f"{short(run.method)} has none beside that of {run.modality}"
            message = f"{name} reads the encoder of {tower}, and {lack}; leave it out"
            raise SpecError(message, f"evals.{name}.tower", "method")
        if (map_ := evaluation.feature.decoded) and map_ not in load(run.method).decoded_maps(run.hyper):
            message = f"{name} scores the {map_} that a decoder paints, and {short(run.method)} paints none"
            message = f"{message}; leave it out, or choose {_having('decoded_map')}"
            raise SpecError(message, f"evals.{name}", "method")
        read = evaluation.feature.joined(run.modality) if evaluation.feature.is_joint else ()
        if unread := [other for other in read if other not in (run.modality, *run.beside)]:
            why = f"reads {unread[0]} beside {run.modality}, and {short(run.method)} learns from none"
            raise SpecError(f"{name} {why}; leave it out", f"evals.{name}", "method")
        if evaluation.feature.kind in ("pairs", "matched") or tower:
            own = f"evals.{name}.data.val" if evaluation.data.val else "data.val"
            check_beside(planned, planned.splits(name).val, own)


def _towers(run: Run) -> tuple[str, ...]:
    """Return the modalities beside samples that have encoders of their own."""
    return () if run.method in BASELINES or load(run.method).one_trunk else run.beside


def _has(method: str, own: str) -> bool:
    """Return whether a method has one of the functions that an objective may have."""
    return getattr(load(method), own) is not getattr(Method, own)


def _having(own: str) -> str:
    return " or ".join(name for name in names() if _has(name, own))


def check_beside(planned: PlannedRun, data: Manifest, path: str) -> None:
    """Raise SpecError where data lacks what the method reads beside its samples. path: of the setting that names it."""
    run = planned.run
    for name, knobs in run.kinds.beside.items():
        ready(name)
        kind, why = load_modality(name), f"{short(run.method)} learns from {name} beside {run.modality}"
        member = member_of(name)
        if member not in (*data.beside, *data.fields, *(data.annotations if kind.kin else ())):
            stored = load_modality(member)
            wanted = " or ".join(f".{suffix}" for suffix in (*stored.suffixes, *stored.others))
            remedy = f"give each sample a {wanted}, and run `selfsup shards index {data.home}`"
            raise SpecError(f"{why}, and no sample of {data.root} is known to have some; {remedy}", path)
        having = data.having(member)
        index, problem = np.unique(np.linspace(0, having.num_samples - 1, TRIED).astype(np.int64)), ""
        reading = data.reading(name)
        view = kind.whole(shape_beside(name, run.kinds, run.backbone, reading.channels).sizes, 1.0, knobs)
        for sample in SampleReader(having, name).read(index):
            try:
                extent = np.array([kind.extent(sample.data, reading)])
                kind.load(sample.data, kind.place(view, extent, np.zeros((1, kind.place_draws))), [view], reading)
            except DecodeError as error:
                problem = str(error)
            else:
                break
        else:
            raise SpecError(f"{why}: none of {len(index)} samples of {data.root} can be read: {problem}", path)
