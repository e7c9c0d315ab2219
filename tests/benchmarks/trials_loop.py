"""The trials of trials.py in a loop of one process. Arguments: a folder with images, and the number of trials."""

import sys
from pathlib import Path

import mlflow
import optuna
import timm
import torch
from lightly.loss import NTXentLoss
from sklearn.neighbors import KNeighborsClassifier
from torchvision import datasets
from torchvision.transforms import v2


def main(folder: Path, trials: int) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("loop")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plain = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])
    crops = v2.Compose([v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.2, 0.1), plain])
    splits = {split: datasets.ImageFolder(folder / split, plain) for split in ("train", "val")}
    pairs = datasets.ImageFolder(folder / "train", lambda image: (crops(image), crops(image)))

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(trial.number)
        temperature = trial.suggest_float("temperature", 0.1, 0.5)
        with mlflow.start_run():
            mlflow.log_params(trial.params)
            top1 = _trained(temperature, pairs, splits)
            mlflow.log_metrics({"top1": top1})
        return top1

    optuna.create_study(direction="maximize").optimize(objective, n_trials=trials)


def _trained(temperature: float, pairs: datasets.ImageFolder, splits: dict[str, datasets.ImageFolder]) -> float:
    trunk = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=0
    )
    head = torch.nn.Sequential(torch.nn.Linear(32, 512), torch.nn.ReLU(), torch.nn.Linear(512, 128))
    optimizer = torch.optim.AdamW([*trunk.parameters(), *head.parameters()])
    (one, other), _ = next(iter(torch.utils.data.DataLoader(pairs, batch_size=8, shuffle=True)))
    loss = NTXentLoss(temperature)(head(trunk(one)), head(trunk(other)))
    loss.backward()
    optimizer.step()
    mlflow.log_metric("loss", loss.item(), step=1)
    features = {split: _embedded(trunk.eval(), data) for split, data in splits.items()}
    known = KNeighborsClassifier(3, metric="cosine").fit(*features["train"])
    return 100 * float(known.score(*features["val"]))


@torch.inference_mode()
def _embedded(trunk: torch.nn.Module, data: datasets.ImageFolder) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = next(iter(torch.utils.data.DataLoader(data, batch_size=len(data))))
    return trunk(images).numpy(), labels.numpy()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
