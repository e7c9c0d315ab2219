"""Right answers: test sets of which a sample has several, as ImageNet-ReaL's, or classes that are several of train."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plans import PLACE, Home
from sklearn.metrics import top_k_accuracy_score

from selfsup.errors import DataError, SpecError
from selfsup.evals.knn import KNN
from selfsup.evaluator import Features
from selfsup.pipelines.data.answers import AnswerSource
from selfsup.pipelines.stages.evaluate import features
from selfsup.sealed import sealed

SOME = {"a/0": ["a", "b"], "0": ["a"], "b": [1]}  # val has a/0, a/1, b/0, b/1: of a/1 nothing is said


def write(home: Home, answers: object) -> str:
    (home.folder / "answers.json").write_text(json.dumps(answers))
    return "answers.json"


def source(home: Home, answers: object) -> AnswerSource:
    splits = home.run(evals__real={"use": "knn", "k": 3}).splits("real")
    return AnswerSource(str(home.folder / write(home, answers)), *splits, "image")


def test_a_sample_s_key_goes_before_its_last_part_and_its_class(home: Home) -> None:
    found = source(home, SOME).read(np.arange(16, 20))
    assert found.tolist() == [[True, True], [False, False], [True, False], [False, True]]


def stored(folder: Path, labels: Mapping[int, int]) -> Path:
    """Write features of samples, their numbers, by number and label."""
    ids = list(labels)
    feature = pa.FixedSizeListArray.from_arrays(pa.array(ids, pa.float32()), 1)
    split = pa.array([int(number >= 16) for number in ids])
    with sealed(folder / "features") as part:
        columns = {"id": pa.array(ids), "label": pa.array(list(labels.values())), "split": split, "feature": feature}
        pq.write_table(pa.table(columns), part / "0.parquet")
    return folder


def test_samples_without_an_answer_are_left_out_and_labels_do_not_count(home: Home, tmp_path: Path) -> None:
    answers = source(home, SOME)
    data = features(stored(tmp_path, {0: 0, 1: -1, 2: 1, 16: -1, 17: 0, 18: 1, 19: 1}), 2, answers=answers)
    assert (data.train[:, 0].tolist(), data.val[:, 0].tolist()) == ([0, 2], [16, 18, 19])
    assert (data.train_label.tolist(), data.val_label.tolist()) == ([0, 1], [0, 0, 1])
    assert data.hits(np.array([1, 1, 1])).tolist() == [True, False, True]
    assert data.hits(np.array([[-1, 0], [1, -1], [0, 1]])).tolist() == [True, False, True]
    narrow = features(tmp_path, 3, answers=answers, narrow=True)
    assert narrow.among is not None
    assert narrow.among.tolist() == [True, True]


def test_one_right_answer_is_top_k_accuracy() -> None:
    draw = np.random.default_rng(0)
    label, logits = draw.integers(0, 9, 400), draw.normal(size=(400, 9))
    data = Features(logits[:0], label[:0], logits, label, 9)
    for k in (1, 5):
        guess = logits.argsort(1)[:, -k:]
        expected = top_k_accuracy_score(label, logits, k=k)
        for right in (None, np.eye(9, dtype=bool)[label]):
            assert data._replace(right=right).hits(guess).mean() == pytest.approx(expected, abs=1e-12)


def test_neighbors_are_right_where_any_answer_is() -> None:
    """Two of four are of the class of their neighbor; of one more that class is right, too: 75 %."""
    place = np.eye(2, dtype=np.float32)
    train, val = place.repeat(3, 0), place.repeat(2, 0)
    own = np.array([0, 1, 1, 0])
    data = Features(train, np.array([0, 0, 0, 1, 1, 1]), val, own, 2)
    right = np.eye(2, dtype=bool)[own]
    right[1, 0] = True
    plain, several = (dict(KNN(KNN.Hyper(k=3)).run(one, seed=0)) for one in (data, data._replace(right=right)))
    assert np.mean(plain["top1"]) == 0.5
    assert np.mean(several["top1"]) == 0.75


def test_answers_change_scores_and_no_features(home: Home) -> None:
    one = {"use": "knn", "k": 3}
    first = home.run(evals__knn=one, evals__real=one | {"data": {"answers": write(home, SOME)}})
    assert first.embeds["real"].key == first.embeds["knn"].key
    assert first.probes["real"].key != first.probes["knn"].key
    second = home.run(evals__real=one | {"data": {"answers": write(home, {"a": ["b"]})}})
    assert second.probes["real"].key != first.probes["real"].key


def test_a_test_set_with_answers_needs_no_classes_of_train(home: Home) -> None:
    data = {"val": str(home.sets / "foreign" / "shards")}
    with pytest.raises(DataError, match="has the class 'c'"):
        home.run(evals__real={"use": "knn", "k": 3, "data": data})
    run = home.run(evals__real={"use": "knn", "k": 3, "data": data | {"answers": write(home, {"c": ["a", "b"]})}})
    assert run.splits("real").val.classes == ("a", "c")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["a"], r'expected lists by sample or class, such as {"val_1"'),
        ({"a/0": "a"}, "expected lists by sample or class"),
        ({"a/0": ["aa"]}, r"train has no class 'aa' \(its 2 are a, b \.\.\.\)"),
        ({"a/0": [2]}, "train has no class 2"),
        ({"a/0": [True]}, "train has no class True"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_where_it_is_named(home: Home, answers: object, expected: str) -> None:
    with pytest.raises(DataError, match=f"{PLACE}evals.real.data.answers: .*answers.json: {expected}"):
        home.run(evals__real={"use": "knn", "k": 3, "data": {"answers": write(home, answers)}})


def test_a_file_that_is_missing_or_of_no_sample_is_an_error(home: Home) -> None:
    with pytest.raises(DataError, match=r"evals\.real\.data\.answers: .*: cannot read right answers: No such file"):
        home.run(evals__real={"use": "knn", "k": 3, "data": {"answers": "missing.json"}})
    with pytest.raises(DataError, match=r"says of no sample of .* what is right, such as of 'b/1'"):
        source(home, {"c/0": ["a"]}).read(np.arange(16, 20))
    with pytest.raises(SpecError, match=r"evals\.found\.data\.answers: retrieval names no class; leave it out"):
        home.run(evals__found={"use": "retrieval", "data": {"answers": write(home, SOME)}})
