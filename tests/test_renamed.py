"""A knob that was renamed: specs of before read as they did, and ids stay."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from selfsup import renamed
from selfsup.errors import SpecError
from selfsup.knob import Knobs, former_names, identity, knob, non_default
from selfsup.layers import Layers, plain
from selfsup.methods.simclr import SimCLR
from selfsup.source import Problem
from selfsup.spec import read
from selfsup.stage import digest
from selfsup.sweeps.spec import sweepfile


class Before(Knobs):
    tau: float = knob(0.1, "softmax temperature")
    width: int = knob(4, "channels")


class After(Knobs):
    temperature: float = knob(0.1, "softmax temperature", was="tau")
    width: int = knob(4, "channels")


class Outer(Knobs):
    head: After = knob(After(), "a group", was="top")


def test_ids_are_those_of_before() -> None:
    before, after = Before(tau=0.2, width=8), After(temperature=0.2, width=8)
    assert non_default(after) == non_default(before) == {"tau": 0.2, "width": 8}
    assert digest(identity(after)) == digest(identity(before))
    assert non_default(After()) == {}
    assert non_default(Outer(head=after)) == {"top": {"tau": 0.2, "width": 8}}


def test_no_knob_takes_the_old_name_of_another() -> None:
    class Taken(Knobs):
        temperature: float = knob(0.1, "one", was="tau")
        tau: float = knob(0.1, "another")

    with pytest.raises(AssertionError, match="name of another"):
        former_names(Taken)


def said(folder: Path, own: str, *overrides: str, base: str = "{}") -> tuple[object, list[Problem]]:
    (folder / "base.yaml").write_text(base)
    (folder / "own.yaml").write_text(f"extends: base.yaml\n{own}")
    problems: list[Problem] = []
    root = Layers().read(folder / "own.yaml", overrides)
    return plain(renamed.current(root, Outer, problems)), problems


def test_of_two_names_the_nearer_counts(tmp_path: Path) -> None:
    new, old = "head: {temperature: 1.0}", "head: {tau: 2.0}"
    assert said(tmp_path, "top: {tau: 2.0}") == ({"head": {"temperature": 2.0}}, [])
    assert said(tmp_path, old, base=new) == ({"head": {"temperature": 2.0}}, [])
    assert said(tmp_path, new, base=old) == ({"head": {"temperature": 1.0}}, [])
    assert said(tmp_path, new, "head.tau=3.0") == ({"head": {"temperature": 3.0}}, [])
    assert said(tmp_path, old, "head.temperature=3.0", base=new) == ({"head": {"temperature": 3.0}}, [])


def test_two_names_in_one_place_are_a_mistake(tmp_path: Path) -> None:
    _, (problem,) = said(tmp_path, "head: {tau: 2.0, temperature: 1.0}")
    assert (
        str(problem)
        .splitlines()[0]
        .endswith("own.yaml:2:18: head.temperature: one knob under two names; say temperature alone")
    )


@pytest.fixture
def tau() -> Iterator[None]:
    """As if SimCLR's temperature had been called tau."""
    notes = SimCLR.Hyper.model_fields["temperature"].metadata
    (place,) = [number for number, note in enumerate(notes) if hasattr(note, "was")]
    before = notes[place]
    notes[place] = replace(before, was="tau")
    former_names.cache_clear()
    renamed._remark.cache_clear()
    yield
    notes[place] = before
    former_names.cache_clear()


@pytest.mark.usefixtures("tau")
def test_specs_overrides_and_sweeps_say_the_old_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = Path("photos/simclr")
    assert read(name, ["hyper.tau=0.3"]).runs == read(name, ["hyper.temperature=0.3"]).runs
    assert non_default(read(name, ["hyper.tau=0.3"]).runs[0].hyper)["tau"] == 0.3
    assert capsys.readouterr().err.splitlines() == [
        "-s hyper.tau=0.3: hyper.tau is called temperature now; both names are read"
    ]
    (path := tmp_path / "s.yaml").write_text("extends: photos/simclr\nablate: {hyper.tau: [0.1, 0.3]}\n")
    (study,) = sweepfile.read(path).designs
    assert [factor.path for factor in study.factors] == ["hyper.temperature"]
    (path := tmp_path / "t.yaml").write_text(
        "extends: photos/simclr\nhyper: {tau: {search: auto}}\nsearch: {metric: eval/knn/top1}\n"
    )
    assert [str(dimension.path) for dimension in sweepfile.read(path).designs[0].space] == ["hyper.temperature"]
    with pytest.raises(SpecError, match=r"hyper\.tua: unknown key"):
        read(name, ["hyper.tua=0.3"])
