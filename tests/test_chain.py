"""Trainings that come before a run's own: how they are named, what depends on them, and what is refused."""

from typing import Any

import pytest
import torch
import yaml
from plans import METHOD, Home
from safetensors.torch import load_file

from selfsup.encoder import build
from selfsup.errors import SpecError
from selfsup.frozen import Frozen
from selfsup.method import TrainInfo
from selfsup.parts.patch import patchify
from selfsup.pipelines import objective
from selfsup.pipelines.cost import _remarks
from selfsup.pipelines.records import remember
from selfsup.saved import restore_encoder, save_encoder
from selfsup.sections import Backbone
from selfsup.tensors import save

CODES = {"num_codes": 12, "code_dim": 4, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
CLUSTERED = {"method": "clusterfit", "hyper__clusters": 3, "hyper__iterations": 2}


def first(home: Home, name: str = "first.yaml", **changes: Any) -> str:
    """Write the spec of an earlier training, without what is None; return its name beside the later one's."""
    data = {split: str(home.sets / name / "shards") for split, name in METHOD["data"].items()}
    settings = (METHOD | {"name": "first", "data": data} | changes).items()
    (home.folder / name).write_text(yaml.safe_dump({key: value for key, value in settings if value is not None}))
    return name


def test_an_earlier_training_is_a_stage_of_the_run_and_part_of_its_key(home: Home) -> None:
    run = home.run(**CLUSTERED, teacher={"from": first(home)})
    kinds = [f"{stage.kind} {stage.name}".rstrip() for stage in run.stages]
    assert kinds == ["pretrain teacher", "targets", "pretrain", "embed", "knn", "linear"]
    teacher = run.before["teacher"]
    assert (teacher.method, teacher.spec, teacher.steps) == ("mae", "first", 4)
    assert run.owner(run.stages[0]) is teacher
    assert run.owner(run.stages[1]) is run
    alone = home.run(**METHOD | {"name": "first"}).pretrain
    assert alone
    assert run.stages[0].key == alone.key  # found again by whoever trains it for itself


def test_what_the_earlier_training_depends_on_the_later_one_does(home: Home) -> None:
    name = first(home)
    run = home.run(**CLUSTERED, teacher={"from": name})
    same = home.run(**CLUSTERED, teacher={"from": str(home.folder / name)}, resources={"workers": 2})
    assert same.id == run.id
    assert same.before["teacher"].run.resources.workers == 2
    first(home, hyper={"mask_ratio": 0.5})
    assert home.run(**CLUSTERED, teacher={"from": name}).id != run.id
    first(home)
    assert home.run(**CLUSTERED, teacher={"from": name, "seed": 1}).id != run.id
    other = home.run(**CLUSTERED, teacher={"from": name}, embed__crop=1.0)  # of the features that are clustered
    assert [stage.key == kept.key for stage, kept in zip(other.training, run.training, strict=True)] == [
        True,
        False,
        False,
    ]


def test_it_trains_on_the_data_of_the_run_or_on_its_own(home: Home) -> None:
    other = str(home.sets / "other" / "shards")
    name = first(home, data={"train": other, "val": other})
    same, own = (home.run(**CLUSTERED, teacher={"from": name, "data": data}) for data in ("same", "own"))
    assert same.before["teacher"].train.root == same.train.root
    assert own.before["teacher"].train.root == other


def test_every_seed_has_the_teacher_of_seed_0_or_one_of_its_own(home: Home) -> None:
    name = first(home)
    seeds = {"seeds": 3, "baselines": False}
    shared = home.plan(**CLUSTERED, **seeds, teacher={"from": name})
    assert len({run.stages[0].key for run in shared}) == 1
    paired = home.plan(**CLUSTERED, **seeds, teacher={"from": name, "seed": None})
    assert [run.before["teacher"].run.seed for run in paired] == [0, 1, 2]


def test_a_run_is_named_by_its_id(home: Home) -> None:
    earlier = home.run(name="first")
    remember(earlier)
    run = home.run(**CLUSTERED, teacher={"from": earlier.id, "data": "same"})
    assert earlier.pretrain
    assert run.stages[0].key == earlier.pretrain.key
    path = home.folder / "runs" / f"{earlier.id}.json"
    path.write_text(path.read_text().replace('"mask_ratio": 0.75', '"mask_ratio": 0.5'))
    with pytest.raises(SpecError, match=rf"teacher\.from: {earlier.id} was trained by another version"):
        home.run(**CLUSTERED, teacher={"from": earlier.id})


def test_an_encoder_starts_from_that_of_an_earlier_training(home: Home) -> None:
    run = home.run(start={"from": first(home, hyper={"mask_ratio": 0.5})})
    earlier = run.before["start"]
    assert earlier.pretrain
    trunk = objective.initial_encoder(earlier.run, 3)
    earlier.pretrain.folder.mkdir(parents=True)
    save_encoder(trunk, earlier.run.backbone, earlier.pretrain.folder / objective.ENCODER)
    built = objective.build(run.run, run.size, torch.device("cpu"), start=run.start).backbone.trunk.state_dict()
    assert run.start
    for name, weight in restore_encoder(run.start).trunk.state_dict().items():
        assert weight.equal(built[name])


def test_all_weights_go_on_where_the_objective_is_the_same(home: Home) -> None:
    name = first(home)
    run = home.run(start={"from": name, "weights": "all"})
    assert run.id != home.run(start={"from": name}).id
    earlier = run.before["start"]
    assert earlier.pretrain
    assert run.start
    method = objective.build(earlier.run, earlier.size, torch.device("cpu"))
    for weight in method.parameters():
        weight.data.fill_(7.0)
    earlier.pretrain.folder.mkdir(parents=True)
    save(method.state_dict(), run.start)
    assert run.start == earlier.pretrain.folder / objective.METHOD
    built = objective.build(run.run, run.size, torch.device("cpu"), start=run.start)
    assert {value for weight in built.parameters() for value in weight.unique().tolist()} == {7.0}


def test_a_teacher_is_built_beside_the_weights_of_the_learner_which_stay_as_they_are(home: Home) -> None:
    teacher = {"from": first(home, method="vqvae", hyper=CODES)}
    run = home.run(method="beit", teacher=teacher)
    assert run.taught
    assert run.teacher
    method = objective.build(run.teacher.run, run.teacher.size, torch.device("cpu"))
    method.embed.bias.data.fill_(7.0)
    run.taught.folder.mkdir(parents=True)
    save(method.state_dict(), run.taught.folder / objective.METHOD)
    learner = objective.build(run.run, run.size, torch.device("cpu"), teacher=run.taught)
    assert learner.teacher.method.embed.bias.unique().tolist() == [7.0]
    assert not any("teacher" in name for name in learner.state_dict())
    assert not learner.train().teacher.method.training
    assert learner.to("meta").teacher.method.embed.bias.is_meta


def test_a_teacher_may_be_an_encoder_at_given_weights(home: Home) -> None:
    weights, keys = home.folder / "given.safetensors", []
    backbone = METHOD["backbone"] | {"name": "vit_small_patch16_dinov3", "depth": 1}
    trunk = build(Backbone(**backbone)).trunk
    for scale in (1.0, 2.0):
        save({name: scale * weight for name, weight in trunk.state_dict().items()}, weights)
        name = first(home, method="untrained", train=None, backbone=backbone | {"weights": str(weights)})
        run = home.run(method="feature_distillation", teacher={"from": name})
        assert run.pretrain
        keys.append(run.pretrain.key)
    assert [stage.kind for stage in run.stages] == ["pretrain", "embed", "knn", "linear"]
    assert len({*keys}) == 2
    learner = objective.build(run.run, run.size, torch.device("cpu"), teacher=run.taught)
    images = torch.rand(2, 3, 32, 32)
    view = patchify(images, 8)
    mean, std = (torch.tensor(moment)[:, None, None] for moment in (run.size.mean, run.size.std))
    usual, spread = (torch.tensor(trunk.pretrained_cfg[part])[:, None, None] for part in ("mean", "std"))
    trunk.load_state_dict(load_file(weights))
    expected = trunk.forward_features((images * std + mean - usual) / spread)[:, 5:]
    torch.testing.assert_close(learner.teacher.features(view, (4, 4))[1], expected, rtol=1e-4, atol=1e-4)
    assert not any(name.startswith("teacher") for name in learner.state_dict())


def test_a_spec_of_another_kind_of_data_is_told_at_the_section_that_names_it(home: Home) -> None:
    name = first(home, method="vqvae", hyper=CODES)
    with pytest.raises(SpecError, match=rf"spec\.yaml:\d+:\d+: teacher\.from: .*{name} reads image .*this run audio"):
        home.run(method="beit", teacher={"from": name}, input={"audio": {}})


def test_a_teacher_counts_only_where_the_knobs_ask_for_it(home: Home) -> None:
    teacher = {"from": first(home, method="vqvae", hyper=CODES)}
    pixels, codes = (home.run(hyper={"target": target}, teacher=teacher) for target in ("pixels", "codes"))
    assert pixels.id == home.run().id
    idle = ("beware", f"teacher: {home.folder / 'first.yaml'} teaches mae nothing with these knobs")
    assert [list(_remarks(run.run, run.info)) for run in (pixels, codes)] == [[idle], []]
    assert [stage.name for stage in codes.training] == ["teacher", ""]
    with pytest.raises(SpecError, match=r"teacher: mae learns from the codes of a tokenizer"):
        home.run(hyper={"target": "codes"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": "clusterfit"},
            r"teacher: clusterfit learns from targets made of .* teacher: \{from: photos/simclr\}",
        ),
        (
            {"method": "simmim", "teacher": {"from": "first.yaml"}},
            r"teacher: simmim learns from no teacher; leave it out",
        ),
        ({"method": "beit", "teacher": {"from": "first.yaml"}}, r"teacher\.from: beit learns from the codes .*vqvae"),
        ({"start": {"from": "nowhere"}}, r"start\.from: .*cannot read nowhere"),
        ({"start": {"from": "circle.yaml"}}, r"start: 8 trainings, each named by the next, come before this one"),
        ({"start": {"from": "first.yaml"}, "backbone__width": 64}, r"start\.from: its encoder does not fit: different"),
        ({"start": {"from": "first.yaml"}, "backbone__weights": "timm"}, r"start: an encoder starts from one place"),
        ({"start": {"from": "pixels.yaml"}}, r"start\.from: .*/pixels\.yaml trains nothing"),
        (
            {"method": "feature_distillation", "teacher": {"from": "untrained.yaml"}},
            r"teacher\.from: .*/untrained\.yaml is of untrained, which teaches only at given weights: set",
        ),
        (
            {"method": "feature_distillation", "teacher": {"from": "lost.yaml"}},
            r"backbone\.weights: there is no file .*/lost\.pth",
        ),
        (
            {"method": "clusterfit", "teacher": {"from": "given.yaml"}},
            r"teacher\.from: clusterfit learns from the targets of a training, and first trains nothing; salt",
        ),
        ({"start": {"from": "short.yaml"}}, r"start\.from: .*/short\.yaml:\d+:\d+: optim\.warmup"),
        (
            {"start": {"from": "lane.yaml"}, "resources__workers": 2},
            r"lane\.yaml with the resources of this run: more",
        ),
        (
            {"start": {"from": "first.yaml", "weights": "all"}, "method": "simmim"},
            r"start\.weights: first is of mae, whose other weights are none of simmim; leave weights out",
        ),
        (
            {"start": {"from": "first.yaml", "weights": "all"}, "hyper": {"decoder_width": 64}},
            r"start\.weights: its weights do not fit: different: decoder\.",
        ),
        ({"start": {}}, r"start\.from: required but missing"),
    ],
)
def test_what_cannot_come_before_a_run_is_refused_where_it_is_named(
    home: Home, changes: dict[str, Any], message: str
) -> None:
    first(home)
    first(home, "circle.yaml", start={"from": "circle.yaml"})
    first(home, "lane.yaml", stream={"lanes": 1})
    first(home, "pixels.yaml", method="pixels")
    first(home, "untrained.yaml", method="untrained")
    weights = {"lost": home.folder / "lost.pth", "given": home.folder / "given.safetensors"}
    save(build(Backbone(**METHOD["backbone"])).trunk.state_dict(), weights["given"])
    for name, path in weights.items():
        first(home, f"{name}.yaml", method="untrained", backbone=METHOD["backbone"] | {"weights": str(path)})
    first(home, "short.yaml", optim={"warmup": {"steps": 9}})
    with pytest.raises(SpecError, match=message):
        home.run(**changes)


