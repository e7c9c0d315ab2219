"""The feature of a frozen encoder that an evaluation reads, and the knobs that choose it."""

from typing import Any, Literal, NamedTuple

from selfsup.errors import SpecError
from selfsup.knob import Knobs, knob
from selfsup.sections import BASELINES, Backbone

Pooling = Literal["pooled", "cls", "mean", "cls_mean"]
Token = Literal["tokens", "keys", "attention"]
Predicted = Literal["logits", "decoded_depth", "decoded_seg", "pairs", "matched", "prompted"]
Versions = Literal["augmented", "corrupted", "right"]  # a module each, in pipelines/stages/versions


class Prompts(NamedTuple):
    """Captions that name classes. templates: each with {} in place of a name. names: (class, other name)."""

    templates: tuple[str, ...]
    names: tuple[tuple[str, str], ...] = ()


class FeatureChoice(NamedTuple):
    """A feature of a sample: one vector, or one for each token; `logits`: what a trained head predicts.

    decoded_depth, decoded_seg: what a decoder of the objective itself paints of a sample alone, a map of its pixels.
    Of an objective of several towers: `pairs`, two modalities in the space that they share, those of `between`, or a
    sample and its caption; `prompted`: a sample's cosines with the `prompts` of each class there. Of one encoder of
    samples and captions: `matched`: which caption is the own, then how likely each is to be.

    kind: of tokens: tokens, what the encoder ends in; keys, those of a ViT's last attention; attention, what each head
    of it has the class token read of them. Of samples: pooled, the encoder's own; cls, the class token's; mean, that of
    the patches; cls_mean, both. blocks: the last so many, each after the final norm, whose vectors are concatenated,
    and whose tokens are averaged; cls_mean ends with the mean of the last alone.
    tower: the modality beside samples whose encoder it is of; None: the backbone.
    squashed: of the whole image, whatever its shape, not of a square in its middle. views: versions of each sample of
    `split`, whose features are read, too; images: of so many samples, None: of all. versions: what they are: augmented
    views of training samples, corrupted ones of validation samples, or second views of their scenes.
    """

    kind: Pooling | Token | Predicted = "pooled"
    blocks: int = 1
    squashed: bool = False
    views: int = 0
    images: int | None = None
    versions: Versions = "augmented"
    prompts: Prompts | None = None
    between: tuple[str, str] | None = None
    tower: str | None = None

    @property
    def whole(self) -> "FeatureChoice":
        """Return the choice without versions of samples."""
        return self._replace(views=0, images=self.images if self.is_joint else None, versions="augmented")

    @property
    def split(self) -> Literal["train", "val"]:
        """Return the split of whose samples versions are made."""
        return "train" if self.versions == "augmented" else "val"

    @property
    def parts(self) -> int:
        """Return how many vectors of the encoder's width make one feature."""
        return 1 if self.is_of_tokens else self.blocks + (self.kind == "cls_mean")

    @property
    def identity(self) -> dict[str, Any]:
        """Return what differs from the encoder's own feature, as a part of keys."""
        kind = {"reads": self.kind} if self.kind != "pooled" else {}
        view: dict[str, Any] = {"squashed": True} if self.squashed else {}
        views: dict[str, Any] = {"views": self.views, "images": self.images} if self.views else {}
        views |= {"versions": self.versions} if self.versions != "augmented" else {}
        view |= {"prompts": self.prompts._asdict()} if self.prompts else {}
        view |= {"between": list(self.between)} if self.between else {}
        view |= {"images": self.images} if self.is_joint and self.images else {}
        view |= {"tower": self.tower} if self.tower else {}
        return kind | ({"blocks": self.blocks} if self.blocks > 1 else {}) | view | views

    def __str__(self) -> str:
        return f"{self.kind}, last {self.blocks} blocks" if self.blocks > 1 else self.kind

    @property
    def is_of_tokens(self) -> bool:
        return self.kind in ("tokens", "keys", "attention")

    @property
    def is_predicted(self) -> bool:
        """Return whether it is of validation samples alone, by the whole objective."""
        return self.kind == "logits" or self.is_of_objective

    @property
    def is_of_objective(self) -> bool:
        """Return whether it is of the objective that is evaluated, not of its encoder alone."""
        return self.is_joint or self.decoded != ""

    @property
    def reads_beside(self) -> bool:
        """Return whether it is of what lies beside samples, or of its encoder: from the objective's file."""
        return self.is_joint or self.tower is not None

    @property
    def decoded(self) -> str:
        """Return the map that a decoder of the objective paints: depth or seg; "" where it is none."""
        return self.kind.removeprefix("decoded_") if self.kind.startswith("decoded_") else ""

    @property
    def is_joint(self) -> bool:
        """Return whether it is of samples with what lies beside them."""
        return self.kind in ("pairs", "matched", "prompted")

    @property
    def scorer(self) -> str:
        """Return the function of an objective that a joint feature is made by."""
        return "matched" if self.kind == "matched" else "joint"

    def joined(self, name: str) -> tuple[str, ...]:
        """Return the modalities whose towers it reads, the first of what is loaded first. name: of samples."""
        return self.between or (name, "text")

    @property
    def needs_encoder(self) -> bool:
        """Return whether raw samples have nothing like it."""
        return self.kind == "attention" or self.is_predicted

    def is_lacking(self, method: str) -> bool:
        """Return whether a method, a baseline, has nothing like it."""
        is_trained = self.is_of_objective or self.reads_beside
        return (method == "pixels" and self.needs_encoder) or (method in BASELINES and is_trained)

    def of(self, method: str, backbone: Backbone) -> "FeatureChoice":
        """Return the choice by the one name that a feature has: what the backbone pools by is its own.

        Raw samples have one, and one a token.
        """
        if method == "pixels":
            return self._replace(kind="tokens" if self.is_of_tokens else "pooled", blocks=1)
        return self._replace(kind="pooled") if self.kind == backbone.pool else self

    def check(self, backbone: Backbone, path: str) -> None:
        """Raise SpecError where the backbone has no such feature. path: of the evaluation in a spec."""
        from selfsup.families import has_class_token  # needs torch and timm, which reading a spec does without

        if self.tower and (self.kind, self.blocks, self.views) != ("pooled", 1, 0):
            message = f"of {self.tower} it reads one vector of each sample as it is"
            raise SpecError(f"{message}: feature: pooled, blocks: 1, no views", f"{path}.tower")
        plain = OWN, FeatureChoice("tokens"), LOGITS
        if self.tower or self.is_of_objective or self.whole._replace(squashed=False) in plain:
            return
        if self.kind in ("keys", "attention") and not backbone.is_vit:
            message = f"it reads the last attention of a plain ViT, and {backbone.name} is none; leave it out"
            raise SpecError(message, path, "backbone.name")
        if not backbone.is_vit:
            message = f"it reads class token, patches or several blocks of a plain ViT, and {backbone.name} is none"
            remedy = "blocks: 1" if self.is_of_tokens else "feature: pooled, blocks: 1"
            raise SpecError(f"{message}; use {remedy}, or leave it out", f"{path}.feature", f"{path}.blocks")
        if self.kind in ("cls", "cls_mean") and not has_class_token(backbone.name):
            message = f"{backbone.name} has no class token; use feature: mean, or leave the evaluation out"
            raise SpecError(message, f"{path}.feature")
        if self.kind == "attention" and not has_class_token(backbone.name):
            message = f"it reads the attention of a class token, and {backbone.name} has none; leave it out"
            raise SpecError(message, path, "backbone.name")
        if backbone.blocks and self.blocks > backbone.blocks:
            message = f"it reads the last {self.blocks} blocks, and {backbone.name} has {backbone.blocks}"
            raise SpecError(f"{message}; set fewer", f"{path}.blocks")


