"""Features that an embed stage wrote, in any order and any number of files, as evaluations and objectives read them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from selfsup.pipelines.stages.evaluate import features, read_features
from selfsup.sealed import sealed

LABEL = np.array([0, -1, 1, 0, 1, 0, -1, 1])  # of five training samples, then of three others
SPLIT = np.array([0, 0, 0, 0, 0, 1, 1, 1])


def written(folder: Path, value: NDArray[np.float32]) -> Path:
    """Write features, (8, ...), in two files and out of order; sample 3 could not be decoded."""
    tokens = {"tokens": np.full(8, value.shape[1])} if value.ndim == 3 else {}
    columns: dict[str, Any] = {"label": LABEL, "split": SPLIT, "id": np.arange(8)} | tokens
    column = pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value[0].size)
    table = pa.table({name: pa.array(cells) for name, cells in columns.items()} | {"feature": column})
    with sealed(folder / "features") as part:
        pq.write_table(table.take([6, 0, 7]), part / "b.parquet")
        pq.write_table(table.take([5, 2, 4, 1]), part / "a.parquet")
    return folder


@pytest.mark.parametrize("shape", [(8, 6), (8, 3, 2)], ids=["pooled", "tokens"])
def test_features_are_in_the_order_of_the_data_set(tmp_path: Path, shape: tuple[int, ...]) -> None:
    value = np.arange(48, dtype=np.float32).reshape(shape)
    folder = written(tmp_path, value)
    table, everything = read_features(folder)
    assert table["id"].to_pylist() == [0, 1, 2, 4, 5, 6, 7]
    np.testing.assert_array_equal(everything, value[[0, 1, 2, 4, 5, 6, 7]])
    labelled, every = features(folder, 2), features(folder, 2, labelled=False)
    for found, train, val in ((labelled, [0, 2, 4], [5, 7]), (every, [0, 1, 2, 4], [5, 6, 7])):
        np.testing.assert_array_equal(found.train, value[train])
        np.testing.assert_array_equal(found.val, value[val])
        assert all(part.flags.writeable for part in found[:4]), "PyTorch warns of others"
        assert (found.train_label.tolist(), found.val_label.tolist()) == (LABEL[train].tolist(), LABEL[val].tolist())


@pytest.mark.parametrize("shape", [(8, 6), (8, 3, 2)], ids=["pooled", "tokens"])
def test_features_are_mapped_from_a_file_that_has_no_name(tmp_path: Path, shape: tuple[int, ...]) -> None:
    found = features(written(tmp_path, np.zeros(shape, np.float32)), 2)
    assert isinstance(found.train, np.memmap)
    assert isinstance(found.val, np.memmap)
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is Linux's")
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("r+b", buffering=0) as file:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: file)
        with pytest.raises(OSError, match="No space left"):
            read_features(written(tmp_path, np.zeros((8, 6), np.float32)))
