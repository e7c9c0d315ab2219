#!/usr/bin/env bash
# One missing p-value makes all p-values that statsmodels adjusts by Benjamini-Hochberg missing, and yet some of them significant.
#
# Versions: statsmodels 0.15.0, scipy 1.17.1, numpy 2.4.6, Python 3.11.
# Expected: a comparison whose p-value is NaN is left out, and the others are adjusted as if it were not there; or an error, as of
#   scipy's false_discovery_control.
# Happens: multipletests sorts NaN to the end and counts it as a hypothesis. By fdr_bh, fdr_by and hommel every adjusted value is NaN;
#   the decisions beside those of the first two, which are made of the raw values, still say True. By holm and bonferroni the others
#   are multiplied by one comparison too many: 0.02 of three becomes 0.06, not significant, where without the NaN it is 0.04.
# Why it matters: an arm of an ablation that diverged, or has one seed left, has no p-value. With it in the table none of the other
#   arms has an adjusted one, or all have larger ones, and stars taken from the decisions contradict the values printed.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

ARMS = [0.001, 0.02, np.nan, 0.04]  # the third one diverged
CLEAN = [p for p in ARMS if not np.isnan(p)]

for method in ("fdr_bh", "fdr_by", "hommel", "holm", "holm-sidak", "bonferroni"):
    significant, adjusted = multipletests(ARMS, method=method)[:2]
    print(f"{method:10} {np.round(adjusted, 4)} {significant}  without the NaN: {np.round(multipletests(CLEAN, method=method)[1], 4)}")
    if method in ("fdr_bh", "fdr_by", "hommel"):
        assert np.isnan(adjusted).all(), "the behaviour has changed"
    else:
        assert np.isnan(adjusted).sum() == 1, "the behaviour has changed"

significant, adjusted = multipletests(ARMS, method="fdr_bh")[:2]
assert significant.tolist() == [True, True, False, False] and np.isnan(adjusted).all(), "the behaviour has changed"
assert multipletests(CLEAN, method="fdr_bh")[0].all()  # 0.04 is significant without it, and not with it
assert np.allclose(multipletests(ARMS, method="holm")[1], [0.004, 0.06, np.nan, 0.08], equal_nan=True)
assert np.allclose(multipletests(CLEAN, method="holm")[1], [0.003, 0.04, 0.04])
try:
    false_discovery_control(ARMS)
except ValueError as error:
    print("scipy's false_discovery_control:", error)
else:
    raise AssertionError("the behaviour has changed")
PY
env/bin/python see.py
