"""Submission of specs or a sweep as a Ray job, with the project as a wheel, so that all workers run the same code."""

import asyncio
import base64
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup import outside
from selfsup.errors import SelfsupError
from selfsup.layers import plain
from selfsup.mlflow_store import check_reachable, home, move_credentials
from selfsup.origin import CodePolicy
from selfsup.pipelines.cluster.auth import use_token
from selfsup.progress import say
from selfsup.scratch import scratch
from selfsup.shipped import locate
from selfsup.source import Source
from selfsup.whole import whole

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CHECKOUT = Path(__file__).resolve().parents[2]
FORWARDED = ("SELFSUP_HOME", "MLFLOW_TRACKING_URI")  # variables that must be valid on the cluster
FLAGS: dict[CodePolicy, tuple[str, ...]] = {"refuse": (), "accept": ("--accept-code",), "again": ("--again",)}
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


def submit(
    verb: str,
    specs: Sequence[Path],
    overrides: Sequence[str],
    *,
    address: str,
    wheel: Path | None,
    code: CodePolicy = "refuse",
) -> int:
    """Submit a job, stream its log, and return 0 if it succeeded, else 1. Ctrl-C stops the job, too.

    verb: the command of selfsup that the job calls. wheel: built from the checkout if None. Raises SelfsupError where
    the cluster does not accept the job.
    """
    home()  # raises for a SELFSUP_HOME that the job could not use either
    use_token()
    move_credentials()  # Ray shows a job's environment to everybody
    if "MLFLOW_TRACKING_PASSWORD" in os.environ:
        say("MLFLOW_TRACKING_USERNAME and _PASSWORD are not sent with the job: set them where the cluster's jobs run")
    from ray.job_submission import JobStatus

    with scratch(Path(tempfile.gettempdir())) as folder:
        names, overrides = copy_all(specs, overrides, folder / "specs")
        options = [word for override in overrides for word in ("-s", override)]
        entrypoint = ["python", "-m", "selfsup.cli", verb, *names, *options, *FLAGS[code]]
        package = tag_with_digest(wheel or build_wheel(CHECKOUT, folder), folder)
        client, job = _submit(address, entrypoint, working_dir=folder / "specs", package=package)
    try:
        asyncio.run(_stream(client, job))
    except KeyboardInterrupt:
        client.stop_job(job)
        raise
    return 0 if client.get_job_status(job) == JobStatus.SUCCEEDED else 1


def _submit(
    address: str, entrypoint: Sequence[str], *, working_dir: Path, package: Path
) -> "tuple[JobSubmissionClient, str]":
    """Return the client and the id of the job."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    from selfsup.pipelines.stages.runner import commit

    variables = {name: os.environ[name] for name in FORWARDED if name in os.environ} | {"SELFSUP_COMMIT": commit()}
    environment = {"working_dir": str(working_dir), "py_modules": [str(package)], "env_vars": variables}
    try:
        if address.startswith("http"):
            check_reachable(address)  # Ray would wait forever
        client = JobSubmissionClient(address)
        return client, client.submit_job(entrypoint=shlex.join(entrypoint), runtime_env=environment)
    except AuthenticationError as error:
        raise SelfsupError(
            f"the Ray cluster at {address} refused the job: it requires its token; set RAY_AUTH_TOKEN to it, or "
            "RAY_AUTH_TOKEN_PATH to its file"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SelfsupError(f"no job server of Ray took the job at {address}: {reason}") from error


def copy_all(specs: Sequence[Path], overrides: Sequence[str], folder: Path) -> tuple[list[str], list[str]]:
    """Copy specs, and the user's files that overrides name, as `copy_specs` does; return both with the names there."""
    modules = [override.partition("=")[2] for override in overrides if names_module(override)]
    names = copy_specs([*specs, *map(Path, modules)], folder)
    own = iter(names[len(specs) :])
    sent = [
        f"{override.partition('=')[0]}={next(own)}" if names_module(override) else override for override in overrides
    ]
    return names[: len(specs)], sent


