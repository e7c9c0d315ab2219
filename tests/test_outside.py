"""Objectives of the user's own: found, checked, named and told apart by their content."""

import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from outsiders import planned, refused, spec_beside

import selfsup.methods.simclr
from selfsup import codebase, method, outside
from selfsup.describe import knobs
from selfsup.errors import SpecError
from selfsup.pipelines.stages.batches import Task
from selfsup.pipelines.stages.worker import check_code
from selfsup.shipped import files
from selfsup.spec import read
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.expand import expand

SIMCLR = Path(selfsup.methods.simclr.__file__).read_text()
HEAD = "from selfsup import Knobs, Method\n"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, shards: str) -> Write:
    """(text of the objective, folder=, name=, **sections) -> a spec that names it, beside it."""

    def write(text: str, folder: str = "one", name: str = "mine.py", **sections: Any) -> Path:
        own = {"name": "own", "method": f"./{name}", "data": {"train": shards}}
        return spec_beside(tmp_path / folder / name, text, shards, **own | sections)

    return write


def test_a_run_is_named_by_the_file_and_is_the_same_wherever_that_lies(write: Write) -> None:
    one, two = planned(write(SIMCLR)), planned(write(SIMCLR, "two"))
    assert one.run.method != two.run.method
    assert one.id == two.id
    assert one.id.startswith("mine-")
    assert (one.label, one.params()["method"]) == ("mine", "mine")
    assert one.pretrain
    assert one.pretrain.resolved["method"] == "mine"
    assert "mine.py" in codebase.modules(*one.pretrain.entries)
    assert "parts.contrastive" in codebase.modules(*one.pretrain.entries)


def test_a_run_is_another_where_the_file_computes_something_else(write: Write) -> None:
    change = SIMCLR.replace("temperature=self.temperature)", "temperature=2 * self.temperature)")
    remark = SIMCLR.replace("# figure 9", "# figure 9, left")
    first, other, same = (planned(write(text, str(n))).id for n, text in enumerate((SIMCLR, change, remark)))
    assert first != other
    assert first == same


def test_its_knobs_are_checked_as_those_of_a_shipped_method(write: Write) -> None:
    assert refused(write(SIMCLR, hyper={"temperatur": 1.0})).endswith(
        "hyper.temperatur: unknown key (did you mean 'temperature'?)"
    )
    assert refused(write(SIMCLR), "hyper.temperature=-1").endswith("hyper.temperature: must be > 0, not -1")
    assert read(write(SIMCLR), ["hyper.temperature=0.5"]).runs[0].hyper.temperature == 0.5  # type: ignore[attr-defined]
    path = write(SIMCLR).parent / "mine.py"
    assert "hyper.temperature" in knobs(str(path))


def test_on_the_command_line_a_file_is_relative_to_the_current_folder(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = write(SIMCLR)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "other.py").write_text(SIMCLR)
    monkeypatch.chdir(tmp_path / "here")
    assert read(spec, ["method=other.py"]).method == str(tmp_path / "here" / "other.py")
    (tmp_path / "here" / "child.yaml").write_text("extends: ../one/own.yaml")
    assert read(Path("child.yaml")).method == str(tmp_path / "one" / "mine.py")


def test_a_sweep_compares_own_and_shipped_objectives_by_name(write: Write, tmp_path: Path) -> None:
    spec = write(SIMCLR)
    studies: list[dict[str, Any]] = [{"extends": "own.yaml"}, {"extends": "own.yaml", "method": "simclr"}]
    studies[0]["ablate"] = {"hyper.temperature": [0.1, 0.5]}
    (path := spec.parent / "sweep.yaml").write_text(yaml.safe_dump({"name": "both", "studies": studies}))
    sweep, runs = expand(sweepfile.read(path), tmp_path / "home")
    assert [(study.name, study.method, len(study.arms)) for study in sweep.studies] == [
        ("mine", "mine", 2),
        ("simclr", "simclr", 1),
    ]
    assert sorted(run.method for run in runs.values()) == ["mine", "mine", "simclr"]


