"""The paper's numbers in a sweep file, which a report shows beside ours.

    expected:
      source: MAE, Table 1
      protocol: augmented
      mask_ratio=0.5: {eval/linear/top1: 71.9}

Arms go by their names, metrics by their names in MLflow. Numbers of a protocol other than `frozen`, which is ours, are
named, but not shown beside ours.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from selfsup.explain import as_yaml, did_you_mean
from selfsup.layers import plain, written
from selfsup.published import PROTOCOLS
from selfsup.source import Entry, Node, Problem

Expected = Mapping[str, Mapping[str, float]]


def expected(root: Node, arms: Sequence[str], metrics: Sequence[str], problems: list[Problem]) -> tuple[Expected, str]:
    """-> arm -> metric -> number, and their source. A mistake is added to `problems`."""
    section = written(root, "expected")
    wrong = list(_wrong(section.node, arms, metrics)) if section else []
    problems += wrong
    if section is None or wrong:
        return {}, ""
    numbers = plain(section.node)
    source, protocol = numbers.pop("source", ""), numbers.pop("protocol", "frozen")
    if protocol == "frozen":
        return numbers, source
    return {}, f"{source}, not set beside ours: its probes were trained {PROTOCOLS[protocol]}".removeprefix(", ")


def _wrong(section: Node, arms: Sequence[str], metrics: Sequence[str]) -> Iterator[Problem]:
    if not isinstance(section.value, dict):
        yield Problem(section.mark, ("expected",), "expected arms and their numbers: {default: {eval/knn/top1: 70}}")
        return
    for name, entry in section.value.items():
        where = ("expected", name)
        if name == "protocol":
            if entry.node.value not in PROTOCOLS:
                yield Problem(entry.node.mark, where, f"expected one of {', '.join(PROTOCOLS)}")
        elif name == "source":
            if not isinstance(entry.node.value, str):
                yield Problem(entry.node.mark, where, f"expected text, not {as_yaml(plain(entry.node))}")
        elif name not in arms:
            hint = did_you_mean(name, arms) or f"the arms are {'; '.join(arms)}"
            yield Problem(entry.key, where, "no arm of this study", hint)
        else:
            yield from _wrong_numbers(entry, where, metrics)


def _wrong_numbers(entry: Entry, where: tuple[str, str], metrics: Sequence[str]) -> Iterator[Problem]:
    if not isinstance(entry.node.value, dict):
        yield Problem(entry.node.mark, where, "expected metrics and numbers: {eval/knn/top1: 70}")
        return
    for metric, number in entry.node.value.items():
        if metric not in metrics:
            hint = did_you_mean(metric, metrics) or f"there are {', '.join(metrics)}"
            yield Problem(number.key, (*where, metric), "not measured here", hint)
        elif not _is_number(number.node.value):
            yield Problem(number.node.mark, (*where, metric), f"expected number, not {as_yaml(plain(number.node))}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
