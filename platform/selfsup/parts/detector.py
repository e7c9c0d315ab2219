"""Mask R-CNN on the tokens of a plain ViT, as ViTDet has it, of torchvision's parts.

Yanghao Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022, arXiv 2203.16527.
B: images, T: tokens of a square grid, D: their channels, S: pixels a side of maps, O: objects of an image.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from selfsup.parts.objects import MASK, MOST, PACKED, Objects

TOKEN = 16  # units a side in which the detector sees a token, whatever its pixels: its strides are 4, 8, 16, 32 and 64
EVEN = 4  # tokens, of which a grid is filled up to a multiple, so that every level covers the same
RATIOS = 0.5, 1.0, 2.0  # of an anchor's height and width
POOL = 7  # places a side of a region
HALF = 0.5  # of a mask's pixel that is in


class SimplePyramid(nn.Module):
    """Maps at 4, 2, 1, 1/2 and 1/4 times the resolution of a grid of tokens, each of `out_channels`: section 3."""

    def __init__(self, dim: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = dim // 2, dim // 4
        self.out_channels = out_channels
        self.levels = nn.ModuleList(
            [
                self._level(quarter, _doubled(dim, half), LayerNorm2d(half), nn.GELU(), _doubled(half, quarter)),
                self._level(half, _doubled(dim, half)),
                self._level(dim),
                self._level(dim, nn.MaxPool2d(2)),
            ]
        )

    def forward(self, grid: Tensor) -> dict[str, Tensor]:
        """(B, D, h, w) -> by name, from the finest: (B, C, 4 h, 4 w) ... (B, C, h / 4, w / 4)"""
        maps = {str(number): level(grid) for number, level in enumerate(self.levels)}
        return maps | {"pool": F.max_pool2d(maps["3"], 1, stride=2)}

    def _level(self, dim: int, *layers: nn.Module) -> nn.Module:
        width = self.out_channels
        narrow = nn.Conv2d(dim, width, 1, bias=False), LayerNorm2d(width)
        return nn.Sequential(*layers, *narrow, nn.Conv2d(width, width, 3, padding=1, bias=False), LayerNorm2d(width))


class Detector(nn.Module):
    """Simple pyramid, region proposals, and heads of boxes and masks, which learn from tokens of whole images.

    classes: of objects. width: channels of maps and heads, four times as many of the linear layer. anchors: tokens a
    side, of each level. proposals: of regions, an image. regions: of these, those that the heads learn from.
    """

    def __init__(
        self, dim: int, classes: int, *, width: int, anchors: Sequence[float], proposals: int, regions: int
    ) -> None:
        super().__init__()
        self.regions = regions
        generator = AnchorGenerator(tuple((TOKEN * side,) for side in anchors), (RATIOS,) * len(anchors))
        self.model = MaskRCNN(
            SimplePyramid(dim, width),
            rpn_anchor_generator=generator,
            rpn_head=RPNHead(width, len(RATIOS), conv_depth=2),
            rpn_pre_nms_top_n_train=2 * proposals,
            rpn_pre_nms_top_n_test=proposals,
            rpn_post_nms_top_n_train=proposals,
            rpn_post_nms_top_n_test=proposals,
            box_head=FastRCNNConvFCHead((width, POOL, POOL), [width] * 4, [4 * width], norm_layer=LayerNorm2d),
            box_predictor=FastRCNNPredictor(4 * width, classes + 1),
            box_batch_size_per_image=regions,
            box_detections_per_img=MOST,
            mask_head=MaskRCNNHeads(width, [width] * 4, 1, norm_layer=LayerNorm2d),
            mask_predictor=MaskRCNNPredictor(width, width, classes + 1),
        )

    def loss(self, tokens: Tensor, objects: Sequence[Objects]) -> Tensor:
        """(B, T, D) -> the sum of the losses of proposals, boxes, classes and masks. Draws from torch's generator."""
        units = TOKEN * math.isqrt(tokens.shape[1])
        targets = [_target(image, units, tokens.device) for image in objects]
        _, losses = self._seen(tokens, targets)
        total: Tensor = torch.stack(list(losses.values())).sum()
        return total

    def traced(self, tokens: Tensor) -> Tensor:
        """(B, T, D) on the meta device -> a number that depends on all outputs, of as many regions as are learnt from

        Which regions these are torchvision cannot say there.
        """
        grid = math.isqrt(tokens.shape[1])
        maps = self.model.backbone(tokens.transpose(1, 2).reshape(len(tokens), -1, grid, grid))
        heads, regions = self.model.roi_heads, self.regions * len(tokens)
        seen = maps["0"].mean((0, 2, 3))[None, :, None, None].expand(regions, -1, POOL, POOL)
        boxes, masks = heads.box_head(seen), heads.mask_head(F.interpolate(seen, scale_factor=2.0))
        outputs = *self.model.rpn.head([*maps.values()]), [*heads.box_predictor(boxes), heads.mask_predictor(masks)]
        return torch.stack([value.mean() for part in outputs for value in part]).sum()

    def packed(self, tokens: Tensor, side: int) -> Tensor:
        """(B, T, D) -> (B, MOST, PACKED): guesses as numbers; of class -1 where there are none. side: of maps."""
        rows = tokens.new_full((len(tokens), MOST, PACKED), -1.0)
        for row, image in zip(rows, self._detected(tokens, side), strict=True):
            numbers = image["boxes"], image["labels"][:, None] - 1, image["scores"][:, None], image["masks"].flatten(1)
            row[: len(image["boxes"])] = torch.cat(numbers, dim=1)
        return rows

    @torch.inference_mode()
    def guesses(self, tokens: Tensor, side: int) -> list[Objects]:
        """(B, T, D) -> what each image shows. side: pixels of maps, as many of each token."""
        return [_guess(image, side) for image in self._detected(tokens, side)]

    def _detected(self, tokens: Tensor, side: int) -> list[dict[str, Tensor]]:
        """(B, T, D) -> what torchvision says of each image, in pixels of `side` a side"""
        seen, _ = self._seen(tokens)
        scale = side / (TOKEN * math.isqrt(tokens.shape[1]))
        return [{**image, "boxes": scale * image["boxes"]} for image in seen]

    def _seen(
        self, tokens: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[dict[str, Tensor]], Mapping[str, Tensor]]:
        """Return detections, where there are no targets, and losses, where there are."""
        self.train(targets is not None)
        grid = math.isqrt(tokens.shape[1])
        lack = _filled(grid) - grid
        image = F.pad(tokens.transpose(1, 2).reshape(len(tokens), -1, grid, grid), (0, lack, 0, lack))
        units, maps = TOKEN * _filled(grid), self.model.backbone(image)
        images = ImageList(image.new_empty(units, units), [(units, units)] * len(image))  # of which the size is read
        proposals, own = self.model.rpn(images, maps, targets)
        detections, losses = self.model.roi_heads(maps, proposals, images.image_sizes, targets)
        return detections, own | losses


