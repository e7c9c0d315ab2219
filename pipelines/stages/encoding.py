"""Features of many samples, written by the slot of a run or by Ray Data: the same ones."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
import torch
from numpy.typing import NDArray

from selfsup.pipelines.stages.embedded import EmbeddedTrain
from selfsup.pipelines.stages.encoder_source import Columns, Encode, Source
from selfsup.pipelines.stages.filled import READ_BATCH, write
from selfsup.pipelines.stages.tasks import cpus_of, gpus_of_task, slot_for
from selfsup.sealed import sealed
from selfsup.spec import Run

BLOCK = 4 * READ_BATCH  # samples that are loaded together


def write_features(
    source: Source,
    load: Callable[[Columns], Columns],
    run: Run,
    total: int,
    folder: Path,
    known: EmbeddedTrain | None = None,
) -> dict[str, float]:
    """Write the features of so many views to a folder, or nothing. load: their numbers -> those that can be decoded.

    known: others, which are made already.
    """
    with sealed(folder / "features") as part:
        if place := slot_for(total):
            threads = max(1, math.ceil(place.kind.resources.get("CPU", 0)))
            parts = place.share(partial(_encode_part, source, load, total, run.embed.batch, part, threads))
            for extra in set(part.glob("*.parquet")) - {part / f"{rank}.parquet" for rank in range(len(parts))}:
                extra.unlink()  # of an attempt by more workers
        else:
            numbers = ray.data.range(total, override_num_blocks=-(-total // BLOCK))
            samples = numbers.map_batches(load, batch_size=READ_BATCH, num_cpus=cpus_of(run))
            encode = encoded(samples, Encode, source, batch=run.embed.batch, cpus=cpus_of(run))
            encode.write_parquet(str(part))
        if known:
            known.copy(part)
            total += known.samples
    table = pq.read_table(folder / "features", columns=["id"])
    return {"samples": float(len(table)), "undecodable": float(total - len(table))}


def _encode_part(
    source: Source,
    load: Callable[[Columns], Columns],
    total: int,
    batch: int,
    folder: Path,
    threads: int,
    rank: int,
    world: int,
) -> None:
    """Write the features of a worker's part of so many views to a file, in blocks and batches as Ray Data has them."""
    encode, place = Encode(source), torch.cuda.current_device() if torch.cuda.is_available() else None
    encode.warm()

    def table(ids: NDArray[np.int64]) -> pa.Table | None:
        if place is not None:
            torch.cuda.set_device(place)  # of the thread
        parts = [load({"id": some}) for some in np.split(ids, range(READ_BATCH, len(ids), READ_BATCH))]
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        starts = range(0, len(rows["id"]), batch)
        made = [encode({name: column[start : start + batch] for name, column in rows.items()}) for start in starts]
        return pa.concat_tables(made) if made else None

    size = total // math.ceil(total / BLOCK)
    blocks_of_ids = np.split(np.arange(total), range(size, total, size))[rank::world]
    with ThreadPoolExecutor(threads) as pool:
        write(filter(None, pool.map(table, blocks_of_ids)), folder / f"{rank}.parquet")
    Encode.forget()


def encoded(
    samples: ray.data.Dataset, encode: Callable[[Any], Any], source: Any, *, batch: int, cpus: float
) -> ray.data.Dataset:
    """Return features of samples. encode: a class of batch -> batch, made of `source`: on GPUs where there are any."""
    if gpus_of_task():
        return samples.map_batches(encode, fn_constructor_args=(source,), batch_size=batch, num_gpus=1)
    return samples.map_batches(encode(source), batch_size=batch, num_cpus=cpus)
