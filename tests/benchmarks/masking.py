"""Time and memory of MAE's step against its mask ratio, beside arithmetic: ViT-S/16 at 224 pixels.

    python tests/benchmarks/masking.py [ROUNDS] [PICTURE.png]

Each round makes a step at every ratio, one after the other; shares are of the encoder on all tokens in the same round,
and the median over rounds is shown. Time is the CPU's, or the clock's on a GPU; memory is what autograd keeps for the
backward pass. The encoder at 75 % must take 0.40 of all tokens' time at most; arithmetic has 0.25 of the layers, and
0.06 of attention's products.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from selfsup.batch import Batch, blank_batch
from selfsup.encoder import build
from selfsup.masks import IndexMask
from selfsup.method import Method, TrainInfo, load
from selfsup.parts.tokens import Tokens
from selfsup.pipelines.cost import saved
from selfsup.sections import Backbone
from selfsup.views import sized

RATIOS = 0.0, 0.25, 0.5, 0.75, 0.9
BAR = 0.40  # of the encoder's step at 75 %
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH = 256 if DEVICE == "cuda" else 8
INFO = TrainInfo(num_samples=10**6, num_classes=0, num_steps=1, steps_per_epoch=1)
Step = Callable[[], Tensor]  # -> the loss
Key = tuple[str, float]  # the step's name, and its ratio


class Cost(NamedTuple):
    """Seconds, MiB that the backward pass needs, and floating-point operations, of one step or relative to another."""

    seconds: float
    memory: float
    flops: float


def steps(ratio: float) -> dict[str, Step]:
    """Return the encoder's step at a ratio, 0 for all tokens, and that of MAE, which needs one above 0."""
    kind = load("mae")
    hyper = kind.Hyper(mask_ratio=ratio or 0.5)
    method = kind(hyper, {"image": build(Backbone(name="vit_small_patch16_224")).to(DEVICE)}, INFO).to(DEVICE)
    batch = blank_batch(sized(kind.views(hyper), 224), 16, BATCH, DEVICE)
    batch.views[0].value.value.normal_()
    return {"encoder": lambda: encoded(method, batch, ratio)} | ({"MAE": lambda: method(batch).loss} if ratio else {})


def encoded(method: Method, batch: Batch, ratio: float) -> Tensor:
    view = batch.views[0]
    assert isinstance(view.value, Tokens)
    assert isinstance(view.mask, IndexMask)
    features: Tensor = method.backbone(view.value, view.mask.keep if ratio else None)
    return features.square().mean()


def counted(step: Step) -> tuple[float, float]:
    """Return MiB and operations of a step."""
    with FlopCounterMode(display=False) as counter:
        with saved() as sizes:
            loss = step()
            memory = sum(sizes.values()) / 2**20
        loss.backward()
    return memory, counter.get_total_flops()


def timed(step: Step) -> float:
    began = now()
    step().backward()
    return now() - began


def now() -> float:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()  # of all threads, and of no other process


def relative(costs: list[dict[Key, Cost]], key: Key) -> Cost:
    """Return a step's cost over that of the encoder on all tokens, the median over rounds."""
    pairs = [(costs_of_round[key], costs_of_round["encoder", 0.0]) for costs_of_round in costs]
    return Cost(*(median(own[field] / whole[field] for own, whole in pairs) for field in range(3)))


def plot(table: dict[Key, Cost], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharex=True)
    for axis, name, of in zip(axes, ("time", "memory"), (0, 1), strict=True):
        for step, mark in (("encoder", "o"), ("MAE", "s")):
            ratios = [ratio for kind, ratio in table if kind == step]
            axis.plot(ratios, [table[step, ratio][of] for ratio in ratios], marker=mark, label=step)
            arithmetic = [table[step, ratio].flops for ratio in ratios]
            axis.plot(ratios, arithmetic, ":", color="gray", label="operations" if step == "MAE" else None)
        axis.set(xlabel="mask ratio", ylabel=f"{name}, of the encoder on all tokens", ylim=(0, None))
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main(rounds: int, picture: Path | None) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {DEVICE}, batches of {BATCH}\n")
    made = {(name, ratio): step for ratio in RATIOS for name, step in steps(ratio).items()}
    sizes = {key: counted(step) for key, step in made.items()}  # which warms up
    costs = [{key: Cost(timed(step), *sizes[key]) for key, step in made.items()} for _ in range(rounds)]
    table = {key: relative(costs, key) for key in made}
    print(f"{'step':<9}{'ratio':>6}{'s':>8}{'MiB':>7}{'time':>7}{'memory':>8}{'operations':>12}")
    for (name, ratio), share in table.items():
        seconds = median(cost[name, ratio].seconds for cost in costs)
        absolute = f"{seconds:>8.3f}{costs[0][name, ratio].memory:>7.0f}"
        print(f"{name:<9}{ratio:>6}{absolute}{share.seconds:>7.2f}{share.memory:>8.2f}{share.flops:>12.2f}")
    reached = table["encoder", 0.75].seconds
    print(f"\nthe encoder at 75 %: {reached:.2f} of all tokens, at most {BAR}: {'yes' if reached <= BAR else 'NO'}")
    if picture:
        plot(table, picture)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