def _doubled(inputs: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)


def _filled(grid: int) -> int:
    return -(-grid // EVEN) * EVEN


def _target(image: Objects, units: int, device: torch.device) -> dict[str, Tensor]:
    """Return the objects of an image as torchvision wants them, in so many units a side; class 0 is none."""
    masks = torch.as_tensor(image.masks)
    side = masks.shape[-1]
    if len(masks):
        masks = F.interpolate(masks[:, None].byte(), (units, units), mode="nearest-exact")[:, 0]
    return {
        "boxes": torch.as_tensor(image.boxes, device=device) * (units / side),
        "labels": torch.as_tensor(image.classes, device=device) + 1,
        "masks": masks.to(device),
    }


def unpacked(rows: Tensor, side: int) -> Objects:
    """(MOST, PACKED) -> the guesses that there are, whose boxes are not empty. side: pixels of maps."""
    rows = rows[(rows[:, 4] >= 0) & (rows[:, :2] < rows[:, 2:4]).all(dim=1)]
    masks = rows[:, 6:].reshape(-1, 1, MASK, MASK)
    return _guess({"boxes": rows[:, :4], "labels": rows[:, 4].long() + 1, "scores": rows[:, 5], "masks": masks}, side)


def _guess(image: Mapping[str, Tensor], side: int) -> Objects:
    masks = pasted(image["masks"], image["boxes"], side) >= HALF
    boxes = image["boxes"].clamp(0, side)
    values = boxes, image["labels"] - 1, masks, image["scores"]
    return Objects(*(value.cpu().numpy() for value in values))


def pasted(masks: Tensor, boxes: Tensor, side: int) -> Tensor:
    """(O, 1, m, m), (O, 4) -> (O, S, S): each mask in its box, in the middles of pixels, linear between its own; else 0

    As detectron2 does; torchvision rounds boxes to pixels, which small images cannot spare.
    """
    middle = torch.arange(side, device=boxes.device) + 0.5
    first, last = boxes[:, None, :2], boxes[:, None, 2:]
    across, down = ((middle[:, None] - first) / (last - first) * 2 - 1).unbind(-1)  # (O, S): -1 to 1 in the box
    places = torch.stack([across[:, None].expand(-1, side, -1), down[..., None].expand(-1, -1, side)], dim=-1)
    return F.grid_sample(masks, places, align_corners=False)[:, 0]
