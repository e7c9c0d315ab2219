#!/usr/bin/env bash
# The gaps of a discontinuous EDF+ recording are closed by MNE and by edfio: what follows one gets other times, and in MNE no events.
#
# Versions: mne 1.13.2, edfio 0.4.18, pyedflib 0.1.42, numpy 2.4.6, Python 3.11.
# Expected: EDF+D, by its definition, says in each record when it began; samples after a gap of 98 s begin 98 s later, or the reader
#   marks the place, or refuses the file as pyedflib does.
# Happens: MNE and edfio put all records end to end. Of four records of 1 s, at 0, 1, 100 and 101 s, both give a signal of 4 s. edfio keeps
#   the events' own times, 100.5 and 101.5 s, where it has no samples; MNE leaves these events out, and warns of annotations "outside
#   data range", not of a gap. Where there is still data at such a time, as in all recordings longer than their gaps, events
#   stay, on other samples than theirs: everything after the gap is labelled by what came 98 s later.
# Why it matters: clinical EEG and sleep recorders write EDF+D when a lead is off or a pause was pressed. Windows over the seam are two
#   moments joined, which a masked model of signals learns to predict; hypnograms and seizure labels slide by the gap, and the probe's
#   score falls with no error. Compare the first annotation of each record with its place, or read by pyedflib and see what it refuses.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check mne==1.13.2 edfio==0.4.18 pyedflib==0.1.42 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import warnings

import edfio
import mne
import numpy as np
import pyedflib

RATE = 100  # samples a second; a record is a second long
mne.set_log_level("warning")


def written(name: str, onsets: list[int], kind: str) -> str:
    """Write records of the constant values 10, 20, ... microvolts that begin at these seconds, each with an event in its middle."""
    fields = [("0", 8), ("X X X X", 80), ("Startdate 01-JAN-2020 X X X", 80), ("01.01.20", 8), ("00.00.00", 8), (768, 8), (kind, 44)]
    fields += [(len(onsets), 8), (1, 8), (2, 4)]
    for pair, width in (
        (("EEG Fpz-Cz", "EDF Annotations"), 16), (("", ""), 80), (("uV", ""), 8), (("-3276.8", -1), 8), (("3276.7", 1), 8),
        ((-32768, -32768), 8), ((32767, 32767), 8), (("", ""), 80), ((RATE, 30), 8), (("", ""), 32),
    ):  # fmt: skip
        fields += [(value, width) for value in pair]
    data = b"".join(str(value).ljust(width).encode() for value, width in fields)
    for number, onset in enumerate(onsets):
        data += np.full(RATE, 100 * (number + 1), "<i2").tobytes()
        data += f"+{onset}\x14\x14\0+{onset}.5\x14event {number}\x14\0".encode().ljust(60, b"\0")
    with open(name, "wb") as file:
        file.write(data)
    return name


def by_mne(name: str) -> tuple[float, list[float], list[float]]:
    """-> seconds, times of events, microvolts at the middle of each second"""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        raw = mne.io.read_raw_edf(name, preload=True)
    for warning in caught:
        print("  MNE warns:", warning.message)
    return raw.n_times / RATE, raw.annotations.onset.tolist(), (1e6 * raw.get_data()[0, RATE // 2 :: RATE]).round(6).tolist()


def by_edfio(name: str) -> tuple[float, list[float], list[float]]:
    file = edfio.read_edf(name)
    return file.duration, [event.onset for event in file.annotations], file.signals[0].data[RATE // 2 :: RATE].round(6).tolist()


whole, gap = written("whole.edf", [0, 1, 2, 3], "EDF+C"), written("gap.edf", [0, 1, 100, 101], "EDF+D")
late = written("late.edf", [0, *range(2, 8)], "EDF+D")  # a gap of a second after the first record
for name, reader, events in (
    (whole, by_mne, [0.5, 1.5, 2.5, 3.5]), (whole, by_edfio, [0.5, 1.5, 2.5, 3.5]),
    (gap, by_mne, [0.5, 1.5]), (gap, by_edfio, [0.5, 1.5, 100.5, 101.5]),
):  # fmt: skip
    seen = reader(name)
    print(f"{name} {reader.__name__}: {seen[0]:g} s, events at {seen[1]}, values {seen[2]}")
    assert seen == (4, events, [10, 20, 30, 40]), "the behaviour has changed"
_, events, values = by_mne(late)
labelled = [values[int(time)] for time in events]
print(f"late.edf by_mne: events 0, 1, 2 ... lie on values of {labelled}, their records' are 10, 20, 30 ...")
assert labelled == [10, 30, 40, 50, 60, 70], "the behaviour has changed"
try:
    pyedflib.EdfReader(gap)
except OSError as error:
    print("gap.edf by pyedflib:", error)
else:
    raise AssertionError("the behaviour has changed")
PY
env/bin/python see.py