@pytest.mark.parametrize(
    ("sizes", "codes"), [({"patch_size": 16}, "2x2 of 16"), ({"image_size": 16, "patch_size": 4}, "4x4 of 4")]
)
def test_a_tokenizer_needs_a_code_for_each_token(home: Home, sizes: dict[str, int], codes: str) -> None:
    name = first(home, method="vqvae", hyper=CODES, backbone=METHOD["backbone"] | sizes)
    with pytest.raises(SpecError, match=f"the tokenizer's codes are {codes} pixels, the encoder's tokens 4x4 of 8 pi"):
        home.run(method="beit", teacher={"from": name})


def test_a_teacher_sees_the_samples_of_its_learner_as_it_was_trained_to() -> None:
    """With other patches, and normalized by other statistics."""

    class Echo(torch.nn.Module):
        encoders, patch = ("image",), 4

        def encoder(self, _: str) -> "Echo":
            return self

        grid = 2, 2

        def codes(self, view: Any) -> torch.Tensor:
            return view.value

        decoded = staticmethod(lambda codes: codes)

    images = torch.rand(2, 3, 8, 8)
    mean, std, other_mean, other_std = 0.5, 0.25, 0.1, 0.5
    infos = [TrainInfo(8, 2, 4, 2, mean=(m,) * 3, std=(s,) * 3) for m, s in ((mean, std), (other_mean, other_std))]
    assert objective.rescale(infos[0], infos[0]) is None
    change = objective.rescale(*infos)
    seen = Frozen(Echo(), 2, change).codes(patchify((images - mean) / std, 2))
    torch.testing.assert_close(seen, patchify((images - other_mean) / other_std, 4).value)
    painted = Frozen(Echo(), 4, change).decoded(seen)
    torch.testing.assert_close(painted, patchify((images - mean) / std, 4).value)
