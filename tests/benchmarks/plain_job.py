"""What a user would write in place of `selfsup run photos/simclr`: one file, one process, and two that load its data.

python tests/benchmarks/plain_job.py SHARDS FOLDER STEPS

webdataset, torch's DataLoader, torchvision's transforms, timm's ViT, lightly's head and loss, MLflow in a SQLite file;
then features of both splits, lightly's kNN, and one linear layer by SGD, where we train a grid of eight.
"""

import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import mlflow
import timm
import torch
import torchvision.transforms.v2 as T
import webdataset as wds
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from lightly.utils.benchmarking import knn_predict
from torch import Tensor, nn
from torch.utils.data import DataLoader

SIZE, BATCH, WIDTH, WARMUP = 48, 64, 96, 20
CORES = len(os.sched_getaffinity(0))
SCALED = [T.ToDtype(torch.float32, scale=True), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
CROP = T.Compose(
    [
        T.PILToTensor(),
        T.RandomResizedCrop(SIZE, scale=(0.2, 1.0), interpolation=T.InterpolationMode.BICUBIC),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(0.2),
        *SCALED,
    ]
)
WHOLE = T.Compose([T.PILToTensor(), T.Resize((SIZE, SIZE), interpolation=T.InterpolationMode.BICUBIC), *SCALED])


def images(folder: Path) -> wds.WebDataset:
    """Pairs of an image and its label."""
    return wds.WebDataset(sorted(map(str, folder.glob("*.tar"))), shardshuffle=False, empty_check=False).decode("pil")


def batches(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    data = images(folder).repeat().shuffle(1000).to_tuple("jpg").map(lambda sample: (CROP(sample[0]), CROP(sample[0])))
    return iter(DataLoader(data, BATCH, num_workers=CORES))


@torch.no_grad()
def features(vit: nn.Module, folder: Path) -> tuple[Tensor, Tensor]:
    vit.eval()
    data = images(folder).to_tuple("jpg", "cls").map_tuple(WHOLE, int)
    parts: Iterable[tuple[Tensor, Tensor]] = DataLoader(data, 256, num_workers=CORES)
    values, labels = zip(*[(vit(image), label) for image, label in parts], strict=True)
    return torch.cat(values), torch.cat(labels)


def train(vit: nn.Module, folder: Path, steps: int) -> None:
    head, criterion = SimCLRProjectionHead(WIDTH, WIDTH, 128), NTXentLoss(0.2)
    weights = [*vit.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, 1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    for step, views in zip(range(1, steps + 1), batches(folder), strict=False):
        loss = criterion(*(head(vit(view)) for view in views))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if step % 10 == 0:
            mlflow.log_metrics({"loss": loss.item(), "lr": rate.get_last_lr()[0]}, step)


def linear(bank: Tensor, label: Tensor, query: Tensor, truth: Tensor) -> float:
    mean, std = bank.mean(0), bank.std(0)
    head = nn.Linear(WIDTH, int(label.max()) + 1)
    optimizer = torch.optim.SGD(head.parameters(), 0.1, momentum=0.9)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    for _ in range(50):
        for rows in torch.randperm(len(bank)).split(256):
            loss = nn.functional.cross_entropy(head((bank[rows] - mean) / std), label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rate.step()
    return float((head((query - mean) / std).argmax(1) == truth).float().mean())


def main(shards: Path, folder: Path, steps: int) -> None:
    torch.manual_seed(0)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("plain")
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=SIZE, patch_size=8, embed_dim=WIDTH, depth=3, num_heads=3, num_classes=0
    )
    with mlflow.start_run():
        mlflow.log_params({"steps": steps, "batch": BATCH, "temperature": 0.2})
        train(vit, shards / "train", steps)
        torch.save(vit.state_dict(), folder / "encoder.pt")
        bank, label = features(vit, shards / "train")
        query, truth = features(vit, shards / "val")
        near = nn.functional.normalize(bank).T, nn.functional.normalize(query)
        guess = knn_predict(near[1], near[0], label, int(label.max()) + 1, knn_k=20, knn_t=0.07)[:, 0]
        top1 = float((guess == truth).float().mean()), linear(bank, label, query, truth)
        mlflow.log_metrics({"knn": 100 * top1[0], "linear": 100 * top1[1]})
    print(f"knn {100 * top1[0]:.2f}, linear {100 * top1[1]:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
