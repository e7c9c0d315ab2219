"""AVID as its authors train it, and ImageBind by its paper, of images beside sounds, at their recipes' settings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method

from .authors import adamw, copied, learn, named, trained, warm
from .ours import Trained
from .recipes import of_recipe

TOWERS = {"image": "encoders.image", "audio": "encoders.audio"}


def avid(method: Method, batches: list[Batch]) -> Trained:
    """Sample by sample: its entry in the other's memory and five others, by probabilities of data and of noise."""
    names = TOWERS | {"heads": "heads"}
    student, even = copied(method, names), list[Tensor]()
    memory = {name: method.memories[name].rows.clone() for name in TOWERS}

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        unit = {
            view.modality: F.normalize(student["heads"][view.modality](student[view.modality].pooled(view.value)))
            for view in batch.views
        }
        terms = []
        for query, key in (("image", "audio"), ("audio", "image")):
            scores = []
            for own, (vector, draw) in enumerate(zip(unit[query], batch.draws[:, 0].tolist(), strict=True)):
                others = [number for number in range(8) if number != own]
                wrong = [others[(int(7 * draw) + number) % 7] for number in range(5)]
                scores.append(memory[key][[own, *wrong]] @ vector / 0.07)
            score = torch.stack(scores)
            if not even:
                even.append(5 * score[:, 1:].detach().exp().mean())  # K times the average
            share = score.exp() / (score.exp() + even[0])
            terms.append(-(share[:, 0].log() + (1 - share[:, 1:]).log().sum(dim=1)).mean())
        for name, rows in memory.items():
            rows.copy_(F.normalize(rows / 2 + unit[name].detach() / 2, dim=1))
        return (terms[0] + terms[1]) / 2

    losses, _ = learn(student, loss, batches, adamw(student, lambda _: 5e-4, lambda *_: 1e-5))
    memories = {f"memories.{name}.rows": rows for name, rows in memory.items()}
    return trained(losses, named(student, names) | memories | {"even": even[0].log()})


def imagebind(method: Method, batches: list[Batch]) -> Trained:
    """Equation 1 of the paper, in both directions."""
    names = TOWERS | {"projections": "projections"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        image, sound = (
            F.normalize(student["projections"][view.modality](student[view.modality].pooled(view.value)))
            for view in batch.views
        )
        similar = (20 * image @ sound.T).exp()
        there, back = similar.diagonal() / similar.sum(1), similar.diagonal() / similar.sum(0)
        return -(there.log() + back.log()).mean() / 2

    def clip() -> None:
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)

    move = adamw(student, warm(1.6e-3), lambda _, __, weight: 0.2 * (weight.ndim > 1), betas=(0.9, 0.95), clip=clip)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


LOOPS = {
    "avid": of_recipe("audioset_clips/avid", avid, "vit", negatives=5, hidden=32, dim=16),
    "imagebind": of_recipe("audioset_clips/imagebind", imagebind, "vit", dim=16),
}
