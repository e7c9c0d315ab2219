"""The wheel that jobs are sent: the project alone, by the name of its content, without declared dependencies."""

import base64
import hashlib
import shutil
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from wheels import tiny_wheel

from selfsup.errors import SelfsupError, SpecError
from selfsup.pipelines.cluster.wheel import build_wheel, installed_wheel, job_wheel, tag_with_digest

ROOT = Path(__file__).parents[2]
BUILT = (".venv", ".git", ".*_cache", "build", "dist", "tests", "*.egg-info", "__pycache__")


def test_a_wheel_holds_the_tree_alone_and_bears_the_name_of_its_content(tmp_path: Path) -> None:
    root = shutil.copytree(ROOT, tmp_path / "root", ignore=shutil.ignore_patterns(*BUILT))
    stale = root / "build" / "lib" / "selfsup" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    before = tag_with_digest(build_wheel(root, tmp_path / "out"), tmp_path)
    assert "selfsup/stale.py" not in zipfile.ZipFile(before).namelist()
    assert tag_with_digest(build_wheel(root, tmp_path / "out"), tmp_path) == before
    (root / "methods" / "simclr.py").write_text("")
    assert tag_with_digest(build_wheel(root, tmp_path / "out"), tmp_path).name != before.name


def test_an_ordinary_wheel_is_sent_without_its_dependencies(tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    with zipfile.ZipFile(job_wheel(tiny_wheel(tmp_path), out)) as wheel:
        metadata = wheel.read("selfsup-0.dist-info/METADATA")
        record = wheel.read("selfsup-0.dist-info/RECORD").decode().splitlines()
    assert metadata == b"Metadata-Version: 2.4\nName: selfsup\nVersion: 0\n\nText.\n"
    checksum = base64.urlsafe_b64encode(hashlib.sha256(metadata).digest()).rstrip(b"=").decode()
    assert f"selfsup-0.dist-info/METADATA,sha256={checksum},{len(metadata)}" in record
    assert len(record) == 3


def test_what_is_installed_from_a_wheel_is_packed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(tiny_wheel(tmp_path)) as wheel:
        wheel.extractall(site)
    info = site / "selfsup-0.dist-info"
    (info / "INSTALLER").write_text("pip")
    lines = ["selfsup/cli.py,,", "selfsup-0.dist-info/METADATA,,", "selfsup-0.dist-info/RECORD,,"]
    lines += ["selfsup-0.dist-info/INSTALLER,,", "selfsup/__pycache__/cli.cpython-311.pyc,,", "../../../bin/selfsup,,"]
    (info / "RECORD").write_text("\n".join(lines))
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: PathDistribution(info))
    (out := tmp_path / "out").mkdir()
    assert sorted(zipfile.ZipFile(installed_wheel(out)).namelist()) == [
        "selfsup-0.dist-info/METADATA",
        "selfsup-0.dist-info/RECORD",
        "selfsup/cli.py",
    ]
    (info / "RECORD").write_text("__editable___selfsup_finder.py,,")
    with pytest.raises(SelfsupError, match="--wheel"):
        installed_wheel(out)


def test_other_files_are_no_wheel_of_selfsup(tmp_path: Path) -> None:
    (other := tmp_path / "my_lab-1-py3-none-any.whl").touch()
    with pytest.raises(SpecError, match=r"my_lab-1.*no wheel"):
        job_wheel(other, tmp_path)
    with zipfile.ZipFile(other, "w") as wheel:
        wheel.writestr("my_lab/__init__.py", "")
    with pytest.raises(SpecError, match="--py-modules"):
        job_wheel(other, tmp_path)