OWN = FeatureChoice()  # the encoder's own
LOGITS = FeatureChoice("logits")
VIEWS = "augmented views of each sample, trained on in turn; 0: the sample as it is"


class FeatureKnobs(Knobs):
    """Knobs of an evaluation that reads one vector a sample."""

    feature: Pooling = knob("pooled", "pooled: the encoder's own; of ViTs also class token, mean of patches, or both")
    blocks: int = knob(1, "last blocks of a ViT whose features are concatenated; cls_mean: and one mean", ge=1)
    tower: str | None = knob(
        None, "what lies beside samples, such as audio, whose encoder is read; null: the backbone", min_length=1
    )

    @property
    def choice(self) -> FeatureChoice:
        return FeatureChoice(self.feature, self.blocks, tower=self.tower)


class ViewKnobs(FeatureKnobs):
    """Knobs of an evaluation that trains on augmented views, if asked to."""

    views: int = knob(0, VIEWS, ge=0)

    @property
    def choice(self) -> FeatureChoice:
        return super().choice._replace(views=self.views)


class TokenViewKnobs(Knobs):
    """Knobs of an evaluation that trains on the tokens of augmented views, if asked to."""

    blocks: int = knob(1, "last blocks of a ViT whose tokens are averaged; AIM: 6", ge=1)
    views: int = knob(0, VIEWS, ge=0)

    @property
    def choice(self) -> FeatureChoice:
        return FeatureChoice("tokens", self.blocks, views=self.views)
