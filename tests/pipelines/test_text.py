"""Captions beside images: indexed apart, tokenized on the host, delivered with the images that they are of."""

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from selfsup import modality, tokenizing
from selfsup.errors import SpecError
from selfsup.modality import DecodeError
from selfsup.pipelines.data import manifest, shards
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.modalities.text import Caption, TextInput, captions
from selfsup.views import Center, Views

TEXT = modality.load("text")
TINY = TextInput(length=8, width=32, depth=1, heads=2)
SIDE = 8
README = (Path(__file__).parents[2] / "README.md").read_text()


def picture(number: int) -> bytes:
    return jpeg(np.full((SIDE, SIDE, 3), 10 * number, np.uint8), quality=95)


def packed(folder: Path, texts: list[dict[str, bytes]]) -> Manifest:
    """Return a data set of gray images, ten times as bright as their number, beside members of text."""
    samples = (AnnotatedSample(f"{n:03d}", {"jpg": picture(n), **text}, n % 2) for n, text in enumerate(texts))
    return pack_annotated(samples, folder, classes=["even", "odd"])


def described(number: int) -> dict[str, bytes]:
    return {"json": json.dumps({"caption": f"n{number}", "alt": [f"a{number}", f"b{number}"]}).encode()}


def rows(data: Manifest, view: Caption, steps: int = 8) -> list[dict[str, NDArray]]:
    order = SampleOrder(samples=data.num_samples, batch=4, seed=0, lanes=4, chunk=1, mix=2)
    stream = SampleStream(data, order, Views((Center(size=SIDE), view)), steps)
    return list(stream.rows(range(4), 0, steps, threads=2, memory=2**24))


def read(tokens: NDArray) -> str:
    """(L, 1), bytes -> the text"""
    return bytes(number for number in tokens[:, 0].tolist() if 0 <= number < 256).decode()


def test_a_caption_comes_with_its_own_image(tmp_path: Path) -> None:
    data = packed(tmp_path, [described(number) for number in range(16)])
    for row in rows(data, Caption(knobs=TINY)):
        numbers = [round(image.mean() / 10) for image in row["view0"]]
        assert numbers == row["index"].tolist()
        assert [read(tokens) for tokens in row["view1"]] == [f"n{number}" for number in numbers]
        assert row["box0"].shape == (4, 7)
        assert row["box1"].shape == (4, 4)


def test_of_several_captions_training_takes_each_and_evaluation_the_first(tmp_path: Path) -> None:
    data, knobs = packed(tmp_path, [described(number) for number in range(4)]), TINY.model_copy(update={"key": "alt"})
    seen = {read(tokens) for row in rows(data, Caption(knobs=knobs), 16) for tokens in row["view1"]}
    assert seen == {f"{kind}{number}" for kind in "ab" for number in range(4)}
    first = {read(tokens) for row in rows(data, TEXT.whole((), 1.0, knobs), 16) for tokens in row["view1"]}
    assert first == {f"a{number}" for number in range(4)}


def test_a_sample_without_a_caption_is_replaced_and_counted(tmp_path: Path) -> None:
    texts = [described(number) if number % 4 else {"json": b'{"caption": " "}'} for number in range(8)]
    seen = rows(packed(tmp_path, texts), Caption(knobs=TINY))
    for row in seen:
        assert [read(tokens) for tokens in row["view1"]] == [f"n{round(image.mean() / 10)}" for image in row["view0"]]
    assert {name for row in seen for name in row["bad"]} == {"000", "004"}


def test_text_is_indexed_apart_and_the_digest_stays(tmp_path: Path) -> None:
    """A .txt comes before a .json; without either there is no such index, and the digest is that of the rest."""
    texts = [{"txt": b"first", **described(number)} for number in range(3)]
    data = packed(tmp_path / "all", texts)
    assert list(data.fields) == ["image"]
    assert list(data.beside) == ["text"]
    assert [sample.data for sample in SampleReader(data, "text").read(np.arange(3))] == [b"first"] * 3
    assert manifest.load(str(tmp_path / "all")).digest == data.digest == manifest.digest(data)
    head = tmp_path / "all" / "manifest.json"
    content = json.loads(head.read_text())
    del content["beside"]  # as earlier versions wrote it
    head.write_text(json.dumps(content))
    assert manifest.load(str(tmp_path / "all")).digest == data.digest
    remarks: list[str] = []
    partial = packed(tmp_path / "some", [{"txt": b"a"}, {}])
    shards.index(str(tmp_path / "some"), remark=remarks.append)
    assert partial.lacking == {"text": 1}
    assert not any("text" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b" a dog \n", ["a dog"]),
        (b'{"caption": "a dog"}', ["a dog"]),
        (b'{"caption": ["a dog", "a cat"]}', ["a dog", "a cat"]),
        (b'["a dog"]', ["a dog"]),
        ("ein Bär".encode(), ["ein Bär"]),
        (b"[sic] a dog", ["[sic] a dog"]),
        (b"{curly} braces", ["{curly} braces"]),
        (b' {\n "caption": "a dog"}', ["a dog"]),
    ],
)
def test_captions_in_a_member(data: bytes, expected: list[str]) -> None:
    assert captions(data, "caption") == expected


@pytest.mark.parametrize(
    "data", [b"", b"  ", b"{}", b'{"caption": null}', b'{"caption": []}', b'{"capt', b"[]", b"\xff\xfe\xfa"]
)
def test_what_is_no_caption(data: bytes) -> None:
    with pytest.raises(DecodeError):
        captions(data, "caption")


def test_tokens_are_between_begin_and_end_and_padding_is_not_valid() -> None:
    [raw] = TEXT.load(b"ab", np.array([[0.0, 1.0, 0.0, 1.0]]), [Caption(knobs=TINY)], TEXT.Stats())
    assert raw[:, 0].tolist() == [256, 97, 98, 257, -1, -1, -1, -1]
    [long] = TEXT.load(b"abcdefghij", np.array([[0.0, 1.0, 0.0, 1.0]]), [Caption(knobs=TINY)], TEXT.Stats())
    assert long[:, 0].tolist() == [256, *b"abcdef", 257]
    tokens = TEXT.seen(torch.from_numpy(np.stack([raw, long])).movedim(-1, 1), None)
    assert tokens.value.shape == (2, 8, 1)
    assert tokens.valid.sum(1).tolist() == [4, 8]
    assert tokens.value[0, 4:].eq(0).all()


def test_a_tokenizer_of_own_captions_as_the_readme_trains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number}.txt").write_text(f"A red box left of {'a blue box' * number}")
    monkeypatch.chdir(tmp_path)
    [shown] = re.findall(r"((?:^    .*\n)+)", README[README.index("A BPE of your own captions") :], re.MULTILINE)[:1]
    exec(textwrap.dedent(shown), {})
    loaded = tokenizing.load(str(tmp_path / "captions.json"))
    own = Tokenizer.from_file(str(tmp_path / "captions.json"))
    size = own.get_vocab_size()
    assert (loaded.size, loaded.begin, loaded.end) == (size + 2, size, size + 1)
    ids = own.encode("a red box").ids
    assert loaded.tokens("A red box", 20) == [size, *ids, size + 1]
    assert len(ids) < len("a red box")
    assert own.decode(ids) == "a red box"


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(SpecError, match="no tokenizer that `tokenizers` saved"):
        tokenizing.load(str(tmp_path / "mine.json"))
    with pytest.raises(SpecError, match=r"there is no file .*; expected bytes, clip, or a file"):
        tokenizing.load(str(tmp_path / "gone.json"))
