"""Objectives of several towers as evaluations score them: prompts and pairs by hand, by the path that runs take."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from outsiders import planned, spec_beside
from small import shake
from torch import Tensor
from videos import coded

from selfsup import tensors
from selfsup.errors import SpecError
from selfsup.modality import load as load_modality
from selfsup.parts.numbered import numbered
from selfsup.parts.patch import patchify
from selfsup.parts.tokens import Tokens, places, samples
from selfsup.pipelines import cost
from selfsup.pipelines.data import sounds
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.modalities.audio import AudioInput, Excerpt
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.modalities.video import Clip
from selfsup.pipelines.objective import METHOD, build
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages import encoding
from selfsup.pipelines.stages.evaluate import Load, embed, read_features
from selfsup.pipelines.stages.view_table import chosen
from selfsup.views import Center

NUMBER, LENGTH = 8, 24
AUDIO, VIDEO = load_modality("audio"), load_modality("video")
CAPTIONS = [f"number {number % 7}" for number in range(NUMBER)]
TEXT = {"text": {"length": LENGTH, "width": 32, "depth": 1, "heads": 2}}
SOUND = {"audio": {"rate": 8000, "frames": 32, "bins": 16}}
MAVIL = {"fusion_depth": 1, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
PROMPTS = {"templates": ["a {}", "one more {}."], "names": {"blue": "navy box"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Gray images, each with a caption and a sound of its own, of two classes."""
    draw = np.random.default_rng(0)
    packed = (
        AnnotatedSample(
            str(number),
            {
                "jpg": jpeg(np.full((32, 32, 3), 20 * number, np.uint8), quality=95),
                "txt": CAPTIONS[number].encode(),
                "wav": sounds.wav(draw.uniform(-0.5, 0.5, 4000)),
            },
            number % 2,
        )
        for number in range(NUMBER)
    )
    return pack_annotated(packed, tmp_path_factory.mktemp("pairs"), classes=["blue", "red_ball"])


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let features be made here, as a slot of one worker makes them."""
    place = SimpleNamespace(kind=SimpleNamespace(resources={"CPU": 1}), share=lambda work: [work(0, 1)])
    monkeypatch.setattr(encoding, "slot_for", lambda _: place)


def trained(run: PlannedRun) -> Any:
    """Return an objective whose weights are where a finished training leaves them."""
    assert run.pretrain
    method = build(run.run, run.size, torch.device("cpu"), teacher=run.taught)
    shake(method)
    run.pretrain.folder.mkdir(parents=True, exist_ok=True)
    tensors.save(method.state_dict(), run.pretrain.folder / METHOD)
    return method.eval()


def embedded(run: PlannedRun, name: str) -> Tensor:
    """-> (M, ...): the features that an evaluation is given of validation samples"""
    stage = run.embeds[name]
    stage.folder.mkdir(parents=True)
    embed(run, stage)
    return torch.tensor(read_features(stage.folder)[1])


def seen(run: PlannedRun, data: Manifest) -> Tokens:
    """Return the images of a data set as an encoder sees them."""
    raw = torch.tensor(Load(data, data, Center(size=32))({"id": np.arange(NUMBER)})["sample"])
    mean, std = (torch.tensor(moment).view(3, 1, 1) for moment in (run.stats.mean, run.stats.std))
    return patchify((raw.permute(0, 3, 1, 2) / 255 - mean) / std, 8)


def read(method: Any, words: str) -> Tensor:
    """-> (D,): the unit vector of a text"""
    ids = [256, *words.encode(), 257]
    tokens = numbered(torch.tensor([[ids + [-1] * (LENGTH - len(ids))]]))
    return F.normalize(method.projections["text"](method.encoders["text"].pooled(tokens)), dim=1)[0]


def test_classes_are_means_of_prompts_and_captions_are_paired_with_their_images(data: Manifest, tmp_path: Path) -> None:
    evals = {"zero_shot": PROMPTS, "caption_retrieval": {"samples": 6}}
    sections: dict[str, Any] = {"method": "clip", "input": TEXT, "hyper": {"dim": 16}, "evals": evals}
    run = planned(spec_beside(tmp_path / "in" / "none.py", "", data.root, **sections))
    method = trained(run)
    cosines, pairs = (embedded(run, name) for name in evals)
    drawn = chosen(NUMBER, 6).tolist()
    with torch.inference_mode():
        image = F.normalize(method.projections["image"](method.encoders["image"].pooled(seen(run, data))))
        classes = [[read(method, f"a {name}"), read(method, f"one more {name}.")] for name in ("navy box", "red ball")]
        truth = F.normalize(torch.stack([sum(own) / 2 for own in classes]), dim=1)
        text = torch.stack([read(method, CAPTIONS[number]) for number in drawn])
    torch.testing.assert_close(cosines, image @ truth.T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pairs.view(6, 2, 16), torch.stack([image[drawn], text], 1), rtol=1e-4, atol=1e-5)


def test_every_sample_passes_a_head_with_every_caption(data: Manifest, tmp_path: Path) -> None:
    """Row by row: which caption is the own, the first of equal ones; then the head's of each, without padding."""
    evals = {"caption_retrieval": {"by": "head"}}
    sections: dict[str, Any] = {"method": "uniter", "input": {"text": {"length": LENGTH}}, "evals": evals}
    run = planned(spec_beside(tmp_path / "in" / "none.py", "", data.root, **sections))
    method = trained(run)
    rows = embedded(run, "caption_retrieval")
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    view = seen(run, data)
    with torch.inference_mode():
        values = [numbered(torch.tensor([[[256, *words.encode(), 257]]])).value for words in CAPTIONS]
        texts = [Tokens(value, places((value.shape[1],))[None], (LENGTH,)) for value in values]
        for number, row in enumerate(rows):
            image = samples(view, slice(number, number + 1))
            expected = torch.cat([method.matched(image, text) for text in texts])
            torch.testing.assert_close(row[1:], expected, rtol=1e-4, atol=1e-4)


