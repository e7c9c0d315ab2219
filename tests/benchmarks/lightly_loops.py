"""lightly's example loops (examples/pytorch): each a module from the views of a batch to the loss of a step.

Each is made from its trunk, a ResNet up to its maps or a ViT, and has the widths of its example. Where that departs
from its paper, and from us, it is as the paper here: keys come from the momentum copy (DenseCL), small anchors are
whole and prototypes learn (MSN). A projection is as wide outside as inside (SimSiam); trunks are plain, without
drop-path and layer scale (iBOT, DINOv2).
"""

import copy
from collections.abc import Sequence

import timm
import torch
import torch.nn.functional as F
import torchvision
from lightly import loss
from lightly.data.ijepa_collate import IJEPAMaskCollator
from lightly.models import modules, utils
from lightly.models.modules import heads
from lightly.models.modules.ijepa_timm import IJEPAPredictorTIMM
from torch import Tensor, nn

from selfsup.sections import Backbone

MOMENTUM, TEMPERATURE = 0.996, 0.04  # of a teacher
QUEUE = (4096, 128)

Views = Sequence[Tensor]  # images, large crops first


def trunk(backbone: Backbone) -> nn.Module:
    """As lightly's examples build it."""
    if not backbone.is_vit:
        return nn.Sequential(*list(torchvision.models.get_model(backbone.name).children())[:-2])
    vit = timm.create_model(backbone.name, img_size=backbone.image_size, num_classes=0, dynamic_img_size=True)
    return modules.MaskedVisionTransformerTIMM(vit=vit)


