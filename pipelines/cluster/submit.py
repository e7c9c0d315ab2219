"""Specs or a sweep as a job on a Ray cluster: the project goes along as a wheel, so every worker runs what was sent."""

import asyncio
import base64
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from selfsup.errors import SelfsupError
from selfsup.layers import plain
from selfsup.mlflow_store import home, move_credentials, reach
from selfsup.origin import Answer
from selfsup.pipelines.cluster.auth import use_token
from selfsup.progress import say
from selfsup.scratch import scratch
from selfsup.shipped import locate
from selfsup.source import Source
from selfsup.whole import whole

CHECKOUT = Path(__file__).resolve().parents[2]
FORWARDED = (
    "SELFSUP_HOME",
    "MLFLOW_TRACKING_URI",
)  # where the job keeps its work and its numbers, as seen from the cluster
FLAGS: dict[Answer, tuple[str, ...]] = {"refuse": (), "accept": ("--accept-code",), "again": ("--again",)}
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


def submit(
    verb: str,
    specs: Sequence[Path],
    overrides: Sequence[str],
    *,
    address: str,
    wheel: Path | None,
    code: Answer = "refuse",
) -> int:
    """Send, stream the log, and return 0 if the job succeeded, else 1. Ctrl-C stops the job too.

    verb: the command of selfsup that the job calls. Raises SelfsupError where nobody answers.
    """
    home()  # the job's, too
    use_token()
    move_credentials()  # Ray shows a job's environment to all who ask
    if "MLFLOW_TRACKING_PASSWORD" in os.environ:
        say("MLFLOW_TRACKING_USERNAME and _PASSWORD are not sent along: set them where the cluster's jobs run")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobStatus, JobSubmissionClient

    from selfsup.pipelines.stages.runner import commit

    with scratch(Path(tempfile.gettempdir())) as folder:
        names = copied(specs, folder / "specs")
        told = [word for override in overrides for word in ("-s", override)]
        package = named_by_content(wheel or build_wheel(CHECKOUT, folder), folder)
        try:
            if address.startswith("http"):
                reach(address)  # Ray would wait for ever
            client = JobSubmissionClient(address)
            job = client.submit_job(
                entrypoint=shlex.join(["python", "-m", "selfsup.cli", verb, *names, *told, *FLAGS[code]]),
                runtime_env={
                    "working_dir": str(folder / "specs"),
                    "py_modules": [str(package)],
                    "env_vars": {name: os.environ[name] for name in FORWARDED if name in os.environ}
                    | {"SELFSUP_COMMIT": commit()},
                },
            )
        except AuthenticationError as error:
            raise SelfsupError(
                f"the Ray cluster at {address} refused the job: it wants its token; put that into RAY_AUTH_TOKEN, or "
                "name its file in RAY_AUTH_TOKEN_PATH"
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise SelfsupError(f"no job server of Ray took the job at {address}: {reason}") from error
    try:
        asyncio.run(_stream(client, job))
    except KeyboardInterrupt:
        client.stop_job(job)
        raise
    return 0 if client.get_job_status(job) == JobStatus.SUCCEEDED else 1


def copied(specs: Sequence[Path], folder: Path) -> list[str]:
    """Copy specs and all that they extend to a folder, laid out as here; return what they are called in it.

    Shipped specs, which are in the wheel, keep their names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = [file.path for file in map(locate, specs) if not file.shipped]
    paths = [Path(os.path.normpath(path.absolute())) for path in own]
    files = [file for path in paths for file in sources(path)]
    root = os.path.commonpath([file.parent for file in files]) if files else ""
    for file in files:
        copy = folder / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    names = iter(paths)
    return [str(next(names).relative_to(root)) if spec in own else str(spec) for spec in specs]


def sources(path: Path) -> list[Path]:
    """Return a spec without a mistake, and every file that it or one of its studies extends, but shipped ones."""
    tree = plain(Source(path.read_text(encoding="utf-8-sig"), str(path)).read())
    names = [part["extends"] for part in (tree, *tree.get("studies", ())) if "extends" in part]
    files = [locate(Path(os.path.normpath(path.parent / name)), name) for name in names]
    return [path, *(inner for file in files if not file.shipped for inner in sources(file.path))]


def build_wheel(checkout: Path, out: Path) -> Path:
    """A wheel without the names of its dependencies.

    Ray installs a wheel of `py_modules` by pip with them, which would download torch anew on every worker; there the
    dependencies are part of the image.
    """
    if not (checkout / "pyproject.toml").exists():
        raise SelfsupError(f"{checkout}: no checkout of selfsup to build a wheel from; name a built one with --wheel")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:  # what an earlier build left in build/ would end up in the wheel
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


def named_by_content(wheel: Path, out: Path) -> Path:
    """A copy with a digest as its build tag: Ray goes by the name, and would run an earlier wheel of the same name."""
    data = wheel.read_bytes()
    name, version, *tags = wheel.name.split("-")
    path = out / "-".join([name, version, f"0{hashlib.blake2b(data, digest_size=8).hexdigest()}", *tags[-3:]])
    path.write_bytes(data)
    return path


async def _stream(client, job: str) -> None:  # type: ignore[no-untyped-def]
    async for lines in client.tail_job_logs(job):
        sys.stdout.write(lines)
        sys.stdout.flush()


def _drop_dependencies(path: Path) -> None:
    with whole(path) as part, zipfile.ZipFile(path) as old, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as new:
        held = {name: old.read(name) for name in old.namelist()}
        metadata = next(name for name in held if name.endswith(".dist-info/METADATA"))
        record = next(name for name in held if name.endswith(".dist-info/RECORD"))
        head, _, body = held[metadata].partition(b"\n\n")
        kept = [line for line in head.split(b"\n") if not line.startswith((b"Requires-Dist", b"Provides-Extra"))]
        held[metadata] = b"\n".join(kept) + b"\n\n" + body
        lines = [line for line in held[record].decode().splitlines() if not line.startswith(metadata)]
        held[record] = "\n".join([*lines, _recorded(metadata, held[metadata]), ""]).encode()
        for name, data in held.items():
            new.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # no date: the same tree, the same bytes


def _recorded(name: str, data: bytes) -> str:
    checksum = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={checksum},{len(data)}"
