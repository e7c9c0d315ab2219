"""The commands of `selfsup shards`, a few lines over the library each, which is imported when they run."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsup.cli_help import SectionedGroup
from selfsup.progress import Bar, counting, labelling, say, say_left_out, several
from selfsup.screen import show_json

if TYPE_CHECKING:
    from selfsup.pipelines.data.manifest import Manifest

shards = typer.Typer(cls=SectionedGroup, help="Make, index and verify WebDataset shards.", no_args_is_help=True)

LISTED = 20  # classes whose sizes are printed one by one

Bits = Annotated[int | None, typer.Option(min=8, max=16, help="that images of 16 bits use: 2^N - 1 is white")]
Channels = Annotated[int, typer.Option(min=1, max=4096, help="3: images become RGB; 1: gray; N: all that they have")]
Depth = Annotated[int, typer.Option(help="bits that values keep: 8, or 16 of microscopes, satellites, scanners")]
Where = Annotated[str, typer.Argument(metavar="URL_OR_DIR", help="a folder, or s3://, gs://, https:// ...")]


@shards.command("pack")
def shards_pack(
    images_dir: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES_DIR", help="images or recordings, in a folder per class or flat", show_default=False
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(metavar="OUT", help="where the shards and their manifest go: a folder, or s3://, gs:// ..."),
    ],
    split: Annotated[float | None, typer.Option(help="share of each class for OUT/val; the rest is OUT/train")] = None,
    layout: Annotated[
        str | None, typer.Option("--as", help="a public data set with maps beside images: ade20k, voc, coco, nyu")
    ] = None,
    flat: Annotated[bool, typer.Option("--flat", help="take the samples of all folders, without labels")] = False,
    resize: Annotated[int | None, typer.Option(min=1, help="shorter side in pixels; never enlarges")] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="of JPEGs that are encoded anew  [default: 92]")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="store files as they are, unless they are resized")] = False,
    background: Annotated[
        str | None, typer.Option(help="lay transparent images on a color: white, #7f7f7f; else alpha is dropped")
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="samples a shard")] = 1000,
    bits: Bits = None,
    channels: Channels = 3,
    depth: Depth = 8,
) -> None:
    """Pack images or recordings into shards with a manifest. Continues where an interrupted call stopped."""
    from selfsup.pipelines.data.folders import find
    from selfsup.pipelines.data.pack import pack

    _check(split, background)
    coding = {"resize": resize, "quality": quality, "keep": keep or None, "background": background}
    coding = {name: value for name, value in coding.items() if value is not None}  # not every modality has them
    if layout:
        _pack_as(layout, images_dir.absolute(), out, shard_size, is_plain=not (split or flat or coding))
        return
    sources = find(images_dir.absolute(), flat=flat)
    if sources.splits:
        say(f"{' and '.join(sources.splits)} are taken for classes; if they are splits, pack each by itself")
    parts = {out: sources}
    if split:
        parts = dict(zip((f"{out}/train", f"{out}/val"), sources.split(split), strict=True))
    remark = functools.cache(say)  # once for both
    for place, part in parts.items():
        with counting("files") as progress:
            packed = pack(
                part,
                place,
                shard_size=shard_size,
                reading=_reading(bits, channels, depth),
                progress=progress,
                remark=remark,
                **coding,
            )
        say_left_out(packed.skipped, packed.left_out, "decoded")
        typer.echo(f"{place}: {_contents(packed.manifest)}{_sizes(packed.classes)}")


def _pack_as(layout: str, folder: Path, out: str, shard_size: int, *, is_plain: bool) -> None:
    """Pack the splits of a public data set, each image with its maps. is_plain: whether no other option is given."""
    from selfsup.pipelines.data import layouts
    from selfsup.pipelines.data.annotated import pack_annotated

    if layout not in layouts.LAYOUTS:
        raise typer.BadParameter(f"{layout}; expected one of {', '.join(layouts.LAYOUTS)}", param_hint="--as")
    if not is_plain:
        raise typer.BadParameter("packs the splits and files as they are; give --shard-size alone", param_hint="--as")
    for name, part in layouts.read(layout, folder).items():
        samples = map(part.sample, Bar(iterable=part.entries, unit=" images"))
        manifest = pack_annotated(samples, f"{out}/{name}", shard_size=shard_size)
        typer.echo(f"{out}/{name}: {_contents(manifest)}; with {', '.join(manifest.annotations)}")


def _check(split: float | None, background: str | None) -> None:
    """Raise typer.BadParameter for a share that leaves nothing, and for an unknown color."""
    if split is not None and not 0 < split < 1:
        raise typer.BadParameter(f"{split:g}; expected a share between 0 and 1, as in 0.1", param_hint="--split")
    if background:
        from PIL import ImageColor

        try:
            ImageColor.getrgb(background)
        except ValueError as error:
            raise typer.BadParameter(f"{error}; expected white, black, #rrggbb", param_hint="--background") from error


def _sizes(classes: Mapping[str, int]) -> str:
    """Return the samples of each class, or of many the fewest and the most."""
    if len(classes) > LISTED:
        least, most = min(classes, key=classes.__getitem__), max(classes, key=classes.__getitem__)
        return f": from {classes[least]} ({least}) to {classes[most]} ({most})"
    return f": {', '.join(f'{name} {number}' for name, number in classes.items())}" if classes else ""


@shards.command("index")
def shards_index(
    url: Where,
    out: Annotated[str | None, typer.Option(help="folder for the manifest, if not beside the shards")] = None,
    bits: Bits = None,
    channels: Channels = 3,
    depth: Depth = 8,
) -> None:
    """Write the manifest of shards that someone else made."""
    from selfsup.pipelines.data.shards import index

    with counting("shards") as progress:
        manifest = index(url, out=out, reading=_reading(bits, channels, depth), progress=progress, remark=say)
    typer.echo(f"{out or url}: {_contents(manifest)}")


def _reading(bits: int | None, channels: int, depth: int) -> dict[str, Any]:
    """Return how images are read. Raises typer.BadParameter for a depth that no image has."""
    from selfsup.modality import load

    if depth not in (8, 16):
        raise typer.BadParameter(f"{depth} bits; expected 8 or 16", param_hint="--depth")
    return {"image": load("image").Reading.model_validate({"bits": bits, "channels": channels, "depth": depth})}


def _contents(manifest: "Manifest") -> str:
    counts = f"{several(manifest.num_samples, 'sample')} in {several(manifest.num_shards, 'shard')}"
    return f"{counts}; {labelling(len(manifest.classes), manifest.num_labelled, manifest.num_samples)}"


@shards.command("check")
def shards_check(
    url: Where,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON: {url, problems: [text]}")] = False,
) -> None:
    """Verify counts, checksums and that every sample decodes. Exits with 3 if anything is wrong."""
    from selfsup.pipelines.data.shards import check

    with counting("samples") as progress:
        problems = check(url, progress=progress)
    if as_json:
        show_json({"url": url, "problems": problems})
    else:
        for line in [*problems, f"{url}: {several(len(problems), 'problem') if problems else 'no problems'}"]:
            typer.echo(line)
    raise typer.Exit(3 if problems else 0)
