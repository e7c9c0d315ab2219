"""Two and four processes over gloo do what one does: values, gradients and running statistics.

Run as a script with (folder, "whole" or "in parts"), this file works through every case, and then forks them: each does
so with weights that are one or the other, on its rows, from copies of what was made before, and saves what it found.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from precision import double_precision
from small import without
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from selfsup.errors import SpecError
from selfsup.method import Batch, Method, load, names
from selfsup.parts import dist, norms
from selfsup.parts.contrastive import even_score, noise_nce, nt_xent
from selfsup.sharded import full, shard
from selfsup.train import backward, cut, split

SAMPLES = 8
Make = Callable[..., tuple[Method, Batch]]  # `setting` of helpers/small.py
Result = dict[str, Tensor]  # "mean ...": its mean over processes is compared; "rows ...": its rows are laid end to end


def mine(x: Tensor) -> Tensor:
    """This process's rows, as a leaf."""
    return x.chunk(dist.world_size())[dist.rank()].clone().requires_grad_()


def share(x: Tensor) -> Tensor:
    """The gradient at this process's rows of the mean of all processes' losses."""
    assert x.grad is not None
    return x.grad / dist.world_size()


def contrast(_: Make) -> Result:
    torch.manual_seed(0)
    a, b = (mine(torch.randn(SAMPLES, 6)) for _ in range(2))
    loss = nt_xent(a, b, temperature=0.1)
    loss.backward()
    return {"mean loss": loss, "rows a": share(a), "rows b": share(b)}


def gathering(_: Make) -> Result:
    torch.manual_seed(0)
    x = mine(torch.randn(SAMPLES, 3, 2))
    everything = dist.gather(x)
    (everything**3).mean().backward()
    return {"mean gathered": everything, "rows grad": share(x), "mean mean": dist.mean(x.mean())}


def normalization(layer: nn.Module, shape: tuple[int, ...], _: Make) -> Result:
    torch.manual_seed(0)
    layer = deepcopy(layer)
    model = nn.Sequential(layer)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x, target = mine(5 + 3 * torch.randn(SAMPLES, *shape)), torch.randn(SAMPLES, *shape)
    if dist.world_size() > 1:
        norms.convert(model)
    out = model(x)
    (out * mine(target)).mean().backward()
    held = {f"mean {name}": value.float() for name, value in model.state_dict().items()}
    grads = {f"mean grad {name}": weight.grad for name, weight in model.named_parameters()}
    model.eval()
    return {"rows out": out, "rows grad": share(x), "rows eval": model(x), **held, **grads}


