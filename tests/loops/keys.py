"""MoCo in its three versions: queries find their keys, which an EMA encoder makes."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method

from .authors import adamw, copied, cosine, learn, named, on_gpus, sgd, to_one, trained, warm
from .ours import Trained
from .recipes import of_recipe

QUERIES = {"backbone": "encoders.image", "projector": "projector"}
KEYS = {"backbone": "key", "projector": "key_projector"}
KNOBS = {"queue": 24, "split": 2}


def moco(method: Method, batches: list[Batch], *, temperature: float, fall: Callable[[int], float]) -> Trained:
    """torch's SGD over all parameters; a cosine (v2) or drops (v1); keys move by a thousandth."""
    student, teacher = on_gpus(copied(method, QUERIES)), copied(method, KEYS)
    queue = method.queue.rows.clone()

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        images, others = (view.value for view in batch.views)
        query = F.normalize(student["projector"](student["backbone"].pooled(images)), dim=1)
        with torch.no_grad():
            groups = [teacher["projector"](teacher["backbone"].pooled(others[part::2])) for part in (0, 1)]
            key = F.normalize(torch.stack(groups, dim=1).flatten(0, 1), dim=1)
        scores = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T.clone()], dim=1)
        queue[8 * step % 24 : 8 * step % 24 + 8] = key
        return (scores / temperature).log_softmax(dim=1)[:, 0].mean().neg()

    move = sgd(student, lambda step, _: 0.03 * fall(step), decay=1e-4)
    losses, _ = learn(student, loss, batches, move, teacher=teacher, momentum=lambda _: 0.999)
    return trained(losses, named(student, QUERIES) | named(teacher, KEYS) | {"queue.rows": queue})


def contrast(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """2 tau times the cross-entropy of MoCo v3's algorithm 1, sample by sample."""
    losses = []
    for number, q in enumerate(query):
        scores = torch.stack([q @ k / (q.norm() * k.norm()) for k in key]) / temperature
        losses.append(scores.exp().sum().log() - scores[number])
    return 2 * temperature * torch.stack(losses).mean()


def mocov3(method: Method, batches: list[Batch]) -> Trained:
    """torch's AdamW over all parameters, as the authors' script has it: biases and norms decay, too."""
    names = QUERIES | {"predictor": "predictor"}
    student, teacher = copied(method, names), copied(method, KEYS)

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        values = [view.value for view in batch.views]
        queries = [student["predictor"](student["projector"](student["backbone"].pooled(view))) for view in values]
        with torch.no_grad():
            keys = [teacher["projector"](teacher["backbone"].pooled(view)) for view in values]
        return contrast(queries[0], keys[1], 0.2) + contrast(queries[1], keys[0], 0.2)

    move = adamw(student, warm(1.5e-4 * 4096 / 256), lambda *_: 0.1)
    losses, _ = learn(student, loss, batches, move, teacher=teacher, momentum=to_one(0.99))
    return trained(losses, named(student, names) | named(teacher, KEYS))


LOOPS = {
    "moco": of_recipe("moco", partial(moco, temperature=0.2, fall=lambda step: cosine(step, 1.0, 0.0)), **KNOBS),
    "moco-v1": of_recipe(
        "moco_v1", partial(moco, temperature=0.07, fall=lambda step: 0.1 ** ((step >= 6) + (step >= 8))), **KNOBS
    ),
    "mocov3": of_recipe("mocov3", mocov3, "vit")._replace(shaken=True),
}