KNOBS = SIMCLR.replace("class Hyper(Knobs)", "class Knob(Knobs)").replace("hyper: Hyper", "hyper: Knob")
BARE = re.sub(r"blur: float = knob\(.*\)", "blur: float = 0.5", SIMCLR)
WRONG = {
    HEAD: "{file} must define one subclass of selfsup.Method, and has none",
    SIMCLR + SIMCLR.replace("class SimCLR", "class Other"): (
        "{file} must define one subclass of selfsup.Method, and has SimCLR, Other"
    ),
    SIMCLR.replace("def forward", "def backward"): "{file}: SimCLR lacks forward",
    KNOBS: "{file}: SimCLR lacks Hyper, a class of its knobs: class Hyper(Knobs): ...",
    BARE: "{file}: SimCLR.Hyper.blur must be declared with knob(...)",
    HEAD + "\n\nimport no_such_package\n": (
        "{file} cannot be imported: {file}:4: ModuleNotFoundError: No module named 'no_such_package'"
    ),
    HEAD + "def half():\n    return 1 / 0\n\nhalf()\n": (
        "{file} cannot be imported: {file}:3: ZeroDivisionError: division by zero"
    ),
    HEAD + "class Mine(Method:\n": "{file} cannot be imported: {file}:2: SyntaxError: invalid syntax",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_what_is_no_objective_is_told_at_its_place(write: Write, text: str, message: str) -> None:
    spec = write(text)
    line = next(number for number, line in enumerate(spec.read_text().splitlines(), 1) if line.startswith("method"))
    assert refused(spec) == f"{spec}:{line}:9: method: {message.format(file=spec.parent / 'mine.py')}"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("gone.py", "there is no file {here}/gone.py"),
        ("pixels.py", "pixels is a name that selfsup has itself; give the file another name"),
        ("simclr.py", "simclr is a name that selfsup has itself; give the file another name"),
        ("'my own.py'", "the name of a file becomes part of ids: a letter, then letters, digits, - and _"),
        ("a:b:c", "expected a file, as in ./mine.py, or module:Class, as in my_lab.methods:Mine, not 'a:b:c'"),
        (
            "no_such_lab.methods:Mine",
            "no module no_such_lab is installed; install its package where selfsup runs; for a submitted job, on every "
            "machine of the cluster",
        ),
        ("selfsup.knob:Knobs", "selfsup.knob:Knobs is no subclass of selfsup.Method; the module has none"),
    ],
)
def test_what_cannot_be_named_is_told(write: Write, monkeypatch: pytest.MonkeyPatch, method: str, message: str) -> None:
    spec = write(SIMCLR)
    monkeypatch.chdir(spec.parent)
    expected = f"-s method={method}: method: {message.format(here=spec.parent)}"
    assert refused(spec, f"method={method}") == expected


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """(module, text): a package my_lab with a SimCLR of its own, as if installed; its loss is in a module beside."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def put(name: str, text: str) -> None:
        (tmp_path / "site" / "my_lab").mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / "my_lab" / f"{name}.py").write_text(text)
        forget()

    put("__init__", "")
    put("losses", "from selfsup.parts.contrastive import nt_xent\n")
    put("unused", "")
    put("methods", SIMCLR.replace("from selfsup.parts.contrastive import nt_xent, ", "from .losses import nt_xent\nfrom selfsup.parts.contrastive import ").replace("SimCLR", "Mine"))  # fmt: skip # noqa: E501
    return put


def test_a_class_of_an_installed_package_counts_with_what_it_imports_from_there(
    write: Write, lab: Callable[[str, str], None]
) -> None:
    spec = write("", method="my_lab.methods:Mine")
    before = planned(spec)
    assert before.id.startswith("mine-")
    assert before.pretrain
    assert {"my_lab.methods", "my_lab.losses", "parts.contrastive"} <= set(codebase.modules(*before.pretrain.entries))
    lab("unused", "changed = 1\n")
    assert planned(spec).id == before.id
    lab("losses", "from selfsup.parts.contrastive import nt_xent\nchanged = 1\n")
    assert planned(spec).id != before.id
    for name in [name for name in sys.modules if name.startswith("my_lab")]:
        del sys.modules[name]


def test_a_worker_refuses_a_file_that_computes_something_else_than_planned(write: Write) -> None:
    spec = write(SIMCLR)
    run, file = planned(spec), spec.parent / "mine.py"
    assert run.pretrain
    task = Task(run.run, run.train, run.order, run.info, run.pretrain.folder, dict(run.pretrain.resolved), run.stats)
    check_code(task)
    file.write_text(SIMCLR.replace("# figure 9", "# figure 9, left"))
    forget()
    check_code(task)
    file.write_text(SIMCLR.replace("temperature=self.temperature)", "temperature=2 * self.temperature)"))
    forget()
    with pytest.raises(SpecError, match=r"mine\.py has changed since the run was planned; run the same command again"):
        check_code(task)


def forget() -> None:
    """Read files anew, as another process would."""
    for cached in (outside.text, codebase.modules, codebase._module):
        cached.cache_clear()


def test_what_a_file_defines_is_unpickled_by_a_process_that_has_not_read_it(write: Write) -> None:
    rule = "\n\nclass Rule:\n    share = 0.25\n"
    spec = write(SIMCLR + rule, "rules")
    loaded = sys.modules[method.load(read(spec).method).__module__]
    data = pickle.dumps(loaded.Rule)
    del sys.modules[loaded.__name__]
    assert pickle.loads(data).share == 0.25


def test_relative_data_and_weights_are_relative_to_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "base.yaml").write_text(
        "name: x\nmethod: simclr\ndata: {train: shards/train, val: ~/val}\nbackbone: {weights: ./vit.pth}\n"
        "train: {duration: {steps: 1}, batch: 32}\n"
        "evals: {birds: {use: knn, data: {train: birds, val: s3://bucket/birds}}}\n"
    )
    (tmp_path / "child.yaml").write_text("extends: lab/base.yaml\nbackbone: {image_size: 32}\n")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    spec = read(Path("child.yaml"), ["backbone.weights=other.pth"])
    assert spec.data.train == str(tmp_path / "lab" / "shards" / "train")
    assert spec.data.val == "/home/me/val"
    assert spec.backbone.weights == str(tmp_path / "other.pth")
    assert spec.evals.birds.data.train == str(tmp_path / "lab" / "birds")  # type: ignore[attr-defined]
    assert spec.evals.birds.data.val == "s3://bucket/birds"  # type: ignore[attr-defined]
    assert read(Path("child.yaml")).backbone.weights == str(tmp_path / "lab" / "vit.pth")
    (tmp_path / "own.yaml").write_text("extends: in1k/mae\n")  # of a shipped spec, to the current folder
    for name in ("own.yaml", "in1k/mae", str(files()["in1k/mae"])):
        assert read(name).data.train == str(tmp_path / "in1k" / "train")