def test_an_objective_that_went_on_from_an_earlier_stage_is_scored_too(data: Manifest, tmp_path: Path) -> None:
    """MAViL's second stage, whose decoders are as wide as its teacher's features."""
    pytest.importorskip("soundfile", reason="pip install 'selfsup[audio]'")
    evals = {"cross_retrieval": {"between": ["image", "audio"]}}
    sections: dict[str, Any] = {"method": "mavil", "input": SOUND, "evals": evals}
    first = spec_beside(tmp_path / "first" / "none.py", "", data.root, **sections, hyper=MAVIL)
    teacher = {"teacher": {"from": str(first)}, "hyper": MAVIL | {"target": "features"}}
    run = planned(spec_beside(tmp_path / "second" / "none.py", "", data.root, **sections, **teacher))
    trained(run.before["teacher"])
    method, pairs = trained(run), embedded(run, "cross_retrieval").view(NUMBER, 2, -1)
    with torch.inference_mode():
        features = method.encoders["image"](seen(run, data))[:, 1:].mean(1)
    torch.testing.assert_close(pairs[:, 0], F.normalize(features), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pairs.norm(dim=2), torch.ones(NUMBER, 2))


def test_the_encoder_of_sounds_is_read_by_itself(data: Manifest, tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="pip install 'selfsup[audio]'")
    evals = {"heard": {"use": "knn", "k": 3, "tower": "audio"}, "knn": {"k": 3}}
    hyper = {"bound": ["audio"], "dim": 16}
    sections: dict[str, Any] = {"method": "imagebind", "input": SOUND, "hyper": hyper, "evals": evals}
    run = planned(spec_beside(tmp_path / "in" / "none.py", "", data.root, **sections))
    method, made = trained(run), embedded(run, "heard")
    assert len({stage.key for stage in run.embeds.values()}) == 2
    stats, view = run.stats_beside["audio"], Excerpt(knobs=AudioInput(**SOUND["audio"]), is_random=False)
    raw = torch.tensor(Load(data, data, view)({"id": np.arange(2 * NUMBER)})["sample"])
    with torch.inference_mode():
        values = ((raw - stats.mean) / (2 * stats.std)).movedim(-1, 1)
        expected = method.encoders["audio"].pooled(patchify(values, 8))
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