def groups(layer: nn.Module, shape: tuple[int, ...], number: int, _: Make) -> Result:
    """Two views of eight samples, normalized in some groups of these."""
    torch.manual_seed(0)
    layer = deepcopy(layer)
    model = nn.Sequential(layer)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    views, target = [mine(5 + 3 * torch.randn(SAMPLES, *shape)) for _ in range(2)], torch.randn(2, SAMPLES, *shape)
    norms.convert(model, number, SAMPLES // number)
    out = model(torch.cat(views))
    (out * torch.cat([mine(part) for part in target])).mean().backward()
    norms.average_statistics(model)
    held = {f"mean {name}": value.float() for name, value in model.state_dict().items()}
    grads = {f"mean grad {name}": weight.grad for name, weight in model.named_parameters()}
    parts = {f"rows out {number}": view for number, view in enumerate(out.chunk(2))}
    slopes = {f"rows slope {number}": share(view) for number, view in enumerate(views)}
    return {**parts, **slopes, **held, **grads}


def objective(name: str, kind: str, setting: Make, *, in_parts: bool = False, **hyper: object) -> Result:
    """One step. A ViT, of which batches in pieces make nothing else, sees two pieces where there are two processes."""
    method, batch = setting(name, "narrow cnn" if kind == "cnn" else kind, samples=SAMPLES, double=True, **hyper)
    module: nn.Module = method
    if dist.world_size() > 1:
        norms.convert(method)
        module = method if in_parts else DistributedDataParallel(method)
    if in_parts and dist.world_size() > 1:
        shard(method, SGD(method.parameters()))
    pieces = cut(method, 2 if kind == "vit" and dist.world_size() == 2 else 1)
    with double_precision():
        out = backward(module, split(batch, dist.world_size())[dist.rank()], accumulate=pieces)
        with torch.no_grad():
            method.after_step(0.5, out.aux)
        held = {f"mean {name}": value.float() for name, value in method.named_buffers() if "tracked" not in name}
    weights = dict(method.named_parameters())
    held |= {f"mean {name}": full(weight) for name, weight in weights.items() if not weight.requires_grad}
    grads = {f"mean {name}": full(weight.grad) for name, weight in weights.items() if weight.grad is not None}
    assert len(grads) == sum(weight.requires_grad for weight in weights.values())
    return {"mean loss": out.loss, **grads, **held}


def bare(name: str, setting: Make) -> Result:
    """One step, in which three of the samples have nothing beside them."""

    def make(*of: object, **options: object) -> tuple[Method, Batch]:
        method, batch = setting(*of, **options)
        return method, without(batch, [0, 1, 6])

    return objective(name, "vit", make)


def queued(setting: Make) -> Result:
    """SwAV with its queue in use, which is later than after the step of `objective`; its rows divide by neither."""
    method, batch = setting("swav", samples=SAMPLES, queue=9)
    method.queued.fill_(1.0)
    if dist.world_size() > 1:
        norms.convert(method)
    loss = method(split(batch, dist.world_size())[dist.rank()]).loss
    loss.backward()
    return {"mean loss": loss, "mean grad": method.prototypes.grad}


def noised(_: Make) -> Result:
    torch.manual_seed(0)
    scores = mine(3 * torch.randn(SAMPLES, 6))
    even = even_score(scores, scores.shape[1] - 1)
    loss = noise_nce(scores, even)
    loss.backward()
    return {"mean loss": loss, "mean even": even, "rows grad": share(scores)}


CASES: dict[str, Callable[[Make], Result]] = {
    "nt_xent": contrast,
    "noise_nce": noised,
    "gather": gathering,
    "batch norm 1d": partial(normalization, nn.BatchNorm1d(4), (4,)),
    "batch norm 2d": partial(normalization, nn.BatchNorm2d(4), (4, 5, 3)),
    "batch norm averaged": partial(normalization, nn.BatchNorm2d(4, momentum=None), (4, 5, 3)),
    "two groups 2d": partial(groups, nn.BatchNorm2d(4), (4, 5, 3), 2),
    "four groups 1d": partial(groups, nn.BatchNorm1d(4), (4,), 4),
    "two groups averaged": partial(groups, nn.BatchNorm1d(4, momentum=None), (4,), 2),
    "swav queue": queued,
    "tico through the batch": partial(objective, "tico", "vit", batch_gradient=True),
    "multimae, some without depth": partial(bare, "multimae"),
    "uniter, some without captions": partial(bare, "uniter"),
    "mage's contrast": partial(objective, "mage", "vit", contrast=0.1),
    "avid's agreement": partial(objective, "avid", "vit", agreement="both", positives=2, negatives=4, within=3),
    "a discrete vae": partial(objective, "vqvae", "vit", quantizer="gumbel"),
    "i-jepa's dense term": partial(objective, "ijepa", "vit", dense=0.5),
    "v-jepa's tubes of clips": partial(
        objective, "ijepa", "vit", clips=True, mask="tubes", long_targets=1, long_share=0.5, beta=0.0
    ),
    "a game of context encoders": partial(
        objective, "context_encoder", "cnn", region="center", overlap=1, adversarial=0.3
    ),
    "supervised by tags": partial(objective, "supervised", "vit", tags=True),
    "upernet": partial(objective, "dense.segmenter", "vit", decoder="upernet", width=16),
    "gmml's contrast": partial(objective, "gmml", "vit", contrast=1.0),
    "droppos, all patches alike": partial(objective, "droppos", "vit", attentive=False),
    "v-jepa's two masks": partial(objective, "ijepa", "vit", mask="tubes", long_targets=1, long_share=0.5),
    "aim without a prefix": partial(objective, "aim", "vit", prefix=False, norm_pix_loss=False),
    "semaim's features": partial(objective, "semaim", "vit", target="features", order="random"),
    "mae's normalized squares": partial(objective, "mae", "vit", norm_pix_loss=True, mask_block=2),
    "mae's gradients in blocks": partial(objective, "mae", "vit", target="hog", cell=2, mask="block"),
    "mae's components on a grid": partial(objective, "mae", "vit", target="pca", components=12, mask="grid"),
    "mae's codes and mask tokens": partial(objective, "mae", "vit", target="codes", mask_token=True),
    "mae on mask units": partial(objective, "mae", "hiera", mask_block=2, multi_scale=True, mask_ratio=0.6),
}
for _name in (*names(), "dense.depth_estimator", "dense.object_detector", "dense.segmenter"):
    for _kind in load(_name).backbones:
        CASES[f"{_name} {_kind}"] = partial(objective, _name, _kind)
OTHERS = {f"{name} {kind}" for name in names() for kind in load(name).backbones[1:]}
OTHERS |= {name for name in CASES if name.startswith("dense.") and name.endswith("cnn")}
WORLDS = {2: list(CASES), 4: [case for case in CASES if case not in OTHERS]}  # four: an objective on one encoder
SCALARS = ("clip", "imagebind", "siglip", "slip")  # which learn one, and so keep their weights whole
PARTS = [f"{name} vit" for name in names() if "vit" in load(name).backbones and name not in SCALARS]
BOTH = {"whole": WORLDS, "in parts": {2: PARTS, 4: PARTS}}
Results = dict[int, list[dict[str, Result]]]  # by the number of processes, of each of them


def found(cases: Iterable[str], setting: Make, **options: bool) -> dict[str, Result]:
    results = ((name, CASES[name](setting, **options)) for name in cases)
    return {name: {part: value.detach().clone() for part, value in result.items()} for name, result in results}


def work(rank: int, world: int, folder: Path, setting: Make, weights: str) -> None:
    init_process_group("gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world)
    options = {"in_parts": True} if weights == "in parts" else {}
    torch.save(found(BOTH[weights][world], setting, **options), folder / f"{world}-{rank}.pt")
    destroy_process_group()


def several(folder: Path, weights: str, patience: float) -> Results:
    """What one process and several found. patience: seconds."""
    command = [sys.executable, "-W", "error", __file__, str(folder), weights]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, env=os.environ | environment, check=True, timeout=patience)
    return {
        world: [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)] for world in (1, *BOTH[weights])
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return several(tmp_path_factory.mktemp("gloo"), "whole", 600)


@pytest.mark.parametrize(("world", "name"), [(world, name) for world, cases in WORLDS.items() for name in cases])
def test_processes_are_one(world: int, name: str, results: Results) -> None:
    agree(world, name, results)


@pytest.mark.slow
def test_processes_with_weights_in_parts_are_one(tmp_path: Path) -> None:
    """Each objective on a ViT."""
    results = several(tmp_path, "in parts", 3600)
    for world in (2, 4):
        for name in PARTS:
            agree(world, name, results)


@pytest.mark.parametrize("name", SCALARS)
def test_a_weight_without_an_axis_is_not_divided(name: str, setting: Make) -> None:
    method, _ = setting(name, "vit")
    with pytest.raises(SpecError, match=r"train\.sharding: .* of the objective is a scalar, which cannot be divided"):
        shard(method, SGD(method.parameters()))


def agree(world: int, name: str, results: Results) -> None:
    [one], several = ([each[name] for each in results[number]] for number in (1, world))
    assert all(each.keys() == one.keys() for each in several)
    for part, expected in one.items():
        pieces = [each[part] for each in several]
        joined = torch.cat(pieces) if part.startswith("rows") else torch.stack(pieces).mean(dim=0)
        assert joined.shape == expected.shape, part
        relative, zero = (1e-9, 1e-11) if expected.dtype == torch.float64 else (1e-3, 1e-5)
        assert (joined - expected).norm() <= relative * expected.norm() + zero, part  # some gradients are but rounding


def test_a_layer_that_does_more_than_normalize_is_refused() -> None:
    from timm.layers.norm_act import BatchNormAct2d

    with pytest.raises(NotImplementedError, match=r"BatchNormAct2d \(0\) can be neither synchronized"):
        norms.convert(nn.Sequential(BatchNormAct2d(4)))


def test_one_process_is_left_as_it_is() -> None:
    x = torch.randn(3, 2)
    assert dist.gather(x) is x
    assert dist.mean(x).equal(x)
    assert (dist.rank(), dist.world_size()) == (0, 1)


def test_converting_keeps_weights_and_names() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    state, weight = {name: value.clone() for name, value in model.state_dict().items()}, model[1].weight
    norms.convert(model)
    assert isinstance(model[1], norms.SyncBatchNorm)
    assert model[1].weight is weight
    assert state.keys() == model.state_dict().keys()


if __name__ == "__main__":
    from small import copies

    _folder, _weights, _setting = Path(sys.argv[1]), sys.argv[2], copies(None)
    torch.save(found(BOTH[_weights][2], _setting), _folder / "1-0.pt")
    for _world in WORLDS:
        start_processes(work, (_world, _folder, _setting, _weights), nprocs=_world, start_method="fork")
