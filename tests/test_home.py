"""What lies where a home, a record, a checkpoint, a spec or data should: one error of ours, or passed over."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import SPEC, selfsup
from mutations import records, torn
from test_checkpoint import RESOLVED, save, state

from selfsup import checkpoint, failures, hits, origin
from selfsup.errors import CheckpointError, SelfsupError, SpecError
from selfsup.failures import Failure
from selfsup.metrics_log import MetricsLog, sent_bytes, tail
from selfsup.mlflow_store import home
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.records import remember
from selfsup.pipelines.trained import find
from selfsup.sealed import DIGESTS, damage, digest
from selfsup.spec import read
from selfsup.sweeps.journal import Journal, journal_summary
from selfsup.sweeps.spec import outline
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.status import _run_status

ODD = [None, 1, -1, True, "x", [], {}, [1], {"a": 1}, 1.5, torch.zeros(1), torch.zeros(3, 3), 10**30]


def changed(folder: Path, draw: Random) -> bool:
    """Change a checkpoint; whether its digests were made to match what is wrong now."""
    file, note = folder / checkpoint.FILE, folder / DIGESTS
    match draw.randrange(4):
        case 0:
            file.write_bytes(torn(file.read_bytes(), draw))
            return False
        case 1:
            note.write_bytes(records(note.read_text(), draw.randrange(2**31)))
            return False
        case 2:
            file.write_bytes(torn(file.read_bytes(), draw))
        case 3:
            held = torch.load(file)
            tree, key = draw.choice(list(places(held)))
            tree[key] = draw.choice(ODD)
            if draw.random() < 0.3:
                del tree[key]
            torch.save(held, file)
    note.write_text(json.dumps({checkpoint.FILE: digest(file)}))
    return True


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (mapping or list, key in it)."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from places(tree[key])


def test_checkpoints(tmp_path: Path) -> None:
    """The one before is taken, or the folder is named; what is taken can be trained on."""
    for step in (1, 2):
        save(tmp_path / "whole", float(step), step=step)
    for seed in range(60):
        root = tmp_path / str(seed)
        shutil.copytree(tmp_path / "whole", root)
        matched = changed(root / "checkpoint_000000002", Random(seed))
        module, optimizer = state(-1.0)
        try:
            step, _ = checkpoint.resume(root, module=module, optimizer=optimizer, resolved=RESOLVED)
        except CheckpointError as error:
            assert matched, f"seed {seed}: the one before is whole"
            assert "checkpoint_000000002" in str(error), f"seed {seed}"  # noqa: PT017
        else:
            assert step in (1, 2)
            assert matched or next(module.parameters())[0, 0].item() == step, f"seed {seed}"
        assert len(list(root.iterdir())) == 2, f"seed {seed}: something was lost"


def test_a_file_that_no_digest_covers_is_damage(tmp_path: Path) -> None:
    folder = save(tmp_path, 1.0, step=1)
    (folder / ".nfs0001").touch()  # what a file system adds
    assert damage(folder) == ""
    (folder / DIGESTS).write_text("{}")
    assert damage(folder) == f"{checkpoint.FILE} is not as it was written"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make: Any) -> tuple[Path, PlannedRun]:
    """A folder with a spec and a home in which its one run has ended, and the run."""
    top = tmp_path_factory.mktemp("finished")
    data = make(top, number=20).root
    spec = SPEC | {"data": {"train": data, "val": data}, "baselines": False}
    (top / "tiny.yaml").write_text(yaml.safe_dump(spec))
    (run,) = plan(read(top / "tiny.yaml"), top / "home")
    remember(run)
    failures.write(Failure("user error", "SpecError", "so it was"), run.failure)
    for stage in run.stages:
        origin.claim(stage)
        (stage.folder / origin.ACCEPTED).write_text(json.dumps([{"modules": {"a": "1"}, "of": {}}]))
        if stage.kind != "knn":
            stage.finish({"top1": 1.0, "start_seconds": 2.0})
    assert run.pretrain
    hits.save(run.probes["knn"].folder, "digest", {"top1": np.ones(20, bool)})
    spool = MetricsLog(run.pretrain.spool)
    spool.append(1, {"samples_per_second": 2.0})
    spool.commit(1)
    (run.pretrain.folder / "encoder.safetensors").touch()
    (run.pretrain.folder / "sent.json").write_text(json.dumps({"run": "a", "sent": 1}))
    journal = Journal(Search(metric="eval/knn/top1"), "tiny", "key", run.home)
    for number in range(2):
        trial = journal._study.ask()
        trial.suggest_float("optim.lr", 0, 1)
        journal._study.tell(trial, float(number))
    return top, run


def looked_at(top: Path, run: PlannedRun) -> None:
    """Everything that a plan, a status and a report read of a home."""
    parts = [
        lambda: outline.measured(run.home),
        lambda: list(origin.describe(run.stages, origin.changes_by_key(run.stages))),
        lambda: _run_status(run),
        lambda: find(run.home, run.id),
        lambda: journal_summary("tiny", "key", run.home),
        lambda: [(stage.result(), stage.time) for stage in run.stages if stage.done],
        lambda: origin.settle(run.stages, "refuse"),
        lambda: (failure := failures.read(run.failure)) and failure.reason and failure.exception(),
        lambda: hits.read((run.probes["knn"].folder / hits.NAME).read_bytes()),
        lambda: (
            run.pretrain
            and (tail(run.pretrain.spool), sent_bytes(run.pretrain.folder / "sent.json", "a", top / "tiny.yaml"))
        ),
    ]
    for part in parts:
        try:
            part()
        except SelfsupError as error:
            message = str(error)
            assert str(run.home) in message
            assert any(word in message for word in ("remove", "--again", "move it away")), message


def records_of(top: Path, run: PlannedRun, seeds: range) -> None:
    files = sorted(path for path in run.home.rglob("*") if path.is_file() and path.stat().st_size)
    assert {"done.json", "stage.json", "code.json", "accepted.json", "images.json"} <= {path.name for path in files}
    for seed in seeds:
        path = files[seed % len(files)]
        whole = path.read_bytes()
        lines = path.suffix in (".jsonl", ".journal")
        packed = path.suffix == ".gz"
        path.write_bytes(
            of_lines(whole, seed) if lines else torn(whole, Random(seed)) if packed else records(whole.decode(), seed)
        )
        try:
            looked_at(top, run)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {path}: {path.read_bytes()[:1000]!r}") from error
        path.write_bytes(whole)


def of_lines(data: bytes, seed: int) -> bytes:
    """One mutation of a file of a record a line."""
    lines = data.splitlines()
    at = Random(seed).randrange(len(lines))
    return b"\n".join([*lines[:at], records(lines[at].decode(), seed), *lines[at + 1 :]]) + b"\n"


def test_records(finished: tuple[Path, PlannedRun]) -> None:
    looked_at(*finished)
    records_of(*finished, range(150))


@pytest.mark.slow
def test_thousands_of_records(finished: tuple[Path, PlannedRun]) -> None:
    records_of(*finished, range(150, 4000))


def test_a_damaged_note_of_the_code_counts_as_other_code(finished: tuple[Path, PlannedRun]) -> None:
    stage = finished[1].stages[0]
    note = stage.folder / origin.NOTE
    whole = note.read_bytes()
    note.write_bytes(whole[:20])
    assert origin.changes(stage) == (f"{origin.NOTE} (damaged)",)
    note.write_bytes(whole)


@pytest.mark.parametrize("place", ["~no.body", "loop", "file", "file/home"])
def test_a_home_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFSUP_HOME", place)
    with pytest.raises(SpecError, match=f"SELFSUP_HOME: {place}: .*expected a folder"):
        home()


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        ("plan folder", 2),
        ("plan binary", 2),
        ("plan empty", 2),
        ("plan /dev/null", 2),
        ("plan fifo", 2),
        ("plan loop", 2),
        ("plan \udcff.yaml", 2),
        ("plan tiny.yaml -s seeds", 2),
        ("plan tiny.yaml -s =1", 2),
        ("plan tiny.yaml -s", 2),
        ("sweep /dev/null", 2),
        ("submit folder", 2),
        ("plna tiny.yaml", 2),
        ("plan", 2),
        ("shards check manifest.json", 3),
        ("plan tiny.yaml -s data.train=file:///a%00b", 3),
        ("shards check file:///a%00b", 3),
        ("shards index shards", 3),
        *((f"plan tiny.yaml -s data.train={name}", 3) for name in ("manifest.json", "manifest-samples.npy")),
    ],
)
def test_odd_commands(finished: tuple[Path, PlannedRun], tmp_path: Path, argv: str, code: int) -> None:
    """One error, at once, and nothing is written."""
    for name in ("folder", "shards"):
        (tmp_path / name).mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "shards" / "0.tar")
    for name in ("manifest.json", "manifest-samples.npy"):  # a data set each, in which it is a pipe
        shutil.copytree(finished[0] / "shards", tmp_path / name)
        (tmp_path / name / name).unlink()
        os.mkfifo(tmp_path / name / name)
    shutil.copy(finished[0] / "tiny.yaml", tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = selfsup(*argv.split(" "), cwd=tmp_path)
    assert (done.code, done.out) == (code, ""), done
    assert "Traceback" not in done.err
    assert done.err.strip()
    assert sorted(path for path in tmp_path.rglob("*") if "mlflow.db" not in path.name) == before
