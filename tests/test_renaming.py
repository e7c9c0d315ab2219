"""Class maps: a further test set whose classes have other names."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from plans import PLACE, Home

from selfsup.errors import DataError
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.renaming import renamed
from selfsup.pipelines.stages.evaluate import Load
from selfsup.views import Center


def write(home: Home, names: object) -> str:
    (home.folder / "map.json").write_text(json.dumps(names))
    return "map.json"


def foreign(home: Home) -> str:
    return str(home.sets / "foreign" / "shards")  # two images of each of the classes a and c


def test_samples_have_the_classes_that_a_map_says(home: Home) -> None:
    data = {"val": foreign(home), "classes": write(home, {"a": "b", "c": None})}
    run = home.run(evals__knn={"k": 3}, evals__other={"use": "knn", "k": 3, "data": data})
    train, val = run.splits("other")
    assert (val.classes, train.classes) == (("b", ""), ("a", "b"))
    loaded = Load(train, val, Center(size=8))({"id": np.arange(train.num_samples, train.num_samples + 4)})
    assert loaded["label"].tolist() == [1, 1, -1, -1]  # of the second class of train, and of none
    assert pickle.loads(pickle.dumps(val)) == val


def test_a_class_that_train_lacks_is_none_where_no_label_is_read(home: Home) -> None:
    run = home.run(evals__other={"use": "spectrum", "data": {"val": foreign(home)}})
    train, val = run.splits("other")
    loaded = Load(train, val, Center(size=8))({"id": np.arange(train.num_samples, train.num_samples + 4)})
    assert sorted(loaded["label"].tolist()) == [-1, -1, 0, 0]  # twice c, and twice the first class of train


def test_another_map_is_another_evaluation(home: Home) -> None:
    data = {"val": foreign(home), "classes": write(home, {"c": "b"})}
    first = home.run(evals__other={"use": "knn", "k": 3, "data": data})
    write(home, {"c": "a"})
    second = home.run(evals__other={"use": "knn", "k": 3, "data": data})
    assert first.embeds["other"].key != second.embeds["other"].key
    assert first.embeds["knn"].key == second.embeds["knn"].key


def test_a_further_test_set_of_a_trained_head_trains_nothing_more(home: Home) -> None:
    short = {"epochs": 2, "batch": 8, "warmup": 0}
    data = {"val": foreign(home), "classes": write(home, {"c": "b"})}
    run = home.run(evals__finetune=short, evals__other=short | {"use": "finetune", "data": data})
    assert len(run.tunings) == 1
    assert run.embeds["finetune"].key != run.embeds["other"].key


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"d": "a"}, "has no class 'd'"),
        (["a"], "expected a mapping of names"),
        ({"c": "z"}, "has the class 'z', which none of the 2 classes"),
    ],
)
def test_what_is_no_map_of_these_classes_is_refused(home: Home, names: object, message: str) -> None:
    data = {"val": foreign(home), "classes": write(home, names)}
    with pytest.raises(DataError, match=PLACE + r"evals\.other\.data\." + f".*{message}"):
        home.run(evals__other={"use": "knn", "k": 3, "data": data})


def test_a_map_that_cannot_be_read_is_told(home: Home, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "missing.json"):
        with pytest.raises(DataError, match="cannot read the class map"):
            renamed(load(foreign(home)), str(tmp_path / name))