def test_what_lies_beside_samples_is_read_in_as_many_clips(tmp_path: Path) -> None:
    """Two clips, of three crops each, and sounds of 335 ms from 0 and 1665 ms on: features are means of either's."""
    pytest.importorskip("av", reason="pip install 'selfsup[video]'")
    pytest.importorskip("soundfile", reason="pip install 'selfsup[audio]'")
    draw = np.random.default_rng(0)
    films, waves = draw.integers(0, 255, (NUMBER, 20, 32, 48, 3), np.uint8), draw.uniform(-0.5, 0.5, (NUMBER, 16000))
    members = (
        {"mkv": coded(list(film), kind="matroska", codec="ffv1", pixels="bgr0"), "wav": sounds.wav(wave)}
        for film, wave in zip(films, waves, strict=True)
    )
    data = pack_annotated((AnnotatedSample(str(n), own, n % 2) for n, own in enumerate(members)), tmp_path / "data")
    evals = {"cross_retrieval": {"between": ["video", "audio"]}, "heard": {"use": "knn", "k": 3, "tower": "audio"}}
    sections: dict[str, Any] = {"input": {"video": {"frames": 4, "rate": 10.0}} | SOUND, "evals": evals}
    sections |= {"method": "imagebind", "hyper": {"bound": ["audio"], "dim": 16}, "embed": {"clips": 2, "crops": 3}}
    run = planned(spec_beside(tmp_path / "in" / "none.py", "", data.root, **sections))
    method, view = trained(run), Clip(knobs=run.run.input.video, crop=Center(size=32, share=0.875, rounded=True))
    parts = Load(data, data, VIDEO.tested(view, run.run.embed))({"id": np.arange(NUMBER)})["sample"]
    clips = torch.tensor(parts.reshape(-1, 4, 32, 32, 3)).movedim(-1, 1) / 255
    mean, std = (torch.tensor(moment).view(3, 1, 1, 1) for moment in (run.stats.mean, run.stats.std))
    stats, excerpt = run.stats_beside["audio"], Excerpt(knobs=AudioInput(**SOUND["audio"]), is_random=False)
    ends = [sounds.wav(wave[8 * start :]) for wave in waves for start in (0, 1665)]
    heard = np.stack([AUDIO.load(end, np.zeros((1, 5)), [excerpt], stats)[0] for end in ends])
    with torch.inference_mode():
        seen = patchify((clips - mean) / std, (2, 8, 8))
        sound = patchify(((torch.tensor(heard) - stats.mean) / (2 * stats.std)).movedim(-1, 1), 8)
        own = method.joint("video", seen).view(NUMBER, 6, 16).mean(1)
        other = method.joint("audio", sound).view(NUMBER, 2, 16).mean(1)
        pooled = method.encoders["audio"].pooled(sound).view(NUMBER, 2, -1).mean(1)
    pairs = embedded(run, "cross_retrieval").view(NUMBER, 2, 16)
    torch.testing.assert_close(pairs, torch.stack([own, other], dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embedded(run, "heard"), torch.cat([pooled, pooled]), rtol=1e-4, atol=1e-5)


def test_clips_of_sounds_beside_images_have_an_effect(data: Manifest, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"method": "mavil", "input": SOUND, "hyper": MAVIL, "embed": {"clips": 2, "crops": 3}}
    run = planned(spec_beside(tmp_path / "in" / "none.py", "", data.root, **sections))
    assert [line for line in cost.cautions(run.run, run.info) if "effect" in line] == [
        "embed.crops: without effect on image"
    ]


@pytest.mark.parametrize(
    ("knn", "message"),
    [
        ({"tower": "audio"}, "knn reads the encoder of audio, and clip has none beside that of image; leave it out"),
        ({"tower": "text", "blocks": 2}, "of text it reads one vector of each sample as it is"),
    ],
)
def test_a_tower_that_cannot_be_read_is_refused(
    data: Manifest, tmp_path: Path, knn: dict[str, Any], message: str
) -> None:
    sections: dict[str, Any] = {"method": "clip", "input": TEXT, "evals": {"knn": {"k": 3} | knn}}
    with pytest.raises(SpecError, match=message):
        planned(spec_beside(tmp_path / "in" / "none.py", "", data.root, **sections))


def test_an_objective_without_such_a_head_is_refused(data: Manifest, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"input": TEXT, "evals": {"caption_retrieval": {"by": "head"}}}
    with pytest.raises(SpecError, match="clip has no head that does; leave it out, or choose uniter"):
        planned(spec_beside(tmp_path / "in" / "none.py", "", data.root, method="clip", **sections))
