"""The project as a wheel without declared dependencies, which the image of the workers holds already.

Ray installs wheels of `py_modules` by pip with their dependencies: it would fetch torch, with CUDA, for every job.
"""

import base64
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from selfsup.errors import SelfsupError, SpecError
from selfsup.whole import whole

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


def job_wheel(wheel: Path | None, out: Path) -> Path:
    """Return a wheel to send, in the folder `out`: the given one, or one of what is installed here.

    Its build tag is a digest of its content: Ray would reuse an earlier wheel of the same name.
    """
    if wheel is None:
        wheel = build_wheel(CHECKOUT, out) if (CHECKOUT / "pyproject.toml").exists() else installed_wheel(out)
    return tag_with_digest(wheel, out)


def build_wheel(checkout: Path, out: Path) -> Path:
    """Build a wheel of a checkout."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:  # files of earlier builds in build/ would end up in the wheel
        config = Path(work, "build.cfg")
        config.write_text(f"[build]\nbuild_base = {work}\n[egg_info]\negg_base = {work}\n")
        built = subprocess.run(
            [sys.executable, "-c", BUILD, str(out.resolve())],
            cwd=checkout,
            env=os.environ | {"DIST_EXTRA_CONFIG": str(config)},
            capture_output=True,
            text=True,
            check=False,
        )
    if built.returncode:
        raise SelfsupError(f"{checkout}: the wheel cannot be built:\n{built.stderr}")
    path = out / built.stdout.split()[-1]
    _write(path, _content(path))
    return path


def installed_wheel(out: Path) -> Path:
    """Pack the files of the installed project as a wheel again. Raises SelfsupError where they are not recorded."""
    distribution = importlib.metadata.distribution("selfsup")
    files = [file for file in distribution.files or () if file.parts[0].startswith("selfsup")]
    if not any(file.name == "cli.py" for file in files):
        raise SelfsupError("selfsup submit: this installation is no wheel's; name a wheel of selfsup with --wheel")
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"selfsup-{distribution.version}-py3-none-any.whl"
    kept = [file for file in files if file.suffix != ".pyc" and file.name not in ("INSTALLER", "REQUESTED")]
    _write(path, {str(file): Path(str(file.locate())).read_bytes() for file in kept})
    return path


def tag_with_digest(wheel: Path, out: Path) -> Path:
    """Copy a wheel, without its dependencies, under a name with a digest of its content as build tag."""
    name, version, *tags = wheel.name.split("-")
    content = _content(wheel)
    digest = hashlib.blake2b(digest_size=8)
    for file, data in content.items():
        digest.update(f"{file} {len(data)} ".encode() + data)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "-".join([name, version, f"0{digest.hexdigest()}", *tags[-3:]])
    _write(path, content)
    return path


def _content(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel, by name. Raises SpecError where it is none of selfsup."""
    try:
        with zipfile.ZipFile(wheel) as file:
            content = {name: file.read(name) for name in file.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise SpecError(f"{wheel}: no wheel: {error}") from error
    if "selfsup/cli.py" not in content:
        raise SpecError(f"{wheel}: not a wheel of selfsup; packages of your own go with --py-modules")
    return content


def _write(path: Path, content: Mapping[str, bytes]) -> None:
    """Write a wheel of these files that declares no dependencies; the same files make the same bytes."""
    metadata = next(name for name in content if name.endswith(".dist-info/METADATA"))
    record = next(name for name in content if name.endswith(".dist-info/RECORD"))
    head, _, body = content[metadata].partition(b"\n\n")
    fields = [line for line in head.split(b"\n") if not line.startswith((b"Requires-Dist", b"Provides-Extra"))]
    files = dict(content) | {metadata: b"\n".join(fields) + b"\n\n" + body}
    lines = [_record_line(name, data) for name, data in files.items() if name != record]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    with whole(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            wheel.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # no date


def _record_line(name: str, data: bytes) -> str:
    checksum = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={checksum},{len(data)}"
