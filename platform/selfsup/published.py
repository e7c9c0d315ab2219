"""The section `published` of a spec: the numbers of a paper beside its recipe."""

from typing import Literal

from selfsup.knob import Knobs, knob

PROTOCOLS = {  # training of a linear probe; only the first is that of the evaluation `linear`
    "frozen": "on features embedded once",
    "augmented": "on augmented views",
    "four_blocks": "on the last four blocks' class tokens of augmented views",
    "best_layer": "on the best layer, of augmented views",
    "online": "trained along with the encoder",
    "head": "the network's own head",
}
Protocol = Literal["frozen", "augmented", "four_blocks", "best_layer", "online", "head"]


class Published(Knobs):
    """Published numbers of a recipe, in per cent of top-1, to be compared with a run.

    kNN is on frozen features of the central crop, as in the evaluation `knn`.
    """

    source: str = knob(..., "publication of the numbers", result=False, min_length=1)
    knn: float | None = knob(None, "kNN top-1", result=False, ge=0, le=100)
    linear: float | None = knob(None, "top-1 of a linear probe", result=False, ge=0, le=100)
    protocol: Protocol | None = knob(None, "how that probe was trained; frozen: as the evaluation linear", result=False)
    finetune: float | None = knob(None, "top-1 after fine-tuning", result=False, ge=0, le=100)
    tolerance: float | None = knob(None, "points by which a run of it may miss them", result=False, ge=0)

    @property
    def comparable(self) -> dict[str, float]:
        """Return the numbers that evaluations here measure by the same protocol, by the evaluation's name."""
        numbers = {"knn": self.knn, "linear": self.linear if self.protocol == "frozen" else None}
        return {name: number for name, number in numbers.items() if number is not None}

    def __str__(self) -> str:
        within = f" ± {self.tolerance:g}" if self.tolerance is not None else ""
        how = f" {PROTOCOLS[self.protocol]}" if self.protocol else ""
        numbers = {"kNN": (self.knn, ""), "linear": (self.linear, how), "fine-tuned": (self.finetune, "")}
        parts = [f"{name} {number:g}{within}{how}" for name, (number, how) in numbers.items() if number is not None]
        return f"{', '.join(parts)} ({self.source})"
