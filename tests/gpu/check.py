"""The parts of the check, each in a process of its own and within its share of the time; one JSON, and its tables.

python tests/gpu [--device cpu --tiny] [--seconds 570] [--out build/gpu.json] [PART ...]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from gpu import packed, scores, speed, steps, stream, values
from gpu.place import Row, Setup
from gpu.tables import markdown

ROOT = Path(__file__).parents[2]
SECONDS = 570.0  # of all parts together: a lent machine's command ends after ten minutes


class Part(NamedTuple):
    """A part of the check. weight: of its share of the time; what a part leaves over is for those after it."""

    weight: float
    rows: Callable[[Setup], Iterator[Row]]


def compiled_table(setup: Setup) -> Iterator[Row]:
    """Yield the rows of `speed` once more, compiled."""
    if compiler := steps.compiler():
        yield from speed.table(setup, compiler)
    else:
        yield {"skipped": "this tree has no train.compile"}


PARTS = {  # the most valuable first
    "speed": Part(4, speed.rows),
    "values": Part(3, values.rows),
    "contracts": Part(2, steps.contracts),
    "scores": Part(1, scores.rows),
    "stream": Part(1, stream.threads),
    "compiled": Part(2, steps.compiled),
    "compiled_speed": Part(3, compiled_table),
    "packed": Part(0.5, packed.rows),
    "run": Part(1.5, stream.run),
}
Perform = Callable[[str, float], list[Row]]  # a part by its name, within so many seconds


def main(arguments: Sequence[str]) -> int:
    """Perform the check, or one part of it for the process that does; return the status of the command."""
    asked = _asked(arguments)
    setup = Setup(asked.device, asked.tiny)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no GPU is here: `make check-gpu ARGS='--device cpu --tiny'` runs the same on the CPU")
        return 2
    if asked.rows:
        write_rows(PARTS[asked.parts[0]].rows(setup), asked.rows)
        return 0
    result = {"machine": machine(asked.device)} | within(
        asked.seconds, asked.parts or list(PARTS), partial(apart, setup, asked.out.parent)
    )
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    asked.out.with_suffix(".md").write_text(text := markdown(result))
    print(f"{text}\n{asked.out}")
    return int(not passed(result))


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all if none is named")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to try the check itself")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu/check.json")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def within(seconds: float, parts: Sequence[str], perform: Perform) -> dict[str, Any]:
    """Perform parts in order, each within its share of the time that is left; return their rows and seconds."""
    result: dict[str, Any] = {}
    end = time.monotonic() + seconds
    for number, name in enumerate(parts):
        began = time.monotonic()
        share = PARTS[name].weight / sum(PARTS[other].weight for other in parts[number:])
        rows = perform(name, (end - began) * share) if end > began else [{"skipped": "the time was up"}]
        result[name] = {"seconds": round(time.monotonic() - began, 1), "rows": rows}
    return result


def apart(setup: Setup, folder: Path, name: str, seconds: float) -> list[Row]:
    """Perform a part in a process of its own; return its rows, those before the time was up or before it died."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / "tests/gpu"), name, "--device", setup.device, "--rows", str(path)]
    process = subprocess.Popen([*command, *["--tiny"] * setup.tiny])
    try:
        status = process.wait(seconds)
        ending = {"ok": False, "error": f"the process ended with {status}"} if status else None
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        ending = {"skipped": f"the rest: its {seconds:.0f} s were up"}
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return rows + ([ending] if ending else [])


def write_rows(rows: Iterator[Row], path: Path) -> None:
    """Write each row as it comes, on a line of its own."""
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            file.flush()


def passed(result: dict[str, Any]) -> bool:
    """Return whether no row of any part failed; what was skipped did not."""
    return all(row.get("ok", True) for name in PARTS if name in result for row in result[name]["rows"])


def machine(device: str) -> Row:
    """Return what numbers depend on: card, versions, commit, date."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    cuda = device == "cuda"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": git.stdout.strip() or "unknown",
        "card": torch.cuda.get_device_name() if cuda else "no card",
        "bf16_product_tflops": round(speed.matmul() / 1e12) if cuda else None,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "timm": timm.__version__,
    }