class Pair(nn.Module):
    """Two views through one network."""

    def __init__(self, trunk: nn.Module, head: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.network, self.criterion = on(trunk, head), criterion

    def forward(self, views: Views) -> Tensor:
        return self.criterion(*map(self.network, views))


def barlow_twins(trunk: nn.Module) -> Pair:
    return Pair(trunk, heads.BarlowTwinsProjectionHead(512, 2048, 2048), loss.BarlowTwinsLoss())


def simclr(trunk: nn.Module) -> Pair:
    return Pair(trunk, heads.SimCLRProjectionHead(512, 512, 128), loss.NTXentLoss())


def vicreg(trunk: nn.Module) -> Pair:
    return Pair(trunk, heads.VICRegProjectionHead(512, 2048, 2048), loss.VICRegLoss())


class Keyed(nn.Module):
    """The second view through a momentum copy."""

    def __init__(self, trunk: nn.Module, head: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.network, self.criterion = on(trunk, head), criterion
        self.momentum = frozen(copy.deepcopy(self.network))

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.network, self.momentum, MOMENTUM)
        return self.criterion(self.network(views[0]), self.momentum(views[1]))


def moco(trunk: nn.Module) -> Keyed:
    return Keyed(trunk, heads.MoCoProjectionHead(512, 512, 128), loss.NTXentLoss(memory_bank_size=QUEUE))


def tico(trunk: nn.Module) -> Keyed:
    return Keyed(trunk, heads.TiCoProjectionHead(512, 1024, 256), loss.TiCoLoss())


class BYOL(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.network, self.predictor = (
            on(trunk, heads.BYOLProjectionHead(512, 1024, 256)),
            heads.BYOLPredictionHead(256, 1024, 256),
        )
        self.momentum, self.criterion = frozen(copy.deepcopy(self.network)), loss.NegativeCosineSimilarity()

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.network, self.momentum, MOMENTUM)
        first, second = (self.predictor(self.network(view)) for view in views)
        one, two = map(self.momentum, views)
        return (self.criterion(first, two) + self.criterion(second, one)) / 2


class SimSiam(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.network = on(trunk, heads.SimSiamProjectionHead(512, 512, 512))
        self.predictor, self.criterion = heads.SimSiamPredictionHead(512, 64, 512), loss.NegativeCosineSimilarity()

    def forward(self, views: Views) -> Tensor:
        one, two = map(self.network, views)
        first, second = self.predictor(one), self.predictor(two)
        return (self.criterion(first, two.detach()) + self.criterion(second, one.detach())) / 2


class NNCLR(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.network, self.predictor = (
            on(trunk, heads.NNCLRProjectionHead(512, 512, 128)),
            heads.NNCLRPredictionHead(128, 512, 128),
        )
        self.bank, self.criterion = modules.NNMemoryBankModule(size=QUEUE), loss.NTXentLoss()

    def forward(self, views: Views) -> Tensor:
        one, two = map(self.network, views)
        first, second = self.predictor(one), self.predictor(two)
        near, nigh = self.bank(one.detach(), update=False), self.bank(two.detach(), update=True)
        return (self.criterion(near, second) + self.criterion(nigh, first)) / 2


class DenseCL(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.query = nn.ModuleList([trunk, *(heads.DenseCLProjectionHead(512, 512, 128) for _ in range(2))])
        self.key = frozen(copy.deepcopy(self.query))
        self.of_images, self.of_places = (loss.NTXentLoss(memory_bank_size=QUEUE) for _ in range(2))

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.query, self.key, MOMENTUM)
        (places, image, local), (others, key, keys) = _dense(*self.query, views[0]), _dense(*self.key, views[1])
        keys = utils.select_most_similar(places, others, keys)
        return (self.of_images(image, key) + self.of_places(local.flatten(end_dim=1), keys.flatten(end_dim=1))) / 2


def _dense(trunk: nn.Module, head: nn.Module, dense: nn.Module, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features of places; projections of the image and of its places."""
    maps = trunk(view)
    places = maps.flatten(start_dim=2).permute(0, 2, 1)
    return places, head(F.adaptive_avg_pool2d(maps, 1).flatten(start_dim=1)), dense(places)


class SwAV(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.network, self.criterion = on(trunk, heads.SwaVProjectionHead(512, 512, 128)), loss.SwaVLoss()
        self.prototypes = heads.SwaVPrototypes(128, n_prototypes=512)

    def forward(self, views: Views) -> Tensor:
        self.prototypes.normalize()
        scores = [self.prototypes(F.normalize(self.network(view), dim=1)) for view in views]
        return self.criterion(scores[:2], scores[2:])


class DINO(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.student, teacher = (on(each, heads.DINOProjectionHead(512, 512, 64, 2048)) for each in twice(trunk))
        self.teacher, self.criterion = frozen(teacher), loss.DINOLoss(output_dim=2048)

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.student, self.teacher, MOMENTUM)
        told = [self.teacher(view) for view in views[:2]]
        return self.criterion(told, [self.student(view) for view in views], teacher_temp=TEMPERATURE)


class MSN(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.anchor = nn.ModuleList([trunk, heads.MSNProjectionHead(384)])
        self.target, self.criterion = frozen(copy.deepcopy(self.anchor)), loss.MSNLoss()
        self.prototypes = nn.Parameter(nn.Linear(256, 1024).weight.detach())

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.anchor, self.target, MOMENTUM)
        target, anchor, *small = views
        (trunk, head), (teacher, teacher_head) = self.anchor, self.target
        keep, _ = utils.random_token_mask((len(anchor), trunk.sequence_length), mask_ratio=0.15, device=anchor.device)
        anchors = torch.cat([head(trunk(anchor, idx_keep=keep)), head(trunk(torch.cat(small)))])
        return self.criterion(anchors, teacher_head(teacher(target)), self.prototypes)


class IBOT(nn.Module):
    head, outputs = heads.DINOProjectionHead, 8192

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.student, teacher = (
            nn.ModuleList([each, self.head(384, output_dim=self.outputs)]) for each in twice(trunk)
        )
        self.teacher = frozen(teacher)
        self.of_images, self.of_patches = loss.DINOLoss(self.outputs), loss.IBOTPatchLoss(self.outputs)

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.student, self.teacher, MOMENTUM)
        (trunk, head), (teacher, teacher_head) = self.student, self.teacher
        large, small = torch.cat(views[:2]), torch.cat(views[2:])
        blocks = utils.random_block_mask((len(large), *trunk.vit.patch_embed.grid_size), device=large.device)
        mask = F.pad(blocks.flatten(1), (1, 0))  # never the class token
        told, hidden = teacher.encode(large), trunk.encode(large, mask=mask)
        images = torch.cat([head(hidden[:, 0]), head(trunk.encode(small)[:, 0])]).chunk(len(views))
        on_images = self.of_images(teacher_head(told[:, 0]).chunk(2), images, teacher_temp=TEMPERATURE)
        on_patches = self.of_patches(teacher_head(told[mask]), head(hidden[mask]), blocks, teacher_temp=TEMPERATURE)
        return on_images + on_patches + self.spread(hidden[:, 0])

    def spread(self, images: Tensor) -> Tensor | float:  # noqa: ARG002
        return 0.0


class DINOv2(IBOT):
    head, outputs = heads.DINOv2ProjectionHead, 65536

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__(trunk)
        self.koleo = loss.KoLeoLoss()

    def spread(self, images: Tensor) -> Tensor:
        return 0.1 * sum(self.koleo(view) for view in images.chunk(2))


class MAE(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        embed = trunk.vit.patch_embed
        self.trunk, self.patch = trunk, embed.patch_size[0]
        self.embed, self.paint = nn.Linear(trunk.vit.embed_dim, 512), nn.Linear(512, 3 * self.patch**2)
        self.decoder = modules.MaskedVisionTransformerDecoderTIMM(
            embed.num_patches, embed_dim=512, depth=8, num_heads=16
        )

    def forward(self, views: Views) -> Tensor:
        [images] = views
        size = len(images), self.trunk.sequence_length
        keep, hide = utils.random_token_mask(size, mask_ratio=0.75, device=images.device)
        seen = self.embed(self.trunk.encode(images, idx_keep=keep))
        tokens = utils.set_at_index(utils.repeat_token(self.decoder.mask_token, size), keep, seen)
        painted = self.paint(utils.get_at_index(self.decoder(tokens), hide))
        return F.mse_loss(painted, utils.get_at_index(utils.patchify(images, self.patch), hide - 1))


class IJEPA(nn.Module):
    """Blocks of the paper; the predictor sees patches alone."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        embed, dim = trunk.vit.patch_embed, trunk.vit.embed_dim
        self.trunk, self.teacher = trunk, frozen(copy.deepcopy(trunk))
        self.predictor = IJEPAPredictorTIMM(embed.num_patches, 12, dim, predictor_embed_dim=384, num_heads=16)
        blocks = {"enc_mask_scale": (0.85, 1.0), "pred_mask_scale": (0.15, 0.2), "aspect_ratio": (0.75, 1.5)}
        sizes = {"input_size": embed.img_size, "patch_size": embed.patch_size[0], "npred": 4, "min_keep": 10}
        self.collator = IJEPAMaskCollator(**blocks, **sizes)

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.trunk, self.teacher, MOMENTUM)
        images, [keep], blocks = self.collator(list(views[0]))
        with torch.no_grad():
            features = self.teacher.encode(images)[:, 1:]
            target = utils.apply_masks(F.layer_norm(features, features.shape[-1:]), blocks)
        first = torch.zeros(len(keep), 1, dtype=keep.dtype)
        seen = self.trunk.encode(images, idx_keep=torch.cat([first, keep + 1], dim=1))[:, 1:]
        return F.smooth_l1_loss(self.predictor(seen, [keep], blocks), target)


def on(trunk: nn.Module, head: nn.Module) -> nn.Sequential:
    return nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def twice(trunk: nn.Module) -> tuple[nn.Module, nn.Module]:
    """For a student and a teacher whose heads are normalized by their weights, which cannot be copied."""
    return trunk, copy.deepcopy(trunk)


def frozen(module: nn.Module) -> nn.Module:
    utils.deactivate_requires_grad(module)
    return module
