"""The page is whole, escaped, and shows what the tables hold. Parsed by the standard library alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import pytest
from toy_sweep import KNN, arm, study, sweep

from selfsup.sweeps.registration import RegisteredPlan
from selfsup.sweeps.report.figures import drawings
from selfsup.sweeps.report.page import page
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.report.tables import ablation

VOID = {"meta", "img", "br"}
NUMBERS = {
    "0.75, 8": [60.0, 62.0, 61.0],
    "0.5, 8": [40.0, 42.0, 41.0],
    "0.9, 8": ["out of memory", 58.0, 59.0],
    "0.75, 4": ["non-finite: loss is nan"] * 3,
}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: list[str] = field(default_factory=list)
    inside: "list[Element]" = field(default_factory=list)

    def every(self, tag: str) -> "Iterator[Element]":
        for element in self.inside:
            if element.tag == tag:
                yield element
            yield from element.every(tag)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


class Strict(HTMLParser):
    """Every tag that opens is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        element = Element(tag, dict(attrs))
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text.append(data)


def toy(numbers: dict[str, list[float | str]] = NUMBERS, **changes: object) -> Ablation:
    expected = {"default": {KNN: 73.5}, "mask_ratio=0.5": {KNN: 71.9}}
    one, results = study(numbers, expected=expected, source="MAE, Table 1")
    pixels, more = arm("raw pixels", [30.0], {}, "pixels")
    whole = replace(sweep(one, baselines=[pixels]), **changes)  # type: ignore[arg-type]
    return ablation(whole, results + more, place="http://127.0.0.1:5000/#/experiments/7")


@pytest.fixture(scope="module")
def text() -> str:
    whole = toy(question="Is a < b & <script>alert('c')</script>?")
    return page(whole, drawings(whole), {"reconstructions": {"default": b"PNG"}})


def rows(text: str) -> list[Element]:
    return list(Strict(text).root.every("tr"))


def test_the_page_needs_nothing_but_itself(text: str) -> None:
    root = Strict(text).root
    elements = [element for tag in ("img", "use", "link", "script", "image") for element in root.every(tag)]
    targets = [element.attributes.get(name) for element in elements for name in ("href", "src", "xlink:href")]
    assert {target[:5] if target[0] != "#" else "#" for target in targets if target} == {"#", "data:"}
    (script,) = root.every("script")
    assert script.attributes == {}  # our own, in the page
    assert "@import" not in text
    assert "url(http" not in text


