"""SimCLR, BYOL, VICReg, SwAV and Barlow Twins, which train by LARS."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.sections import Optim

from .authors import Loss, Names, copied, lars, learn, named, on_gpus, trained, warm
from .ours import Loop, Trained
from .recipes import of_recipe

PEAK, BEGIN, END, DECAY, TRUST = 0.5, 0.1, 0.05, 0.01, 0.02
RATES = {"lr": PEAK, "lr_rule": "none", "warmup_lr": BEGIN, "min_lr": END, "trust": TRUST, "weight_decay": DECAY}
GPUS = 16  # the authors' of Barlow Twins
HEAD, TARGET = {"projector": "projector"}, {"backbone": "target", "projector": "target_projector"}
Reference = Callable[[Method, list[Batch]], Trained]


def embedded(student: nn.ModuleDict, batch: Batch) -> list[Tensor]:
    return [student["projector"](student["backbone"].pooled(view.value)) for view in batch.views]


def simclr(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
    """The sum over both directions of the mean cross-entropy."""
    a, b = (F.normalize(z, dim=1) for z in embedded(student, batch))
    own, places, terms = torch.eye(len(a), dtype=torch.bool), torch.arange(len(a)), []
    for one, other in ((a, b), (b, a)):
        logits = torch.cat([one @ other.T, (one @ one.T).masked_fill(own, -1e9)], dim=1) / 0.1
        terms.append(F.cross_entropy(logits, places))
    return terms[0] + terms[1]


def byol(student: nn.ModuleDict, target: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
    """The squared distance of unit vectors, over both directions."""
    predicted = [F.normalize(student["predictor"](z), dim=1) for z in embedded(student, batch)]
    with torch.no_grad():
        targets = [F.normalize(z, dim=1) for z in embedded(target, batch)]
    return sum((predicted[view] - targets[1 - view]).square().sum(1).mean() for view in range(2))


def vicreg(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
    a, b = embedded(student, batch)
    loss = 25 * (a - b).square().mean()
    for z in (a, b):
        loss = loss + 25 * F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean() / 2
        covariance = torch.cov(z.T)
        loss = loss + (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
    return loss


def swav(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
    """Crops of a size go through the encoder together; prototypes have unit length after each step."""
    if step:
        with torch.no_grad():
            student["prototypes"].weight.copy_(F.normalize(student["prototypes"].weight, dim=1))
    sizes = batch.views[:2], batch.views[2:]
    pooled = [student["backbone"].pooled(torch.cat([view.value for view in views])) for views in sizes]
    scores = student["prototypes"](F.normalize(student["projector"](torch.cat(pooled)), dim=1)).chunk(len(batch.views))
    loss = torch.zeros((), dtype=torch.float64)
    for large in range(2):
        code = (scores[large].detach() / 0.05).exp().T
        for _ in range(3):
            code = code / code.sum(1, keepdim=True) / len(code)
            code = code / code.sum(0, keepdim=True) / code.shape[1]
        code = (code * code.shape[1]).T
        others = [view for number, view in enumerate(scores) if number != large]
        loss = loss - sum((code * F.log_softmax(view / 0.1, dim=1)).sum(1).mean() for view in others) / len(others) / 2
    return loss


def averaged(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
    """Barlow Twins': what DistributedDataParallel makes of GPUS losses, in each of which other GPUs' correlations are
    constants.
    """
    one, two = (F.batch_norm(view, None, None, training=True) for view in embedded(student, batch))
    parts = torch.stack([a.T @ b / len(one) for a, b in zip(one.chunk(GPUS), two.chunk(GPUS), strict=True)])
    losses = []
    for own in parts:
        correlation = own + (parts.sum(0) - own).detach()
        on = (correlation.diagonal() - 1).square().sum()
        losses.append(on + 0.0051 * (correlation.square().sum() - correlation.diagonal().square().sum()))
    return torch.stack(losses).mean()


def reference(loss: Loss, form: str, *, heads: Names, target: Names | None = None) -> Reference:
    """Return a loop. heads: on the encoder, one of which may be `prototypes`; target: what follows."""
    names = {"backbone": "encoders.image"} | dict(heads)

    def follow(method: Method, batches: list[Batch]) -> Trained:
        student = copied(method, names)
        if loss is swav:
            on_gpus(student)
            student["prototypes"] = nn.Linear(*method.prototypes.T.shape, bias=False, dtype=torch.float64)
            student["prototypes"].weight.data = method.prototypes.detach().clone()
        waits = lambda name, step: step < 2 and name.startswith("prototypes")  # noqa: E731
        move = lars(student, form, warm(PEAK, begin=BEGIN, end=END), decay=DECAY, trust=TRUST, waits=waits)
        losses, followed = learn(student, loss, batches, move)
        state = named(student, names) | named(followed, target or {})
        if loss is swav:
            state["prototypes"] = F.normalize(student["prototypes"].weight.detach(), dim=1)
        return trained(losses, state)

    return follow


def barlow(method: Method, batches: list[Batch]) -> Trained:
    """Train at rates of 0.2 and 0.0048 for 256 samples, and a decay of 1e-6."""
    names = {"backbone": "encoders.image"} | HEAD
    student, peak = copied(method, names), 0.2 * 2048 / 256
    rate = warm(peak, end=0.001 * peak)
    scale = lambda _, weight: 0.0048 / 0.2 if weight.ndim == 1 else 1.0  # noqa: E731
    losses, _ = learn(student, averaged, batches, lars(student, "byol", rate, decay=1e-6, scale=scale))
    return trained(losses, named(student, names))


def optim(form: str) -> Optim:
    return Optim(name="lars", lars_form=form, **RATES)


PREDICTED = reference(byol, "byol", heads=HEAD | {"predictor": "predictor"}, target=TARGET)
SWAV = {"queue": 0, "freeze": 0.2}
LOOPS = {
    "simclr": Loop("simclr", optim("simclr"), reference(simclr, "simclr", heads=HEAD), {"loss_scale": 2.0}),
    "byol": Loop("byol", optim("byol"), PREDICTED, {"momentum": 0.9}),
    "vicreg": Loop("vicreg", optim("byol"), reference(vicreg, "byol", heads={"projector": "expander"})),
    "swav": Loop("swav", optim("larc"), reference(swav, "larc", heads=HEAD), SWAV, "narrow cnn", groups=2),
    "barlow": of_recipe("barlow", barlow, "vit")._replace(samples=GPUS, shaken=True),
}
