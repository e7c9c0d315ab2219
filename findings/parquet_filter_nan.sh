#!/usr/bin/env bash
# Filters on a Parquet file do not find its NaNs: pyarrow passes over diverged runs, and DuckDB 2.0 says that there are none.
#
# Versions: pyarrow 26.0.1, duckdb 2.0.1, polars 2.1.0, Python 3.11.
# Expected: a filter gives the same rows whether it is pushed down to a file or applied to the table in memory: NOT (loss < 1)
#   keeps a loss of NaN, as pyarrow's expressions do in memory, and is_nan finds it.
# Happens: statistics of row groups leave NaN out, by the format's rule, and both readers take them for bounds of all values.
#   Where the other losses are equal, pyarrow folds is_nan(loss), loss != 0.5 and NOT (loss < 1) to false and reads nothing,
#   without an error; where they differ, it still loses the row of NOT (loss < 1). DuckDB gives no row for isnan(loss) or
#   NOT (loss < 1), and a finite max(loss), of a file that pyarrow wrote, though it shows the NaN in SELECT loss; only
#   read_parquet(..., can_have_nan=true) finds it. Polars finds it in all.
# Why it matters: results of sweeps lie in Parquet, thousands of runs in a row group. "Which runs diverged?", "all that are
#   not below 1" and a check that no feature is NaN answer without the rows that are asked for. Filter in memory instead.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pyarrow==26.0.1 duckdb==2.0.1 polars==2.1.0 2>/dev/null
cat > see.py <<'PY'
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

loss, nan = pc.field("loss"), float("nan")
FILTERS = {"is_nan": pc.is_nan(loss), "not < 1": ~(loss < 1), "!= 0.5": loss != 0.5}


def duck(file, what):
    return [value for (value,) in duckdb.sql(f"SELECT {what.replace('FILE', repr(file))}").fetchall()]


def seen(file, losses):
    table = pa.table({"run": ["a", "b", "c"], "loss": losses})
    pq.write_table(table, file)
    pyarrow = {
        name: [part["run"].to_pylist() for part in (table.filter(rule), pq.read_table(file, filters=rule))]
        for name, rule in FILTERS.items()
    }
    sql = {
        "shown": str(duck(file, "loss FROM FILE")),
        "isnan": duck(file, "run FROM FILE WHERE isnan(loss)"),
        "not < 1": duck(file, "run FROM FILE WHERE NOT (loss < 1)"),
        "max": duck(file, "max(loss) FROM FILE"),
        "isnan, can_have_nan": duck(file, "run FROM read_parquet(FILE, can_have_nan=true) WHERE isnan(loss)"),
    }
    lazy = pl.scan_parquet(file)
    rules = {"is_nan": pl.col("loss").is_nan(), "not < 1": ~(pl.col("loss") < 1)}
    polars = {name: lazy.filter(rule).collect()["run"].to_list() for name, rule in rules.items()}
    print(f"losses {losses}\n  pyarrow, in memory and from the file: {pyarrow}\n  duckdb: {sql}\n  polars: {polars}")
    return pyarrow, sql, polars


polars = {"is_nan": ["b"], "not < 1": ["b"]}
lost, kept = [["b"], []], [["b"], ["b"]]
sql = {"isnan": [], "not < 1": [], "isnan, can_have_nan": ["b"]}
equal = {"is_nan": lost, "not < 1": lost, "!= 0.5": lost}, sql | {"shown": "[0.5, nan, 0.5]", "max": [0.5]}, polars
others = {"is_nan": kept, "not < 1": lost, "!= 0.5": [["b", "c"], ["b", "c"]]}
differ = others, sql | {"shown": "[0.5, nan, 0.75]", "max": [0.75]}, polars
assert seen("equal.parquet", [0.5, nan, 0.5]) == equal, "the behaviour has changed"
assert seen("differ.parquet", [0.5, nan, 0.75]) == differ, "the behaviour has changed"
PY
env/bin/python see.py