def test_links_lead_to_elements_that_are_there_once(text: str) -> None:
    root = Strict(text).root
    tags = {"svg", "g", "path", "clippath", "tr", "text", "use", "rect", "lineargradient"}
    ids = [element.attributes["id"] for tag in tags for element in root.every(tag) if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    links = [
        e.attributes.get("href") or e.attributes.get("xlink:href") for tag in ("a", "use") for e in root.every(tag)
    ]
    inside = {link[1:] for link in links if link and link.startswith("#")}
    assert inside
    assert inside <= set(ids)


def test_what_a_user_wrote_is_escaped(text: str) -> None:
    assert "Is a &lt; b &amp; &lt;script&gt;" in text
    assert text.count("<script") == 1


def test_a_row_shows_its_cell(text: str) -> None:
    found = {row.words().split()[0]: row for row in rows(text)[1:5]}
    assert found["0.75"].attributes["class"] == "default"
    assert found["0.75"].inside[1].attributes["class"] == "best"
    cell = found["0.5"].inside[1]
    assert cell.words().startswith("41.0")
    assert "−20.0 ±" in cell.words()
    assert "p < 0.001" in cell.words()
    assert cell.attributes["title"] == "seed 0: 40, seed 1: 42, seed 2: 41; deviation 1"
    assert found["0.5"].inside[2].words() == "71.9"  # the paper's number
    assert found["0.5"].inside[3].words() == "1.0 min"  # 60, 61 and 62 s
    assert "n = 2 of 3" in found["0.9"].words()


def test_failures_are_visible_with_their_reasons(text: str) -> None:
    failed = [row.words() for row in rows(text) if row.attributes.get("class") == "failed"]
    assert "seed 0: out of memory" in failed
    assert "seeds 0, 1 and 2: non-finite: loss is nan" in failed


def test_every_number_can_be_traced_to_its_run_and_made_again(text: str) -> None:
    found = next(row for row in rows(text) if row.attributes.get("id") == "mae-mask_ratio=0.5-1")
    assert "run-of-mae-mask_ratio=0.5-1" in found.words()
    assert "42.00" in found.words()
    assert "selfsup sweep sweeps/toy.yaml --only mae-mask_ratio=0.5-1" in found.words()
    [link] = [link.attributes["href"] for link in found.every("a")]
    assert (
        link == "http://127.0.0.1:5000/#/experiments/7/runs/run-of-mae-mask_ratio=0.5-1?workflowType=machine_learning"
    )


def test_a_row_links_to_each_of_its_runs_where_they_can_be_opened(text: str) -> None:
    def links(text: str) -> list[tuple[str | None, str | None, str]]:
        row = next(row for row in rows(text) if row.words().startswith("0.5 seeds 0 1 2"))
        return [(a.attributes["href"], a.attributes.get("title"), a.words()) for a in row.every("a")]

    ids = [f"mae-mask_ratio=0.5-{seed}" for seed in range(3)]
    assert links(text) == [(f"#{ids[0]}", None, "0.5"), *((f"#{key}", key, key[-1]) for key in ids)]
    served = page(replace(toy(), served=True), [], {})
    place = "http://127.0.0.1:5000/#/experiments/7/runs/run-of-"
    assert links(served)[1:] == [(f"{place}{key}?workflowType=machine_learning", key, key[-1]) for key in ids]


def test_data_are_named_by_their_place_and_digest(text: str) -> None:
    assert "train s3://bucket/train d1 Code" in Strict(text).root.words()


def test_runs_that_were_made_with_different_things_each_tell_with_what() -> None:
    whole = toy()
    first, *others = whole.results
    other = replace(first, tags=dict(first.tags) | {"selfsup.hardware": "8 x A100", "selfsup.commit": "other"})
    mixed = page(replace(whole, results=(other, *others)), [], {})
    found = {row.attributes["id"]: row.words() for row in rows(mixed) if "id" in row.attributes}
    assert "code other" in found[first.id]
    assert "code c0ffee" in found[others[0].id]
    assert "train d1" not in found[first.id]  # the same for all, and told above
    assert "A100" not in found[first.id]  # of the others it is not known


def test_the_verdict_and_the_proof_that_one_thing_changed(text: str) -> None:
    words = Strict(text).root.words()
    assert "0.75 > 0.5 by 20.0 ±" in words
    assert "3 arms were compared with the default" in words
    assert "mae: decoder_depth=4: seeds 0, 1 and 2: failed (non-finite: loss is nan)" in words


def test_two_crossed_factors_stand_down_and_across() -> None:
    numbers = {"0.75, 8": [70.0, 71.0], "0.5, 8": [60.0, 61.0], "0.75, 4": [50.0], "0.5, 4": ["nan", "nan"]}
    one, results = study(numbers, grid=True)
    grid = page(ablation(sweep(one), results), [], {})
    table = next(Strict(grid).root.every("table"))
    assert [row.words().split()[0] for row in table.every("tr")] == ["decoder", "mask", "0.5", "0.75"]
    heads = [cell.words() for cell in next(iter(table.every("tr"))).inside]
    assert heads == ["", "decoder depth"]
    _, columns, *body = table.every("tr")
    assert [cell.words() for cell in columns.inside] == ["mask ratio", "4", "8"]
    assert {link.attributes["href"] for link in body[1].every("a")} == {"#mae-default-0", "#mae-decoder_depth=4-0"}
    means = [[cell.words().split()[0] for cell in row.inside] for row in body]
    assert means == [["0.5", "–", "60.5"], ["0.75", "50.00", "70.5"]]
    assert [cell.attributes["class"] for cell in body[1].inside[1:]] == ["", "default best"]
    assert "mask ratio 0.5, 4: seeds 0 and 1: nan" not in grid
    assert "0.5, 4: seeds 0 and 1: nan" in grid


def test_a_change_of_the_plan_is_told() -> None:
    whole = toy()
    before = RegisteredPlan(
        "0ld", 0, {"mae: default": {0: "mae-default-0", 7: "x"}, "mae: lost": {0: "y"}}, (KNN, "eval/a/b")
    )
    changed = ablation(whole.sweep, whole.results, [before, before._replace(digest="5eed", time=60_000)])
    words = Strict(page(changed, [], {})).root.words()
    assert "registered in MLflow on 1970-01-01 00:01 UTC" in words
    assert "since the plan 0ld of 1970-01-01 00:00 UTC: dropped arm mae: lost; added arms" in words
    assert "dropped metric a b" in words


def test_the_box_tells_how_many_versions_of_the_code_a_table_mixes(text: str) -> None:
    whole = toy()
    tags = [{"selfsup.modules": f"train:{'ab'[number % 2]}"} for number in range(len(whole.results))]
    mixed = [replace(run, tags=dict(run.tags) | more) for run, more in zip(whole.results, tags, strict=True)]
    assert "Code 2 versions of train Plan" in Strict(page(ablation(whole.sweep, mixed), [], {})).root.words()
    assert "versions of" not in Strict(text).root.words()


def test_the_same_bytes_each_time(text: str) -> None:
    whole = toy(question="Is a < b & <script>alert('c')</script>?")
    assert page(whole, drawings(whole), {"reconstructions": {"default": b"PNG"}}) == text


def test_a_sweep_that_has_not_begun_has_a_page() -> None:
    whole = toy()
    empty = ablation(whole.sweep, [])
    words = Strict(page(empty, drawings(empty), {})).root.words()
    assert "0 of 13 done, 13 missing" in words
    assert "not known yet" in words


def test_seeds_that_would_tell_a_difference_are_shown_with_their_own_uncertainty(text: str) -> None:
    needed = toy().needed[KNN]
    words = Strict(text).root.words()
    assert (
        f"Seeds to tell a difference of 0.5 {needed.n} an arm for knn top-1 (from {needed.low} to {needed.high}, since"
        in words
    )
