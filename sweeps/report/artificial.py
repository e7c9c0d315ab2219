"""Bundled data that are no photographs, clips, recordings or scans, as a report says in plain words."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from selfsup.sweeps.report.wording import listed

KINDS = {
    "rendered": (
        "scenes",
        "miscaptioned",
        "tagged",
        "mixed",
        "motions",
        "shuffled",
        "still",
        "impacts",
        "silent",
        "mismatched",
    ),
    "synthesised": ("sounds",),
    "sampled from solids": ("solids",),
}


def note(data: Mapping[str, Iterable[tuple[str, str]]]) -> str:
    """Write which data are made by a program; "" where none are. data: of each use, places and digests."""
    urls = {urlsplit(place) for datasets in data.values() for place, _ in datasets}
    names = {url.netloc for url in urls if url.scheme == "bundled"}
    own = {kind: [f"bundled://{name}" for name in sorted(names & {*made})] for kind, made in KINDS.items()}
    texts = [f"{kind} ({listed(sets)})" for kind, sets in own.items() if sets]
    return f"Data are {listed(texts)}: what wins here need not win on real data." if texts else ""
