"""Photometric operations of the user's own: what they do to views, what names them, and how they are refused."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
import yaml
from outsiders import planned, refused, spec_beside
from typer.testing import CliRunner

from selfsup import codebase, outside
from selfsup.augmentation import OwnAugmentation, load, own
from selfsup.augmentation_contract import CONTRACTS, check
from selfsup.cli import app
from selfsup.errors import SpecError
from selfsup.pipelines.data.collate import collate
from selfsup.pipelines.data.philox import OWN, uniform
from selfsup.pipelines.modalities.image import ImageStats
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.batches import Task
from selfsup.pipelines.stages.worker import check_code
from selfsup.spec import read
from selfsup.spec_schema import schema
from selfsup.sweeps.spec import sweepfile
from selfsup.views import Crop, Views

LIFT = '''"""A lift of the light, by up to `most`."""

from selfsup import Augmentation, Knobs, Range, knob


class Lift(Augmentation):
    """Every channel is lifted by a share of `most` of its own."""

    class Hyper(Knobs):
        most: float = knob(0.5, "largest lift", sweep=Range(0.1, 0.9), gt=0, le=1)

    def num_draws(self, channels):
        return channels

    def apply(self, images, draws):
        lifted = images + self.hyper.most * draws[:, :, None, None]
        return lifted.clamp(0, 1)
'''
STATS = ImageStats(mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.1))
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, shards: str) -> Write:
    """(text of the augmentation, folder=, file=, **of the section) -> a spec that uses it, beside it."""

    def write(text: str, folder: str = "one", file: str = "lift.py", **section: Any) -> Path:
        augment = {"use": f"./{file}", **section}
        return spec_beside(tmp_path / folder / file, text, shards, evals={"knn": {"k": 3}}, augment=augment)

    return write


@pytest.fixture
def lift(write: Write) -> OwnAugmentation:
    augment = own(read(write(LIFT)).augment)
    assert augment
    return augment


def columns(value: int, samples: int = 6) -> dict[str, Any]:
    """Two views of gray images of one value, as the stream delivers them."""
    numbers = {"index": np.arange(samples) * 7, "epoch": np.arange(samples) // 4, "label": np.zeros(samples, np.int64)}
    views = {f"view{number}": np.full((samples, 8, 8, 3), value, np.uint8) for number in (0, 1)}
    return numbers | views | {f"box{number}": np.zeros((samples, 7), np.float32) for number in (0, 1)}


def values(rows: dict[str, Any], augment: OwnAugmentation | None, **crop: Any) -> list[torch.Tensor]:
    """-> two views, (n, 3, 8, 8)"""
    views = Views((Crop(size=8, **crop), Crop(size=8, **crop)))
    batch = collate(rows, views, seed=3, step=0, patch=None, stats={"image": STATS}, device="cpu", own=augment)
    return [view.value for view in batch.views]  # type: ignore[misc]


def test_it_changes_pixels_before_they_are_normalized_by_draws_of_each_sample_and_view(lift: OwnAugmentation) -> None:
    """51 of 255 is 0.2; it becomes 0.2 + 0.5 u, which is within [0, 1]."""
    rows = columns(51)
    mean, std = (torch.tensor(moment).view(3, 1, 1) for moment in (STATS.mean, STATS.std))
    for number, value in enumerate(values(rows, lift)):
        given = {"epoch": rows["epoch"], "index": rows["index"], "purpose": OWN + 16 * number}
        draws = torch.from_numpy(uniform(seed=3, draws=3, **given))
        expected = ((0.2 + 0.5 * draws)[:, :, None, None] - mean) / std
        torch.testing.assert_close(value, expected.expand(6, 3, 8, 8), rtol=0, atol=1e-5)


def test_it_comes_after_what_the_method_asks_for(write: Write) -> None:
    """Solarized, 0.8 becomes 0.2; lifted by 0.25 that is 0.45. The other way round 1.05 would become 0."""
    always = LIFT.replace("self.hyper.most * draws[:, :, None, None]", "0.25")
    first, second = values(columns(204), own(read(write(always)).augment), solarize=1.0)
    expected = torch.tensor([(0.45 - 0.5) / 0.25, (0.45 - 0.4) / 0.2, (0.45 - 0.3) / 0.1]).view(3, 1, 1)
    torch.testing.assert_close(first, expected.expand(6, 3, 8, 8), rtol=0, atol=1e-5)
    assert second.equal(first)


def test_it_changes_the_views_that_a_spec_numbers(write: Write) -> None:
    rows = columns(51)
    first, second = values(rows, own(read(write(LIFT, views=[1])).augment))
    plain, other = values(rows, None)
    assert first.equal(plain)
    assert (second > other).all()


def test_a_sample_is_the_same_in_every_batch(lift: OwnAugmentation) -> None:
    rows = columns(51)
    whole = values(rows, lift)
    for chosen in ([5, 0], slice(2, 5)):
        part = values({name: column[chosen] for name, column in rows.items()}, lift)
        assert all(ours.equal(theirs[chosen]) for ours, theirs in zip(part, whole, strict=True))


def test_one_that_returns_a_view_of_memory_is_normalized_as_well(write: Write) -> None:
    gray = LIFT.replace("return lifted.clamp(0, 1)", "return images.mean(dim=1, keepdim=True).expand_as(images)")
    first, _ = values(columns(51), own(read(write(gray)).augment))
    torch.testing.assert_close(first[0, :, 0, 0], torch.tensor([-1.2, -1.0, -1.0]), rtol=0, atol=1e-5)


def test_its_content_and_its_knobs_are_part_of_the_id_of_what_is_trained(write: Write) -> None:
    texts = LIFT, LIFT.replace("by up to", "of at most"), LIFT.replace("images + ", "images - ")
    first, remark, change = (planned(write(text, str(number))) for number, text in enumerate(texts))
    assert first.id == remark.id != change.id
    knob, views = planned(write(LIFT, "knob", most=0.4)), planned(write(LIFT, "views", views=[0]))
    assert len({first.id, change.id, knob.id, views.id}) == 4
    assert first.pretrain
    assert "lift.py" in codebase.modules(*first.pretrain.entries)
    assert first.params()["augment.use"] == "lift"
    [without] = plan(read(write(LIFT), ["augment=null"]), Path("home"))
    assert without.pretrain
    assert not [name for name in without.pretrain.resolved if name.startswith("augment")]
    [same] = plan(read(write(LIFT, "default", most=0.5)), Path("home"))
    assert same.id == first.id


def test_baselines_do_not_see_it(write: Write) -> None:
    spec = write(LIFT)
    with_it, without = (plan(read(spec, ["baselines=true", *given]), Path("h")) for given in ([], ["augment=null"]))
    assert [run.id for run in with_it][:2] == [run.id for run in without][:2]
    assert with_it[2].id != without[2].id


def test_a_run_with_it_survives_pickling(write: Write) -> None:
    run = planned(write(LIFT, views=[0])).run
    assert pickle.loads(pickle.dumps(run)) == run


def test_a_worker_refuses_a_file_that_computes_something_else_than_planned(write: Write) -> None:
    spec = write(LIFT)
    run = planned(spec)
    assert run.pretrain
    task = Task(run.run, run.train, run.order, run.info, run.pretrain.folder, dict(run.pretrain.resolved), run.stats)
    check_code(task)
    (spec.parent / "lift.py").write_text(LIFT.replace("images + ", "images - "))
    for cached in (outside.text, codebase.modules, codebase._module):
        cached.cache_clear()
    with pytest.raises(SpecError, match=r"lift\.py has changed since the run was planned; run the same command again"):
        check_code(task)


def test_a_sweep_varies_its_knobs_and_files(write: Write) -> None:
    spec = write(LIFT)
    (spec.parent / "other.py").write_text(LIFT.replace("images + ", "images - "))
    axes = {"augment.most": [0.25, 0.5], "augment.views": [None, [0]], "augment.use": ["./lift.py", "./other.py"]}
    spec.write_text(yaml.safe_dump(yaml.safe_load(spec.read_text()) | {"ablate": axes}))
    [design] = sweepfile.read(spec).designs
    runs = [plan(setting.spec, spec.parent)[-1] for setting in design.settings]
    assert len({run.id for run in runs}) == len(runs) == 4


def test_its_knobs_are_checked_as_those_of_a_method(write: Write) -> None:
    assert refused(write(LIFT, mots=0.1)).endswith("augment.mots: unknown key (did you mean 'most'?)")
    assert refused(write(LIFT), "augment.most=0").endswith("augment.most: must be > 0, ≤ 1, not 0")
    assert refused(write(LIFT), "augment.views=[-1]").endswith(
        "augment.views[0]: expected greater than or equal to 0, not -1"
    )


WRONG = {
    "from selfsup import Augmentation\n": "{file} must define one subclass of selfsup.Augmentation, and has none",
    LIFT.replace("def apply", "def change"): "{file}: Lift lacks apply",
    LIFT.replace(" most: float", " views: float"): (
        "{file}: views is a key of `augment` itself; give the knob another name"
    ),
    LIFT + "1 / 0\n": "{file} cannot be imported: {file}:18: ZeroDivisionError: division by zero",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_what_is_no_augmentation_is_told_at_its_place(write: Write, text: str, message: str) -> None:
    spec = write(text)
    line = next(n for n, line in enumerate(spec.read_text().splitlines(), 1) if "use:" in line)
    assert refused(spec) == f"{spec}:{line}:8: augment.use: {message.format(file=spec.parent / 'lift.py')}"


def test_what_names_none_is_told(write: Write) -> None:
    spec = write(LIFT)
    expected = "expected a file, as in ./mine.py, or module:Class, as in my_lab.methods:Mine, not 'stains'"
    assert refused(spec, "augment.use=stains") == f"-s augment.use=stains: augment.use: {expected}"
    assert "augment.use: expected text, not 5" in refused(spec, "augment.use=5")
    spec.write_text(spec.read_text().replace("use: ./lift.py", "most: 0.2"))
    assert "augment.use: required but missing" in refused(spec)


def test_a_class_of_an_installed_package_serves_as_well(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "light_of_a_lab.py").write_text(LIFT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    [run] = plan(read(write(LIFT), ["augment.use=light_of_a_lab:Lift"]), tmp_path / "home")
    assert run.pretrain
    assert "light_of_a_lab" in codebase.modules(*run.pretrain.entries)
    assert load("light_of_a_lab:Lift").__name__ == "Lift"


UNFIT = {  # overrides, or the text -> what `plan` says
    "augment.views=[2]": "augment.views: there is no view 2 of simclr; expected 0 to 1",
    LIFT.replace("class Hyper", "channels = (1, 13)\n\n    class Hyper"): (
        "augment.use: lift takes images of 1 or 13 channels, and {data} has 3"
    ),
    LIFT.replace("lifted.clamp(0, 1)", "lifted"): (
        "augment.use: {file}: not kept: images keep their shape, type and range: values go from "
    ),
}


@pytest.mark.parametrize(("given", "message"), UNFIT.items(), ids=range(len(UNFIT)))
def test_plan_refuses_what_does_not_fit_the_run(write: Write, shards: str, given: str, message: str) -> None:
    text, overrides = (given, []) if "\n" in given else (LIFT, [given])
    spec = read(write(text), overrides)
    with pytest.raises(SpecError) as error:
        plan(spec, Path("home"))
    file = read(write(LIFT)).augment.use  # type: ignore[union-attr]
    assert message.format(file=file, data=shards) in str(error.value).splitlines()[0]


BROKEN = {  # the line -> the contract that it breaks, and how that is told
    "lifted = lifted[:, :, ::2]": ("images keep", "apply makes (6, 1, 16, 32) of (6, 1, 32, 32)"),
    "lifted = lifted.double()": ("images keep", "apply makes torch.float64 of torch.float32"),
    "return lifted * 2": ("images keep", "end apply with .clamp(0, 1)"),
    "lifted = lifted * float('nan')": ("images keep", "values go from nan to nan"),
    "import random; lifted = lifted * random.random()": (
        "equal draws",
        "apply uses the common random numbers of random",
    ),
    "import numpy; lifted = lifted * numpy.random.rand()": ("equal draws", "the common random numbers of numpy"),
    "import torch; torch.manual_seed(0)": ("equal draws", "the common random numbers of torch"),
    "import time; lifted = lifted * (time.perf_counter() % 1)": ("equal draws", "two calls with equal draws"),
    "lifted = lifted * images.mean()": ("each image", "an image alone becomes another than the same image in a batch"),
    "1 / 0": ("each image", "ZeroDivisionError: division by zero"),
}


def with_line(folder: Path, line: str) -> str:
    (folder / "mine.py").write_text(LIFT.replace("        return lifted", f"        {line}\n        return lifted"))
    return str(folder / "mine.py")


@pytest.mark.parametrize(("line", "expected"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_broken_contract_is_told(tmp_path: Path, line: str, expected: tuple[str, str]) -> None:
    contract, reason = expected
    broken = {title: text for title, text in check(with_line(tmp_path, line)) if text}
    assert any(title.startswith(contract) and reason in text for title, text in broken.items()), broken


def test_one_that_needs_no_such_number_of_draws_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LIFT.replace("return channels", "return channels / 2"))
    assert dict(check(str(tmp_path / "mine.py")))["images keep their shape, type and range, of 3 channels"] == (
        "num_draws gives 1.5, not a number of draws"
    )


def test_the_command_shows_a_line_each_and_ends_with_1_for_a_broken_one(tmp_path: Path) -> None:
    kept = CliRunner().invoke(app, ["check-augmentation", with_line(tmp_path, "pass")])
    assert (kept.exit_code, len(kept.output.splitlines())) == (0, 3 * len(CONTRACTS)), kept.output
    assert all(line.startswith("yes  ") for line in kept.output.splitlines())
    (tmp_path / "other").mkdir()
    broken = CliRunner().invoke(app, ["check-augmentation", with_line(tmp_path / "other", "1 / 0")])
    assert broken.exit_code == 1
    assert "no   equal draws give equal images, of 13 channels: ZeroDivisionError: division by zero" in broken.output


def test_the_schema_takes_one(write: Write) -> None:
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(write(LIFT, views=[0], most=0.1).read_text()))
