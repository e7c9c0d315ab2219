"""Features of training samples that another stage has written: test sets beside one train embed it once."""

from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
import pyarrow.dataset

from selfsup import origin
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.filled import written
from selfsup.stage import Stage


class EmbeddedTrain(NamedTuple):
    """Features of a train split in the folder of a stage. samples: of the split, with those that cannot be decoded."""

    folder: Path
    samples: int

    def copy(self, folder: Path) -> None:
        """Write them to a folder, beside others. Raises DataError where a file is damaged or missing."""
        rows = written(self.folder).scanner(filter=pc.field("split") == 0)
        names = {"basename_template": "train-{i}.parquet", "existing_data_behavior": "overwrite_or_ignore"}
        pyarrow.dataset.write_dataset(rows, folder, format="parquet", **names)


def embedded_train(planned: PlannedRun, name: str) -> EmbeddedTrain | None:
    """Return what another stage of a run, by the same code, made of the training samples of an evaluation, if any."""
    stage, feature = planned.embeds[name], planned.feature(planned.evals[name]).whole
    if feature.is_predicted:  # of validation samples alone
        return None
    train = planned.splits(name).train
    for other, made_by in planned.embeds.items():
        is_same = planned.splits(other).train.digest == train.digest
        if is_same and planned.feature(planned.evals[other]).whole == feature and _is_of(made_by, stage):
            return EmbeddedTrain(made_by.folder, train.num_samples)
    return None


def _is_of(made_by: Stage, stage: Stage) -> bool:
    """Return whether a stage is another one that is done, by the code that makes this one."""
    code = origin.recorded_code(made_by)
    return made_by.key != stage.key and made_by.done and code is not None and code == origin.recorded_code(stage)
