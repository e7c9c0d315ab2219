#!/usr/bin/env bash
# polars adds 32-bit integers in 32 bits: the sizes of a data set's files sum to a negative number, and their mean is right.
#
# Versions: polars 2.1.0, pandas 3.1.1, pyarrow 26.0.1, duckdb 2.0.1, numpy 2.4.6, Python 3.11.
# Expected: a sum of integers is as wide as in pandas, pyarrow, DuckDB and NumPy, which add them in 64 bits or more, and as polars' own of
#   8 and 16 bits, which it widens; or an error, since the column's type holds no such number.
# Happens: Int32 and UInt32 stay what they are, and wrap round: 30,000 files of 110 kB are -994,967,296 bytes, and 40,000 of them as
#   UInt32 105,032,704. It is so in sum, cum_sum, group_by and over, by frames and lazily, and by polars' SQL; mean widens.
# Why it matters: lengths of recordings, frames of clips, tokens and bytes of members are what manifests of shards store in 32 bits, and
#   what plans of steps, caches and epochs add up. Cast to Int64 before, which .sum() of the same column in a test of 100 rows never needs.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check polars==2.1.0 pandas==3.1.1 pyarrow==26.0.1 duckdb==2.0.1 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

FILES, BYTES = 30_000, 110_000
RIGHT, WRAPPED = FILES * BYTES, FILES * BYTES - 2**32
size = np.full(FILES, BYTES, np.int32)
files = pl.DataFrame({"shard": np.zeros(FILES, np.int32), "size": size})

sums = {
    "sum": files["size"].sum(),
    "cum_sum": files["size"].cum_sum()[-1],
    "group_by": files.group_by("shard").agg(pl.col("size").sum())["size"][0],
    "over": files.select(pl.col("size").sum().over("shard"))["size"][0],
    "lazily": files.lazy().select(pl.col("size").sum()).collect().item(),
    "SQL": files.sql("select sum(size) as size from self").item(),
}
others = {
    "numpy": size.sum().item(),
    "pandas": files.to_pandas()["size"].sum().item(),
    "pyarrow": pc.sum(pa.array(size)).as_py(),
    "duckdb": int(duckdb.sql("select sum(size) from files").fetchall()[0][0]),
}
for name, value in (sums | others).items():
    print(f"{name:9} {value:>14,}")
assert set(sums.values()) == {WRAPPED} and set(others.values()) == {RIGHT}, "the behaviour has changed"
assert files["size"].mean() == BYTES

unsigned = pl.Series(np.full(40_000, BYTES, np.uint32)).sum()
print(f"40,000 files as UInt32: {unsigned:,}; 1000 of 60,000 as UInt16: {pl.Series(np.full(1000, 60_000, np.uint16)).sum():,}")
assert unsigned == 40_000 * BYTES - 2**32, "the behaviour has changed"
assert pl.Series(np.full(1000, 60_000, np.uint16)).sum() == 60_000_000
PY
env/bin/python see.py
