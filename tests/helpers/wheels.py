"""A wheel of selfsup that holds next to nothing, and declares a dependency as ordinary ones do."""

import zipfile
from pathlib import Path

METADATA = "Metadata-Version: 2.4\nName: selfsup\nVersion: 0\nRequires-Dist: torch>=2.13\nProvides-Extra: hf\n\nText.\n"


def tiny_wheel(folder: Path) -> Path:
    path = folder / "selfsup-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("selfsup/cli.py", "")
        wheel.writestr("selfsup-0.dist-info/METADATA", METADATA)
        wheel.writestr("selfsup-0.dist-info/RECORD", "")
    return path
