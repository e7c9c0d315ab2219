"""Names that become those of files and folders, and parts of ids and metrics."""

import re
import unicodedata

MAX_BYTES = 100  # a file system takes 255, and suffixes are added
STAGES = (
    "pretrain",
    "embed",
    "views",
    "pictures",
    "visualize",
    "paint",
)  # kinds of stages; others are names of evaluators
WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,59}")  # in an id, a metric or a key of a spec


def name_problem(name: str, max_bytes: int = MAX_BYTES) -> str:
    """Return what a name should be but is not, to be that of a file; "" for a valid name."""
    if name in (".", "..") or "/" in name or "\\" in name:
        return "a file name, not a path: without / and \\, and neither . nor .."
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "a file name without control characters, line ends and lone surrogates"
    if len(name.encode()) > max_bytes:
        return f"a file name of at most {max_bytes} bytes, not {len(name.encode())}"
    return ""
