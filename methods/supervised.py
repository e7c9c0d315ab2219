"""Supervised: cross-entropy on labels, the baseline of objectives without them.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, arXiv:1512.03385. Defaults are the
views and loss of Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, arXiv:1706.02677.
RandAugment, random erasing, mixup and CutMix are timm's, as fine-tuning has them since DeiT (arXiv:2012.12877). tags:
the truth is all of several labels of an image, in equal shares, as in MAWS: Singh et al., "The effectiveness of MAE
pre-pretraining for billion-scale pretraining", ICCV 2023, arXiv:2303.13496.

Deviations from the authors' code: mixup and CutMix are drawn once a step for all processes, which timm draws in each by
itself. Else none but those of all objectives is known.
"""

from collections.abc import Iterator, Mapping
from typing import final

from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.labels import accuracy, cross_entropy, soft_cross_entropy, tagged
from selfsup.parts.mixing import ERASE_DRAWS, MIX_DRAWS, erased, mixed
from selfsup.parts.patch import patchify, unpatchify
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, Views


@final
class Supervised(Method):
    """A linear layer on the encoder names the class of each image; images without a label are passed over."""

    paper, family = "1512.03385", "baseline"
    modalities = None  # any: what it learns from a view does not depend on its kind
    beside, one_trunk, masks_out = ("tags",), True, ("tags",)
    needs_labels = True

    class Hyper(Knobs):
        smoothing: float = knob(0.0, "share of the truth that all classes share", sweep=Choice(0.0, 0.1), ge=0, lt=1)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)
        mixup: float = knob(0.0, "α of the weights by which pairs are mixed; 0: none are", sweep=Choice(0.0, 0.8), ge=0)
        cutmix: float = knob(
            0.0, "α of the areas that a pair exchanges, in half of the steps; 0: none", sweep=Choice(0.0, 1.0), ge=0
        )
        rand_augment: int = knob(0, "mean magnitude of RandAugment, of 10; 0: none", sweep=Choice(0, 9), ge=0, le=10)
        rand_augment_std: float = knob(0.5, "deviation of that magnitude", ge=0, le=100)
        erasing: float = knob(0.0, "share of images with a box of noise", sweep=Choice(0.0, 0.25), ge=0, le=1)
        tags: bool = knob(False, "the truth is a list of labels, .tags.json beside each image; false: its class")
        head_std: float | None = knob(None, "deviation of the head's first weights, its bias 0; null: torch's", ge=0)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        strength = (hyper.rand_augment, hyper.rand_augment_std) if hyper.rand_augment else None
        draws = MIX_DRAWS * cls._mixes(hyper) + ERASE_DRAWS * (hyper.erasing > 0)
        crop = Crop(scale=(hyper.crop_min, 1.0), rand_augment=strength)
        return Views((crop, *([Beside(field="tags")] if hyper.tags else [])), draws=draws)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.has_boxes(hyper, setup)
        if hyper.tags:
            for name in ("smoothing", "mixup", "cutmix"):
                yield from checks.idle(hyper, name, "tags")
        elif cls._mixes(hyper) and setup.train.batch % 2:
            message = f"samples are mixed in pairs, which {setup.train.batch} are not; expected an even number"
            yield SpecError(message, "train.batch", "hyper.mixup")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.head = nn.Linear(self.backbone.dim, info.beside["tags"].vocabulary if hyper.tags else info.num_classes)
        self.hyper, self.smoothing = hyper, hyper.smoothing
        if hyper.head_std is not None:
            nn.init.trunc_normal_(self.head.weight, std=hyper.head_std)
            nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Out:
        view, draws = batch.views[0].value, batch.draws
        if self.hyper.erasing:
            view = self._like(view, erased(self._whole(view), draws[:, -ERASE_DRAWS:], self.hyper.erasing))
        if self.hyper.tags:
            return self._tagged(view, batch.views[1].value)
        if self._mixes(self.hyper):
            return self._mixed(view, batch)
        logits = self.predict(view)
        loss = cross_entropy(logits, batch.label, smoothing=self.smoothing)
        return Out(loss, {"accuracy": accuracy(logits, batch.label)})

    def _tagged(self, view: Tokens | Tensor, tags: Tokens | Tensor) -> Out:
        """Return the loss of samples of several labels; as accuracy counts whether the likeliest class is one."""
        assert isinstance(tags, Tokens)
        assert tags.valid is not None
        loss, right = tagged(self.predict(view), tags.value[..., 0], tags.valid)
        return Out(loss, {"accuracy": right})

    def _mixed(self, view: Tokens | Tensor, batch: Batch) -> Out:
        """Return the loss of mixed samples; as accuracy counts the likelier of a pair's classes."""
        pairs = mixed(
            self._whole(view),
            batch.label,
            batch.draws[:, :MIX_DRAWS],
            mixup=self.hyper.mixup,
            cutmix=self.hyper.cutmix,
            smoothing=self.smoothing,
            classes=self.head.out_features,
        )
        logits = self.predict(self._like(view, pairs.images))
        likelier = pairs.target.argmax(dim=1).masked_fill(~pairs.counted, -1)
        loss = soft_cross_entropy(logits, pairs.target, pairs.counted)
        return Out(loss, {"accuracy": accuracy(logits, likelier)})

    def predict(self, view: Tokens | Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone.pooled(view))
        return logits

    @staticmethod
    def _mixes(hyper: Hyper) -> bool:
        return hyper.mixup > 0 or hyper.cutmix > 0

    def _whole(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, C, *S)"""
        if isinstance(view, Tensor):
            return view
        return unpatchify(view.value, grid=view.grid, patch=self.backbone.patch)

    def _like(self, view: Tokens | Tensor, images: Tensor) -> Tokens | Tensor:
        """(B, C, *S) -> what the encoder sees of them, as it sees a view"""
        return images if isinstance(view, Tensor) else patchify(images, self.backbone.patch)
