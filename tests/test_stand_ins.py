"""Plans without torch: the same ids, knobs and texts as with it, and never a number of a stand-in."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from command_line import SPEC, Done, packed_folder, process, selfsup
from test_ids import FILES, KNOWN, ROOT, SPECS

from selfsup import families, outside, outside_backbone, recall, stand_ins
from selfsup.describe import knob_data
from selfsup.method import names
from selfsup.stand_ins import NeedsTorch, Placeholder
from selfsup.sweeps.spec.sweepfile import read

DRAWN = "flexpredict", "ijepa"  # whose checks draw masks
FACTS = "unknown", "takes_tokens", "adds_positions", "takes_words", "is_hiera", "own_patch", "own_depth"
FACTS += ("has_class_token",)
LIGHT = f"""
import json, sys
from pathlib import Path
from selfsup import recall, stand_ins
recall.keep_under(lambda: Path(sys.argv[1]))
stand_ins.install()
sys.path.insert(0, {str(Path(__file__).parent)!r})
"""
IDS = f"""{LIGHT}
from test_ids import ids, ROOT
planned = {{}}
for name in sys.argv[2:]:
    try:
        planned[name] = ids(ROOT / name)
    except stand_ins.NeedsTorch:
        planned[name] = None
print(json.dumps(planned))
"""
KNOBS = f"""{LIGHT}
from selfsup.describe import knob_data
from selfsup.method import names
print(json.dumps({{name: knob_data(name) for name in names()}}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_folder(tmp_path_factory.mktemp("stand_ins"))


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with what a plan asks of each model that a shipped spec names."""
    home = tmp_path_factory.mktemp("home")
    words = {word for path in FILES for word in re.findall(r"\w+", path.read_text())}
    named = words & {*families.timm.list_models()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "_homes", [lambda: home])
        for of in (getattr(families, name) for name in FACTS):
            of.cache_clear()
            for name in named | {"vit_small_patch16_224"}:
                if families.takes_tokens(name) or of not in (families.adds_positions, families.has_class_token):
                    of(name)
            of.cache_clear()
    return home


def test_ids_of_shipped_specs_are_the_same_without_torch(facts: Path) -> None:
    shown = process("-c", IDS, str(facts), *(str(path.relative_to(ROOT)) for path in SPECS), cwd=ROOT)
    assert shown.code == 0, shown.err
    planned = json.loads(shown.out)
    with_torch = {name for name, ids in planned.items() if ids is None}
    assert {name: ids for name, ids in planned.items() if ids} == {
        name: ids for name, ids in KNOWN.items() if name not in with_torch
    }
    alone = {name for name in with_torch if not has_earlier(ROOT / name)}
    assert {Path(name).stem.partition("_")[0] for name in alone} <= {*DRAWN}, "what comes before a training is built"


def has_earlier(path: Path) -> bool:
    """Return whether an arm of a shipped spec learns from another training, or starts from one."""
    designs = read(path, ["data={train: /data, val: /data}"]).designs
    return any(arm.spec.teacher or arm.spec.start for design in designs for arm in design.settings)


def test_knobs_of_all_methods_are_the_same_without_torch(tmp_path: Path) -> None:
    shown = process("-c", KNOBS, str(tmp_path), cwd=tmp_path)
    assert shown.code == 0, shown.err
    assert json.loads(shown.out) == json.loads(json.dumps({name: knob_data(name) for name in names()}))


def command(folder: Path, *argv: str) -> tuple[Done, bool]:
    """-> what a command gives in a process of its own, and whether that imported torch itself."""
    shown = process("-X", "importtime", "-m", "selfsup", *argv, cwd=folder)
    lines = shown.err.splitlines(keepends=True)
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    rest = "".join(line for line in lines if not line.startswith("import time:"))
    return shown._replace(err=rest), "torch._C" in imported


def edited(folder: Path, name: str, **sections: object) -> str:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(SPEC | sections))
    return f"{name}.yaml"


def test_an_edited_spec_is_planned_without_torch_once_its_encoder_is_known(folder: Path) -> None:
    """The same texts as of a process that has imported torch."""
    longer = {"duration": {"steps": 6}, "batch": 8}
    specs = [
        ("first", {}),
        ("other_rate", {"optim": {"lr": 3e-4}, "seeds": 2, "train": longer}),
        ("other_knobs", {"ablate": {"hyper.mask_ratio": [0.5, 0.6]}}),
        ("wrong", {"hyper": {"mask_ratio": 2.0}, "backbone": SPEC["backbone"] | {"stem": "small"}}),
    ]
    for name, sections in specs:
        shown, has_torch = command(folder, "plan", edited(folder, name, **sections))
        assert has_torch == (name == "first"), name
        assert shown == selfsup("plan", f"{name}.yaml", cwd=folder), name
        assert shown.code == (2 if name == "wrong" else 0), shown.err


def test_the_status_of_a_search_is_read_without_torch(folder: Path) -> None:
    searched = {"hyper": {"mask_ratio": {"search": [0.5, 0.75]}}, "search": {"metric": "eval/knn/top1", "trials": 2}}
    spec = edited(folder, "searched", **searched)
    command(folder, "status", spec)  # its encoder is looked up
    shown, has_torch = command(folder, "status", spec)
    assert not has_torch
    assert shown == selfsup("status", spec, cwd=folder)
    assert "0 trials have begun" in shown.out, shown.err


def test_code_from_outside_is_read_with_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_ins._Finder, "has_been_used", True)
    (tmp_path / "mine.py").write_text("raise AssertionError('it is imported')")
    for name in (str(tmp_path / "mine.py"), "json:loads"):
        with pytest.raises(NeedsTorch):
            outside.imported(name)
    with pytest.raises(NeedsTorch):
        outside_backbone.config("hf:ViTConfig")


@pytest.mark.parametrize(
    "use",
    [
        lambda name: name(),
        lambda name: name.manual_seed(0),
        lambda name: isinstance(1, name.Tensor),
        lambda name: 1 if name.cuda.available else 0,
        lambda name: list(name),
        lambda name: len(name),
        lambda name: name < 1,
        lambda name: [name() for _ in range(1)],
    ],
)
def test_a_stand_in_gives_nothing_that_could_be_taken_for_a_result(use: object) -> None:
    with pytest.raises(NeedsTorch):
        use(Placeholder())  # type: ignore[operator]
    assert not issubclass(NeedsTorch, Exception), "no handler of errors takes it for one"


def test_a_fact_is_kept_in_a_command_alone_and_for_the_code_that_found_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(range(9))
    assert [recall.once("q", lambda: next(answers)) for _ in range(2)] == [0, 1]
    monkeypatch.setattr(recall, "_homes", [lambda: tmp_path])
    assert [recall.once("q", lambda: next(answers)) for _ in range(2)] == [2, 2]
    monkeypatch.setattr(recall, "code_digest", lambda: "another version of timm")
    assert recall.once("q", lambda: next(answers)) == 3
    assert sys.modules["torch"].__spec__, "this process has the real one"
