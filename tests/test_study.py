"""Arms as planned runs: what is shared, what a digest depends on, what a plan says. And the sweeps that are shipped."""

from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
import yaml
from PIL import Image

from selfsup.errors import DataError, SpecError
from selfsup.method import load
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.planned import PlannedRun
from selfsup.sweeps.spec.expand import expand
from selfsup.sweeps.spec.outline import describe, describe_search
from selfsup.sweeps.spec.schema import schema
from selfsup.sweeps.spec.study import Arm
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import read

SWEEPS = Path(__file__).parent.parent / "sweeps"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 images of 2 classes."""
    root = tmp_path_factory.mktemp("shards")
    draw = np.random.default_rng(0)
    for number in range(16):
        folder = root / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    pack(root / "images", root / "packed")
    return root / "packed"


class Home:
    def __init__(self, folder: Path, shards: Path) -> None:
        self.folder, self.shards = folder, shards

    def expand(self, text: str, *overrides: str) -> tuple[Sweep, dict[str, PlannedRun]]:
        common = f"""
data: {{train: {self.shards}, val: {self.shards}}}
backbone: {{name: vit_tiny_patch16_224, image_size: 32, patch_size: 8, width: 32, heads: 2}}
train: {{duration: {{steps: 4}}, batch: 8}}
evals: {{knn: {{k: 3}}}}
"""
        path = self.folder / "s.yaml"
        path.write_text(text + common)
        return expand(read(path, overrides), self.folder)


@pytest.fixture
def home(tmp_path: Path, shards: Path) -> Home:
    return Home(tmp_path, shards)


MAE = "name: s\nmethod: mae\nablate: {hyper.mask_ratio: [0.5, 0.75], hyper.decoder_depth: [1]}\n"
BOTH = """\
name: s
seeds: 2
studies:
  - {method: mae, ablate: {hyper.mask_ratio: [0.5, 0.9], train.batch: [16]}}
  - {method: simclr, ablate: {hyper.temperature: [0.2]}}
