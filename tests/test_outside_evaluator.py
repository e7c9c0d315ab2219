"""Evaluations of the user's own: found, checked, named and told apart by their content."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from outsiders import planned, refused, spec_beside

from selfsup import codebase, outside
from selfsup.errors import SpecError
from selfsup.evaluator import Metric, load
from selfsup.evaluator_contract import example
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages import evaluate
from selfsup.spec import read
from selfsup.spec_schema import schema
from selfsup.sweeps.spec import sweepfile

SPREAD = '''"""The spread of features."""

from selfsup import Evaluator, Knobs, Metric, knob


class Spread(Evaluator):
    """Mean variance of a feature: label-free."""

    target = None
    metrics = {"spread": Metric(unit="", better="min")}

    class Hyper(Knobs):
        power: float = knob(1.0, "exponent", gt=0)

    def __init__(self, hyper):
        self.power = hyper.power

    def run(self, features, *, seed, device="cpu"):
        yield "spread", float(features.val.var(axis=0).mean() ** self.power)
'''
HEAD = "from selfsup import Evaluator, Knobs, Metric\n"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, shards: str) -> Write:
    """(text of the evaluator, folder=, file=, **knobs) -> a spec that uses it, beside it, as `own`."""

    def write(text: str, folder: str = "one", file: str = "spread.py", **knobs: Any) -> Path:
        evals = {"knn": {"k": 3}, "own": {"use": f"./{file}", **knobs}}
        return spec_beside(tmp_path / folder / file, text, shards, evals=evals)

    return write


def test_its_stage_is_named_by_the_file_and_is_the_same_wherever_that_lies(write: Write) -> None:
    one, two = planned(write(SPREAD)), planned(write(SPREAD, "two"))
    assert one.evals["own"].use != two.evals["own"].use
    assert one.id == two.id
    stage = one.probes["own"]
    assert (stage.kind, stage.name, stage.space) == ("spread", "own", "eval/own")
    assert one.embeds["own"] is one.embeds["knn"]
    assert one.params()["evals.own.use"] == "spread"
    assert one.evals["own"].metrics == {"eval/own/spread": Metric(unit="", better="min")}
    assert "spread.py" in codebase.modules(*stage.entries)


def test_its_stage_is_another_where_the_file_or_a_knob_computes_something_else(write: Write) -> None:
    change, remark = SPREAD.replace(".var(", ".std("), SPREAD.replace("label-free", "without labels")
    first, other, same = (planned(write(text, str(n))) for n, text in enumerate((SPREAD, change, remark)))
    assert first.id == same.id != other.id
    assert first.probes["knn"].key == other.probes["knn"].key
    assert planned(write(SPREAD, "knob", power=2.0)).id != first.id


def test_a_run_with_it_survives_pickling_and_is_found_by_another_process(write: Write) -> None:
    run = planned(write(SPREAD)).run
    assert pickle.loads(pickle.dumps(run)) == run


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 / 0", r"spread\.py fails: \S*spread\.py:19: ZeroDivisionError: division by zero"),
        ('yield "other", 1.0', r"spread\.py: it yields other, which is not in metrics; `selfsup check-evaluator "),
        ('yield "spread", "much"', r"spread\.py: spread is neither a finite number nor a bool for each of 30 val"),
    ],
)
def test_what_it_does_wrong_as_it_runs_is_told(write: Write, line: str, message: str) -> None:
    first, _, _ = SPREAD.rpartition("yield ")
    own = planned(write(first + line + "\n")).evals["own"]
    code = codebase.unshipped_digest("evals", own.use)
    with pytest.raises(SpecError, match=message):
        evaluate._probe(own.use, own.hyper, lambda **_: example(own.evaluator), 1, 0, code, 256)


def test_its_knobs_are_checked_as_those_of_a_shipped_one(write: Write) -> None:
    assert refused(write(SPREAD, powr=1.0)).endswith("evals.own.powr: unknown key (did you mean 'power'?)")
    assert refused(write(SPREAD), "evals.own.power=-1").endswith("evals.own.power: must be > 0, not -1")


def test_on_the_command_line_a_file_is_relative_to_the_current_folder(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = write(SPREAD)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "other.py").write_text(SPREAD)
    monkeypatch.chdir(tmp_path / "here")
    [run] = plan(read(spec, ["evals.own.use=other.py"]), tmp_path / "home")
    assert run.evals["own"].use == str(tmp_path / "here" / "other.py")
    (tmp_path / "here" / "child.yaml").write_text("extends: ../one/s.yaml\nevals: {own: {power: 3.0}}")
    [run] = plan(read(Path("child.yaml")), tmp_path / "home")
    assert run.evals["own"].use == str(tmp_path / "one" / "spread.py")


def test_a_search_goes_the_way_of_its_metric(write: Write) -> None:
    spec = write(SPREAD)
    text = yaml.safe_load(spec.read_text()) | {"search": {"metric": "eval/own/spread"}}
    spec.write_text(yaml.safe_dump(text | {"hyper": {"temperature": {"search": [0.1, 0.5]}}}))
    found = sweepfile.read(spec)
    assert found.search
    assert found.search.objectives == {"eval/own/spread": "min"}


WRONG = {
    HEAD: "{file} must define one subclass of selfsup.Evaluator, and has none",
    SPREAD.replace("def run", "def walk"): "{file}: Spread lacks run",
    SPREAD.replace("metrics =", "numbers ="): '{file}: Spread lacks metrics, such as metrics = {{"top1": Metric()}}',
    SPREAD.replace('{"spread": M', '{"the spread": M'): (
        "{file}: the name of a metric is a letter, then letters, digits, - and _, not 'the spread'"
    ),
    SPREAD.replace('better="min"', "better=None"): (
        "{file}: spread is a column of tables, so say better: max or min, or headline=False"
    ),
    SPREAD.replace("knob(1.0", "knob(0.0"): (
        "{file}: Spread.Hyper: power: the default 0.0 is not valid: it should be greater than 0"
    ),
    SPREAD + "1 / 0\n": "{file} cannot be imported: {file}:20: ZeroDivisionError: division by zero",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_what_is_no_evaluator_is_told_at_its_place(write: Write, text: str, message: str) -> None:
    spec = write(text)
    line = next(n for n, line in enumerate(spec.read_text().splitlines(), 1) if "use:" in line)
    assert refused(spec) == f"{spec}:{line}:10: evals.own.use: {message.format(file=spec.parent / 'spread.py')}"


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("gone.py", "there is no file {here}/gone.py"),
        ("knn.py", "knn is a name that selfsup has itself; give the file another name"),
        ("embed.py", "embed is a name that selfsup has itself; give the file another name"),
        ("selfsup.knob:Knobs", "selfsup.knob:Knobs is no subclass of selfsup.Evaluator; the module has none"),
        ("a:b:c", "expected a file, as in ./mine.py, or module:Class, as in my_lab.methods:Mine, not 'a:b:c'"),
    ],
)
def test_what_cannot_be_named_is_told(write: Write, monkeypatch: pytest.MonkeyPatch, use: str, message: str) -> None:
    spec = write(SPREAD)
    monkeypatch.chdir(spec.parent)
    expected = f"-s evals.own.use={use}: evals.own.use: {message.format(here=spec.parent)}"
    assert refused(spec, f"evals.own.use={use}") == expected


def test_a_class_of_an_installed_package_serves_as_well(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "evals_of_a_lab.py").write_text(SPREAD)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    spec = write(SPREAD)
    [run] = plan(read(spec, ["evals.own.use=evals_of_a_lab:Spread"]), tmp_path / "home")
    assert run.probes["own"].kind == "spread"
    assert "evals_of_a_lab" in codebase.modules(*run.probes["own"].entries)
    assert load("evals_of_a_lab:Spread").__name__ == "Spread"


def test_the_schema_takes_one(write: Write) -> None:
    assert outside.is_file("./spread.py")
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(write(SPREAD).read_text()))
