"""Evaluations as a spec names them: which evaluator, on which data, as which stage; and what is wrong with one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from tiny import BACKBONE

from selfsup import evaluator
from selfsup.errors import DataError, SpecError
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.spec import Spec, read
from selfsup.spec_schema import schema

HEAD = """\
name: photos
method: mae
"""
MINE = f"{HEAD}data: {{train: a, val: b}}\ntrain: {{duration: {{steps: 1}}}}\n"
CHOICE = " | ".join(evaluator.names())


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> Path:
    """own, val and flowers have labels of a and b; bare has none; foreign has b and c."""
    root = tmp_path_factory.mktemp("sets")
    for seed, (name, number) in enumerate({"own": 16, "val": 4, "flowers": 12, "flowers_val": 6}.items()):
        make(root / name, number=number, seed=seed)
    pack(root / "own" / "images" / "a", root / "bare" / "shards")
    shutil.copytree(root / "flowers" / "images", root / "foreign" / "images")
    (root / "foreign" / "images" / "a").rename(root / "foreign" / "images" / "c")
    pack(root / "foreign" / "images", root / "foreign" / "shards")
    return root


class Plans:
    def __init__(self, folder: Path, sets: Path) -> None:
        self.path, self._sets = folder / "spec.yaml", sets

    def place(self, name: str) -> str:
        return str(self._sets / name / "shards")

    def data(self, train: str, val: str) -> dict[str, str]:
        return {"train": self.place(train), "val": self.place(val)}

    def spec(self, evals: dict[str, Any], data: dict[str, str] | None = None, method: str = "mae") -> Spec:
        sections = {"backbone": BACKBONE, "train": {"duration": {"steps": 4}, "batch": 8}}
        told = {"name": "photos", "method": method, "data": data or self.data("own", "val"), **sections, "evals": evals}
        self.path.write_text(yaml.safe_dump(told))
        return read(self.path)

    def __call__(self, evals: dict[str, Any], **others: Any) -> PlannedRun:
        return plan(self.spec(evals, **others), self.path.parent)[-1]


@pytest.fixture
def plans(tmp_path: Path, sets: Path) -> Plans:
    return Plans(tmp_path, sets)


def keys(run: PlannedRun) -> list[str]:
    return [stage.key for stage in run.stages]


def test_a_name_alone_is_that_evaluator_on_the_run_s_own_data(plans: Plans) -> None:
    plain = plans({"knn": {"k": 3}})
    written_out = plans({"knn": {"use": "knn", "k": 3, "data": plans.data("own", "val")}})
    assert (plain.id, keys(plain)) == (written_out.id, keys(written_out))
    assert [stage.space for stage in plain.stages] == ["pretrain", "pictures", "embed", "eval/knn"]


def test_another_name_is_the_same_work_with_metrics_of_its_own(plans: Plans) -> None:
    plain, named = plans({"knn": {"k": 3}}), plans({"few": {"use": "knn", "k": 3}})
    assert keys(plain) == keys(named)
    assert plain.id != named.id
    assert named.stages[-1].space == "eval/few"
    assert list(named.evals["few"].metrics) == ["eval/few/top1", "eval/few/top5"]
    both = plans({"few": {"use": "knn", "k": 3}, "knn": {"k": 5}})
    assert [stage.space for stage in both.probes.values()] == ["eval/few", "eval/knn"]
    assert both.probes["few"].key == plain.probes["knn"].key != both.probes["knn"].key


def test_knobs_say_which_metrics_there_are(plans: Plans) -> None:
    run = plans({"few": {"use": "lowshot", "per_class": [1], "shares": []}})
    assert list(run.evals["few"].metrics) == ["eval/few/shot1"]


def test_the_order_in_a_file_makes_no_other_run(plans: Plans) -> None:
    first, second = {"few": {"use": "knn", "k": 3}}, {"knn": {"k": 5}}
    assert plans(first | second).id == plans(second | first).id


def test_data_is_embedded_once_for_all_that_read_it(plans: Plans) -> None:
    flowers = plans.data("flowers", "flowers_val")
    own = plans({"knn": {"k": 3}})
    run = plans(
        {
            "knn": {"k": 3},
            "flowers": {"use": "knn", "k": 3, "data": flowers},
            "more": {"use": "linear", "data": flowers},
        }
    )
    embeds = [stage for stage in run.stages if stage.kind == "embed"]
    assert [stage.space for stage in embeds] == ["embed/flowers", "embed"]
    assert run.embeds["flowers"] is run.embeds["more"] is embeds[0]
    assert (run.embeds["knn"].key, run.probes["knn"].key) == (own.embeds["knn"].key, own.probes["knn"].key)
    assert [name for name in run.data if name.startswith("flowers")] == ["flowers.train", "flowers.val"]
    assert run.data["flowers.train"].num_samples == 12


def test_validation_data_alone_leaves_training_data_the_run_s_own(plans: Plans) -> None:
    run = plans({"shift": {"use": "linear", "data": {"val": plans.place("flowers_val")}}})
    assert [data.num_samples for data in run.splits("shift")] == [16, 6]


def test_an_untrained_encoder_s_features_know_by_what_images_are_normalized(plans: Plans) -> None:
    """Other pre-training data has another mean: the same flowers have other features."""
    flowers = {"flowers": {"use": "linear", "data": plans.data("flowers", "flowers_val")}}
    found = {}
    for own in ("own", "foreign"):
        runs = plan(plans.spec(flowers, {"train": plans.place(own)}), plans.path.parent)
        found[own] = {run.run.method: run.embeds["flowers"].key for run in runs}
    assert found["own"]["pixels"] == found["foreign"]["pixels"]
    assert found["own"]["untrained"] != found["foreign"]["untrained"]


def test_naming_the_classes_of_a_test_set_alone_changes_its_scores_and_no_features(plans: Plans) -> None:
    data = {"val": plans.place("flowers_val")}
    free, narrow = (plans({"shift": {"use": "linear", "data": data | own}}) for own in ({}, {"only_its_classes": True}))
    assert free.embeds["shift"].key == narrow.embeds["shift"].key
    assert free.probes["shift"].key != narrow.probes["shift"].key
    with pytest.raises(SpecError, match=r"found\.data\.only_its_classes: retrieval names no class; leave it out"):
        plans({"found": {"use": "retrieval", "data": {"only_its_classes": True}}})


def test_a_run_without_labels_is_evaluated_on_data_that_has_them(plans: Plans) -> None:
    bare = {"train": plans.place("bare")}
    run = plans({"flowers": {"use": "linear", "data": plans.data("flowers", "flowers_val")}}, data=bare)
    assert run.train.num_labelled == 0
    assert run.splits("flowers").train.num_labelled == 12
    with pytest.raises(SpecError, match=r"evals\.few: few needs labels, .* of data\.train .* \(evals\.few\.data\)"):
        plans({"few": {"use": "knn", "k": 1}}, data=bare | {"val": plans.place("val")})


@pytest.mark.parametrize(
    ("evaluation", "error", "message"),
    [
        (
            {"use": "linear", "data": ("bare", "val")},
            SpecError,
            r"few needs labels.*8 samples of evals\.few\.data\.train",
        ),
        (
            {"use": "linear", "data": ("own", "bare")},
            SpecError,
            r"few needs labels.*8 samples of evals\.few\.data\.val",
        ),
        ({"use": "knn", "k": 13, "data": ("flowers", "val")}, SpecError, r"evals\.few\.k: 13 neighbors.* 12 labelled"),
        (
            {"use": "lowshot", "shares": [], "data": ("flowers", "val")},
            SpecError,
            r"evals\.few\.per_class: 3 splits of shot5 take 30 samples, but train has 12 labelled samples of 2 classes",
        ),
        (
            {"use": "linear", "data": ("own", "foreign")},
            DataError,
            r"\.data\.val: .*foreign.* class 'c', which none of the 2 classes of evals\.few\.data\.train",
        ),
        ({"use": "linear", "data": ("own", "nowhere")}, DataError, r"evals\.few\.data\.val: .*nowhere.*missing"),
    ],
)
def test_what_is_wrong_with_its_own_data_is_told_at_its_place(
    plans: Plans, evaluation: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=rf"spec\.yaml:\d+:\d+: .*{message}"):
        plans({"few": evaluation | {"data": plans.data(*evaluation["data"])}})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            "few: {use: knnn}",
            f"16: evals.few.use: expected {CHOICE}, not 'knnn' (did you mean",
        ),
        ("few: {use: 3}", f"16: evals.few.use: expected {CHOICE}, not 3"),
        (
            "few: {k: 3}",
            "5: evals.few: unknown key (a name of your own says which evaluation it is, as in {use: attention}: ",
        ),
        ("few: {use: knn, lrs: [1]}", "21: evals.few.lrs: unknown key"),
        ("few: {use: knn, data: {test: x}}", "28: evals.few.data.test: unknown key (there are train, val, classes, "),
        (
            "few: {use: knn, data: x}",
            "27: evals.few.data: expected {train, val, classes, only_its_classes, answers}, not 'x'",
        ),
        ("_few: {use: knn}", "5: evals._few: unknown key (a name of an evaluation is a letter, then letters, digits"),
        ("copy: {use: knn}", "5: evals.copy: unknown key (copy is a word of the program; choose another name)"),
    ],
)
def test_an_evaluation_that_is_none_is_told_at_its_place(tmp_path: Path, entry: str, expected: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"{MINE}evals:\n    {entry}\n")
    with pytest.raises(SpecError) as caught:
        read(path)
    assert f"{path}:6:{expected}" in str(caught.value)


def test_without_validation_data_those_that_need_it_are_named(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    evals = "{knn: {}, few: {use: knn, data: {val: b}}}"
    path.write_text(f"{HEAD}data: {{train: a}}\ntrain: {{duration: {{steps: 1}}}}\nevals: {evals}\n")
    with pytest.raises(SpecError, match=r"evals\.knn: knn cannot score without data\.val") as error:
        read(path)
    assert "few" not in str(error.value).splitlines()[0]


def test_a_null_takes_back_an_evaluation_of_an_extended_spec(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(f"{MINE}evals: {{few: {{use: knn}}, linear: {{}}}}\n")
    path = tmp_path / "s.yaml"
    path.write_text("extends: base.yaml\nevals: {few: null}\n")
    assert [name for name, knobs in read(path).runs[0].evals if knobs is not None] == ["linear"]
    path.write_text("extends: base.yaml\nevals: {linaer: null}\n")
    with pytest.raises(SpecError, match=r"unknown key \(did you mean 'linear'\?\)"):
        read(path)


def test_the_schema_takes_instances() -> None:
    validator = jsonschema.Draft202012Validator(schema())

    def valid(evals: str) -> bool:
        return bool(validator.is_valid(yaml.safe_load(f"{MINE}evals: {evals}\n")))

    assert valid("{knn: {k: 3}, few: {use: knn, k: 3}, flowers: {use: linear, data: {train: a, val: b}}}")
    for wrong in (
        "{few: {k: 3}}",
        "{few: {use: none}}",
        "{few: {use: knn, lrs: [1]}}",
        "{few: {use: knn, data: {x: y}}}",
    ):
        assert not valid(wrong), wrong
