"""Retrieval between any two modalities of a sample, by cosine similarity in the space that they share.

Recall at 1, 5 and 10 in both directions, as of `caption_retrieval`: audio by video, as in Morgado et al., "Audio-visual
instance discrimination with cross-modal agreement", CVPR 2021, arXiv 2004.12943; or of two that were never compared in
training, as in Girdhar et al., "ImageBind: one embedding space to bind them all", CVPR 2023, arXiv 2305.05665, section
4.2. Of a tie the rank is random, and recall its expectation.
"""

from collections.abc import Iterator
from types import MappingProxyType

from pydantic import field_validator

from selfsup.evaluator import Evaluator, Features, Metric, Score
from selfsup.feature_choice import FeatureChoice
from selfsup.knob import Knobs, knob
from selfsup.ranking import NUMBERS, between


class CrossRetrieval(Evaluator):
    """Whether a validation sample's own second modality is among the k most similar to its first, and the reverse.

    second_recallk: of the second, which the first ask for; first_recallk: of the first, which the second ask for.
    """

    reads, target = "pairs", None
    metrics = MappingProxyType(
        {f"{kind}_recall{k}": Metric(headline=k != 5) for kind in ("second", "first") for k in NUMBERS}
    )

    class Hyper(Knobs):
        between: tuple[str, str] = knob(("video", "audio"), "the first modality, and the second")

        @field_validator("between")
        @classmethod
        def _differ(cls, names: tuple[str, str]) -> tuple[str, str]:
            if names[0] == names[1]:
                raise ValueError(f"expected two modalities, not {names[0]} twice")
            return names

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def reads_of(cls, hyper: Hyper) -> FeatureChoice:
        return FeatureChoice(cls.reads, between=hyper.between)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        second, first = between(features, device)
        yield from ((f"second_recall{k}", share) for k, share in zip(NUMBERS, second, strict=True))
        yield from ((f"first_recall{k}", share) for k, share in zip(NUMBERS, first, strict=True))
