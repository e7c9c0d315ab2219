#!/usr/bin/env bash
# pyarrow reads 64-bit hashes from CSV as float64: different ids become one.
#
# Versions: pyarrow 26.0.1, polars 2.1.0, Python 3.11.
# Expected: a column of integers is read as integers, unsigned if they do not fit otherwise (pyarrow has uint64), or as text.
# Happens: inference knows int64 and then float64. One value of 2^63 or more turns the whole column into doubles, which have
#   53 bits: ids that differ in their last digits are equal, the small ones too. polars keeps them.
# Why it matters: xxhash, perceptual hashes and sample ids of web-scale image sets are unsigned 64-bit numbers, half of them
#   above 2^63. Joins of captions, labels or splits by such an id match the wrong samples, and deduplication by it drops what
#   is no duplicate.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pyarrow==26.0.1 polars==2.1.0 2>/dev/null
cat > see.py <<'PY'
import io

import polars
import pyarrow.csv

ids = [18446744073709551615, 18446744073709551001, 9007199254740993, 9007199254740992]
text = "id\n" + "".join(f"{number}\n" for number in ids)
by_pyarrow = pyarrow.csv.read_csv(io.BytesIO(text.encode()))["id"]
by_polars = polars.read_csv(io.StringIO(text))["id"]
print(f"pyarrow: {by_pyarrow.type}, {len(by_pyarrow.unique())} of {len(ids)} ids are different")
print(f"polars: {by_polars.dtype}, {by_polars.n_unique()} of {len(ids)} ids are different")
assert by_polars.to_list() == ids
assert str(by_pyarrow.type) == "double" and len(by_pyarrow.unique()) == 2, "the behaviour has changed"
PY
env/bin/python see.py
