"""Seconds of audio a CPU second of the training stream, beside torchaudio's and librosa's spectrograms in a DataLoader.

python tests/benchmarks/audio.py FOLDER, with `pip install 'selfsup[bench]'`

All make batches of log-mel spectrograms of 1024 frames and 128 bins from the same recordings of ten seconds at 16 kHz,
in threads or worker processes of their own, as Audio-MAE's data set does: rolled, made louder or quieter, standardized.
They take turns; what is compared is CPU time of all processes. Each FLAC and WAV is a row.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a core a process
import numpy as np
import soundfile
import torch
from torch.utils.data import DataLoader, Dataset
from usage import SELDOM, Usage

from selfsup.modality import load as load_modality
from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.audio import AudioInput, AudioStats
from selfsup.views import Crop, Views

RATE, SECONDS, NUMBER = 16000, 10, 64
BATCH, BATCHES, WARMUP, TURNS = 16, 24, 4, 5
CORES = 2
STEPS = 100_000  # more than can be taken
MEMORY = 2**29  # bytes that our stream may hold


class Recordings(Dataset[torch.Tensor]):
    """The data set of Audio-MAE's authors, with soundfile for what torchaudio reads no more."""

    def __init__(self, folder: Path, spectrogram: Callable[[np.ndarray], torch.Tensor]) -> None:
        self.paths, self.spectrogram = sorted(folder.iterdir()), spectrogram

    def __len__(self) -> int:
        return 100 * len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        waveform, _ = soundfile.read(self.paths[number % len(self.paths)], dtype="float32")
        rolled = np.roll(waveform - waveform.mean(), np.random.randint(len(waveform)))
        values = self.spectrogram(rolled * np.float32(np.random.beta(10, 10) + 0.5))[:1024]
        padded = torch.nn.functional.pad(values, (0, 0, 0, 1024 - len(values)))
        return (padded + 4.27) / (2 * 4.57)


def torchaudio(waveform: np.ndarray) -> torch.Tensor:
    """(n,) -> (frames, 128): by Kaldi's filter bank, as Audio-MAE"""
    from torchaudio.compliance import kaldi

    told = {"htk_compat": True, "window_type": "hanning", "num_mel_bins": 128, "dither": 0.0}
    values: torch.Tensor = kaldi.fbank(torch.from_numpy(waveform)[None], sample_frequency=RATE, **told)
    return values


def librosa(waveform: np.ndarray) -> torch.Tensor:
    """(n,) -> (frames, 128): in decibels, of the same windows"""
    from librosa import feature, power_to_db

    power = feature.melspectrogram(y=waveform, sr=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=128)
    return torch.from_numpy(power_to_db(power).T)


def theirs(folder: Path, spectrogram: Callable[[np.ndarray], torch.Tensor]) -> Iterator[int]:
    loader = DataLoader(Recordings(folder, spectrogram), BATCH, shuffle=True, num_workers=CORES)
    return (len(batch) for batch in loader)


def ours(told: Manifest) -> Iterator[int]:
    kind, stats = load_modality("audio"), AudioStats(mean=-4.27, std=4.57)
    views = kind.views(Views((Crop(),)), (1024, 128), AudioInput())
    order = SampleOrder(samples=told.num_samples, batch=BATCH, seed=0)
    feed = Feed(SampleStream(told, order, views, STEPS), 0, 1, "threads", CORES, MEMORY)
    [view], draws = views.specs, kind.augment_draws(views.specs[0])
    for columns in feed.steps(0):
        values = kind.augment(torch.from_numpy(columns["view0"]), view, torch.rand(BATCH, draws))
        yield len(kind.normalize(values, view, stats))


def packed(folder: Path, kind: str) -> Path:
    """Return the folder of recordings of pink noise and a few tones; `shards` is beside it. Made once."""
    files = folder / f"{kind}-files"
    if (folder / f"{kind}-shards" / "manifest.json").exists():
        return files
    files.mkdir(parents=True, exist_ok=True)
    for number in range(NUMBER):
        draw = np.random.default_rng(number)
        spectrum = np.fft.rfft(draw.standard_normal(RATE * SECONDS))
        noise = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** 0.5)
        time = np.arange(RATE * SECONDS) / RATE
        tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in draw.uniform(100, 4000, 4))
        sink = io.BytesIO()
        soundfile.write(sink, 0.1 * noise / noise.std() + 0.05 * tones, RATE, format=kind.upper())
        (files / f"{number:03d}.{kind}").write_bytes(sink.getvalue())
    pack(files, folder / f"{kind}-shards")
    return files


WAYS: dict[str, Callable[[Path, str], Iterator[int]]] = {
    "ours": lambda folder, kind: ours(load(str(folder / f"{kind}-shards"))),
    "torchaudio": lambda folder, kind: theirs(folder / f"{kind}-files", torchaudio),
    "librosa": lambda folder, kind: theirs(folder / f"{kind}-files", librosa),
}


def one(folder: Path, way: str, kind: str) -> float:
    """Return seconds of audio a CPU second, after a warm-up."""
    torch.set_num_threads(1)
    batches = WAYS[way](folder, kind)
    for _ in range(WARMUP):
        next(batches)
    usage = Usage(SELDOM)
    since, samples = usage.cpu(), sum(next(batches) for _ in range(BATCHES))
    return SECONDS * samples / (usage.cpu() - since)


def apart(folder: Path, way: str, kind: str) -> float:
    command = [sys.executable, "-W", "ignore", __file__, str(folder), way, kind]
    done: Any = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main(folder: Path) -> None:
    for kind in ("flac", "wav"):
        packed(folder, kind)
        turns = [{way: apart(folder, way, kind) for way in WAYS} for _ in range(TURNS)]
        for way in WAYS:
            rate, share = (median(values) for values in ([t[way] for t in turns], [t["ours"] / t[way] for t in turns]))
            print(f"{kind:5} {way:11} {rate:7.0f} s of audio a CPU second; ours are {share:.2f} times as many")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(one(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
        os._exit(0)  # workers and threads go on
    main(Path(sys.argv[1]))