def names_module(override: str) -> bool:
    """Return whether an override names a file with a method or an evaluator, as in `method=FILE.py`."""
    return outside.is_file(override) and re.match(r"(method|evals\.[^.=]+\.use)=", override) is not None


def copy_specs(specs: Sequence[Path], folder: Path) -> list[str]:
    """Copy specs and the files that they extend to a folder, in the same layout; return their names in it.

    Shipped specs, which are in the wheel, keep their names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = [file.path for file in map(locate, specs) if not file.shipped]
    paths = [Path(os.path.normpath(path.absolute())) for path in own]
    files = [file for path in paths for file in spec_files(path)]
    root = os.path.commonpath([file.parent for file in files]) if files else ""
    for file in files:
        copy = folder / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    names = iter(paths)
    return [str(next(names).relative_to(root)) if spec in own else str(spec) for spec in specs]


def spec_files(path: Path) -> list[Path]:
    """Return the path of a valid spec and of every file that it or one of its studies extends, without shipped ones.

    The files of methods and evaluators are among them, and name no others.
    """
    if outside.is_file(str(path)):
        return [path]
    tree = plain(Source(path.read_text(encoding="utf-8-sig"), str(path)).read())
    parts = tree, *(tree.get("studies") or ())
    names = [part["extends"] for part in parts if "extends" in part]
    names += [name for part in parts for name in used(part) if outside.is_file(name)]
    files = [locate(Path(os.path.normpath(path.parent / name)), name) for name in names]
    return [path, *(inner for file in files if not file.shipped for inner in spec_files(file.path))]


def used(part: Mapping[str, Any]) -> list[Any]:
    """Return the method and the evaluators that a spec names."""
    evals = part.get("evals") or {}
    return [part.get("method"), *(entry.get("use") for entry in evals.values() if isinstance(entry, dict))]


def build_wheel(checkout: Path, out: Path) -> Path:
    """Build a wheel without declared dependencies, which the image of the workers holds already.

    Ray installs a wheel of `py_modules` by pip with its dependencies, and would download torch on every worker.
    """
    if not (checkout / "pyproject.toml").exists():
        raise SelfsupError(f"{checkout}: no checkout of selfsup to build a wheel from; name a built one with --wheel")
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
    _drop_dependencies(path)
    return path


def tag_with_digest(wheel: Path, out: Path) -> Path:
    """Copy a wheel under a name with its digest as build tag: Ray would reuse an earlier wheel of the same name."""
    data = wheel.read_bytes()
    name, version, *tags = wheel.name.split("-")
    path = out / "-".join([name, version, f"0{hashlib.blake2b(data, digest_size=8).hexdigest()}", *tags[-3:]])
    path.write_bytes(data)
    return path


async def _stream(client: "JobSubmissionClient", job: str) -> None:
    async for lines in client.tail_job_logs(job):
        sys.stdout.write(lines)
        sys.stdout.flush()


def _drop_dependencies(path: Path) -> None:
    with whole(path) as part, zipfile.ZipFile(path) as old, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as new:
        files = {name: old.read(name) for name in old.namelist()}
        metadata = next(name for name in files if name.endswith(".dist-info/METADATA"))
        record = next(name for name in files if name.endswith(".dist-info/RECORD"))
        head, _, body = files[metadata].partition(b"\n\n")
        fields = [line for line in head.split(b"\n") if not line.startswith((b"Requires-Dist", b"Provides-Extra"))]
        files[metadata] = b"\n".join(fields) + b"\n\n" + body
        lines = [line for line in files[record].decode().splitlines() if not line.startswith(metadata)]
        files[record] = "\n".join([*lines, _record_line(metadata, files[metadata]), ""]).encode()
        for name, data in files.items():
            new.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # no date: the same tree, the same bytes


def _record_line(name: str, data: bytes) -> str:
    checksum = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={checksum},{len(data)}"