"""


def test_each_arm_is_one_run_a_seed_and_the_default_and_the_baselines_are_planned_once(home: Home) -> None:
    sweep, planned = home.expand(BOTH)
    mae, simclr = sweep.studies
    assert [arm.name for arm in mae.arms] == ["default", "mask_ratio=0.5", "mask_ratio=0.9", "batch=16"]
    assert [arm.name for arm in simclr.arms] == ["default", "temperature=0.2"]
    assert [arm.name for arm in sweep.baselines] == ["raw pixels", "random encoder"]
    assert (sweep.seeds, sweep.metrics) == ((0, 1), ("eval/knn/top1",))
    arms = [*mae.arms, *simclr.arms, *sweep.baselines]
    assert [run for arm in arms for run in arm.ids.values()] == list(
        dict.fromkeys(i for a in arms for i in a.ids.values())
    )
    assert {run for arm in arms for run in arm.ids.values()} == set(planned)
    assert len(planned) == 2 * (4 + 2 + 2)
    runs = [planned[mae.arms[1].ids[seed]].run for seed in (0, 1)]
    assert [(run.seed, run.model_dump()["hyper"]["mask_ratio"]) for run in runs] == [(0, 0.5), (1, 0.5)]
    assert [arm.default for arm in arms] == [True, False, False, False, True, False, False, False]


def test_a_study_with_an_encoder_of_its_own_has_a_baseline_of_its_own(home: Home) -> None:
    text = "name: s\nstudies:\n  - {method: mae}\n  - {method: simclr, backbone: {depth: 2}}\n"
    sweep, planned = home.expand(text)
    assert [arm.name for arm in sweep.baselines] == ["raw pixels", "random encoder", "random encoder (simclr)"]
    assert len(planned) == 5
    without, _ = home.expand(text, "baselines=false")
    assert without.baselines == ()


def test_a_baseline_of_another_backbone_is_named_after_it(home: Home) -> None:
    cnn = "{name: resnet18, patch_size: null, width: 16, depth: null, heads: null}"
    sweep, _ = home.expand(f"name: s\nstudies:\n  - {{method: mae}}\n  - {{method: simclr, backbone: {cnn}}}\n")
    pixels, vit, resnet = sweep.baselines
    assert [arm.name for arm in (pixels, vit, resnet)] == ["raw pixels", "random encoder", "random encoder (resnet18)"]
    assert [study.floor for study in sweep.studies] == [(pixels, vit), (pixels, resnet)]


def test_a_value_more_leaves_the_others_alone_and_changes_the_digest(home: Home) -> None:
    before, _ = home.expand(MAE)
    after, _ = home.expand(MAE, "ablate.hyper.mask_ratio=[0.5, 0.6]")
    again, _ = home.expand(MAE, "resources.workers=2", "train.log_every=1")
    seeds, _ = home.expand(MAE, "seeds=2")
    primary, runs = home.expand(MAE, "primary=eval/knn/top1")
    assert (primary.digest, primary.primary) == (before.digest, "eval/knn/top1")
    assert runs.keys() == home.expand(MAE)[1].keys()

    def arms(sweep: Sweep) -> dict[str, Arm]:
        return {arm.name: arm for arm in sweep.studies[0].arms}

    assert arms(after) == arms(before) | {"mask_ratio=0.6": arms(after)["mask_ratio=0.6"]}
    assert again.digest == before.digest
    assert len({before.digest, after.digest, seeds.digest}) == 3
    assert all(arms(seeds)[name].ids[0] == arm.ids[0] for name, arm in arms(before).items())


def test_arms_that_would_be_the_same_runs(home: Home) -> None:
    text = MAE.replace("mae", "untrained").replace("hyper.mask_ratio: [0.5, 0.75], hyper.decoder_depth", "optim.lr")
    with pytest.raises(SpecError, match=r"s\.yaml:3:10: optim\.lr: in untrained, lr=1\.0 and default are the same"):
        home.expand(text)


def test_a_plan_says_what_is_left_and_for_how_long(home: Home) -> None:
    sweep, planned = home.expand(MAE, "seeds=2")
    before = describe(sweep, planned)
    assert "mae: 3 arms x 2 seeds" in before
    assert "ablate  hyper.mask_ratio         0.5  [0.75]" in before
    assert "pretrain     6, 0 done" in before
    assert "left to train: 6 runs, 24 steps, 192 samples" in before
    assert "no run of this kind measured yet, for mae" in before
    finish(planned[sweep.studies[0].arms[0].ids[0]], start=3600.0, speed=32 / 7200)
    after = describe(sweep, planned)
    assert "pretrain     6, 1 done" in after
    assert "left to train: 5 runs, 20 steps, 160 samples" in after
    assert "15 hours of training (15 to 15)" in after  # 5 runs of an hour before, and two for 32 samples


def test_a_plan_warns_once_of_what_nobody_has_shown(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load("mae"), "least_batch", 16)
    shown = describe(*home.expand(MAE, "seeds=[3, 5]"))
    assert shown.count("  beware  mae with batches of 8: its paper shows none below 16\n") == 1


def finish(run: PlannedRun, *, start: float, speed: float) -> None:
    assert run.pretrain
    run.pretrain.claim()
    run.pretrain.finish({"start_seconds": start})
    record = f'{{"step": 4, "time": 1, "values": {{"samples_per_second": {speed}}}}}\n'
    run.pretrain.spool.write_text(record)


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_read_and_fit_the_schema(path: Path) -> None:
    assert f"selfsup sweep {path.stem}" in path.read_text().partition("\nname:")[0]
    assert read(path).name == path.stem
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(path.read_text()))


def test_the_demo_is_7_arms() -> None:
    mae, simclr = read(SWEEPS / "demo.yaml").designs
    assert [setting.name for setting in mae.settings] == [
        "default",
        "mask_ratio=0.5",
        "mask_ratio=0.9",
        "decoder_depth=4",
    ]
    assert [setting.name for setting in simclr.settings] == ["default", "temperature=0.05", "temperature=1.0"]


def test_a_placeholder_for_data_is_one_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"\.yaml:13:8: data\.train: /data/imagenet/train/manifest\.json: missing; there is no such folder",
    ):
        expand(read(SWEEPS / "mae_ablation.yaml"), tmp_path)


def test_the_papers_numbers_stand_beside_every_arm_of_its_table_1() -> None:
    """By fine-tuning and by its linear probe; beside the photographs' arms of that table, the latter."""
    table, half = read(SWEEPS / "mae_ablation.yaml").designs
    for design in (table, half):
        assert design.expected.keys() == {setting.name for setting in design.settings}
        assert {tuple(sorted(numbers)) for numbers in design.expected.values()} == {
            ("eval/finetune/top1", "eval/linear_mae/top1")
        }
    depths, switches, blocks = read(SWEEPS / "mae_ablation_photos.yaml").designs
    assert blocks.expected["default"].items() <= half.expected["default"].items()
    assert all(numbers.items() <= table.expected[arm].items() for arm, numbers in switches.expected.items())
    renamed = {"default": "decoder_depth=1", "decoder_depth=8": "default"}
    assert all(
        numbers.items() <= table.expected[renamed.get(arm, arm)].items() for arm, numbers in depths.expected.items()
    )


def test_the_plan_of_a_search(shards: Path, tmp_path: Path) -> None:
    data = [f"data.train={shards}", f"data.val={shards}", "train.batch=16", "stream.lanes=4", "evals.knn.k=10"]
    said = describe_search(read(SWEEPS / "mae_search.yaml", data), tmp_path)
    assert "hyper.mask_ratio         0.4 to 0.9" in said
    assert "optim.lr                 0.0001 to 0.01, log" in said
    assert "from seed 0: it would draw the same again in one session if trials ended in the same order" in said
    assert "7,680 samples a trial, 230,400 together" in said  # 480 steps of 16, 30 times
