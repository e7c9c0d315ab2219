"""The commands for what was trained: its features of any samples, and its weights for other libraries."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selfsup.mlflow_store import home
from selfsup.progress import counting, labelling, say_left_out, several

if TYPE_CHECKING:
    from selfsup.pipelines.embed import EmbedResult

encoders = typer.Typer()
FORMATS = "for timm; load_encoder; AutoModel of transformers; onnxruntime; torch.export; as a model in MLflow"

Trained = Annotated[
    str,
    typer.Argument(
        metavar="RUN_OR_ENCODER",
        help="a finished run, by id or name as `selfsup runs` prints them, or a .safetensors of ours",
    ),
]


@encoders.command()
def embed(
    source: Trained,
    samples: Annotated[
        str, typer.Argument(metavar="SAMPLES_OR_SHARDS", help="a folder of images or recordings, or shards")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="file to write")],
    layers: Annotated[str, typer.Option(help="such as 4,8,-1, or all [default: the pooled features]")] = "",
    crop: Annotated[
        float | None, typer.Option(help="share of the shorter side [default: the run's embed.crop]")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="samples at a time")] = 256,
) -> None:
    """Write features of samples as Parquet: a row each, in their order, with name and label."""
    from selfsup.pipelines.embed import embed

    encoder = _run_or_file(source)
    with counting("samples") as progress:
        result = embed(home(), encoder, samples, out, layers=layers, crop=crop, batch=batch, progress=progress)
    say_left_out(result.unreadable, result.left_out, "read")
    typer.echo(f"{out}: {_contents(result)}; encoder: {encoder}")


def _contents(result: "EmbedResult") -> str:
    unreadable = f", {several(len(result.unreadable), 'other')} unreadable" if result.unreadable else ""
    labels = labelling(result.classes, result.labelled, result.samples)
    columns = ", ".join(f"{name} ({size})" for name, size in result.features.items())
    return f"{several(result.samples, 'sample')}{unreadable}; {labels}; columns: sample, label, {columns}"


@encoders.command()
def export(
    source: Trained,
    to: Annotated[
        Literal["timm", "torch", "hf", "onnx", "pt2", "mlflow"],
        typer.Option("--to", "--format", help=FORMATS),
    ],
    out: Annotated[Path | None, typer.Option(help="file to write [default: RUN.safetensors, RUN-hf ...]")] = None,
) -> None:
    """Write the trained encoder for another library, checked there; print the lines of Python that read it."""
    from selfsup.pipelines import export

    source = _run_or_file(source)
    if to == "mlflow":
        from selfsup.track import store

        typer.echo(export.store(home(), source, store()))
    else:
        typer.echo(export.export(home(), source, out, to=to))


def _run_or_file(source: str) -> str:
    """Return a file as it is, and the id of a run that is named. Raises SpecError where there is no one run."""
    from selfsup.stage import record

    if (
        source.endswith(".safetensors")
        or Path(source).is_file()
        or ("/" not in source and record(home(), source).exists())
    ):
        return source
    from selfsup.sweeps.stored import chosen, stored

    return chosen(stored(home()), source)
