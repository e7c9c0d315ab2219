"""Submission of specs or a sweep as a Ray job, with the project as a wheel, so that all workers run the same code."""

import asyncio
import os
import re
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from selfsup import outside
from selfsup.errors import SelfsupError, SpecError, TrackError
from selfsup.layers import plain
from selfsup.mlflow_store import (
    WORKFLOW,
    check_reachable,
    default_uri,
    experiment_page,
    home,
    is_server,
    move_credentials,
)
from selfsup.origin import CodePolicy
from selfsup.pipelines.cluster.auth import use_token
from selfsup.pipelines.cluster.runtime_env import Extras, runtime_env
from selfsup.pipelines.cluster.wheel import job_wheel
from selfsup.progress import say
from selfsup.redact import redacted
from selfsup.scratch import scratch
from selfsup.shipped import locate
from selfsup.source import Source
from selfsup.track import Tracker

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

FLAGS: dict[CodePolicy, tuple[str, ...]] = {"refuse": (), "accept": ("--accept-code",), "again": ("--again",)}
JOB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)  # which is in URLs, file names and shell commands


class Job(NamedTuple):
    """A job that a cluster has taken. address: of the job server. ray: how Ray's own command is called there."""

    client: "JobSubmissionClient"
    id: str
    address: str
    ray: str

    @property
    def summary(self) -> str:
        """Return its name, its page, and the commands for it, a line each."""
        where = shlex.join([self.id, "--address", self.address])
        lines = [f"job:       {self.id}", f"its log:   {self.ray} job logs --follow {where}"]
        lines.append(f"to stop:   {self.ray} job stop {where}")
        if self.address.startswith("http"):
            lines.insert(1, f"dashboard: {self.address.rstrip('/')}/#/jobs/{self.id}")
        return "\n".join(lines)

    def follow(self) -> bool:
        """Stream the log of the job; return whether it succeeded. Ctrl-C stops the job, too."""
        from ray.job_submission import JobStatus

        try:
            asyncio.run(_stream(self.client, self.id))
        except KeyboardInterrupt:
            self.client.stop_job(self.id)
            raise
        return bool(self.client.get_job_status(self.id) == JobStatus.SUCCEEDED)


def submit(
    verb: str,
    specs: Sequence[Path],
    overrides: Sequence[str],
    *,
    address: str,
    name: str,
    extras: Extras | None = None,
    code: CodePolicy = "refuse",
) -> Job:
    """Submit a job. Raises SelfsupError where the cluster does not accept it.

    verb: the command of selfsup that the job calls. name: of the job, which no other of the cluster has had.
    """
    if not JOB_NAME.fullmatch(name):
        raise SpecError(f"--name {name}: expected letters, digits, and the characters . - _ between them, at most 100")
    home()  # raises for a SELFSUP_HOME that the job could not use either
    ray = "RAY_AUTH_MODE=token ray" if use_token() else "ray"
    move_credentials()
    extras = extras or Extras()
    if "MLFLOW_TRACKING_PASSWORD" in os.environ and "MLFLOW_TRACKING_PASSWORD" not in extras.variables:
        say("MLFLOW_TRACKING_USERNAME and _PASSWORD are not sent: set them where the job runs, or name each in --env")
    with scratch(Path(tempfile.gettempdir())) as folder:
        from selfsup.pipelines.stages.runner import commit

        names, overrides = copy_all(specs, overrides, folder / "specs")
        options = [word for override in overrides for word in ("-s", override)]
        entrypoint = ["python", "-m", "selfsup.cli", verb, *names, *options, *FLAGS[code]]
        environment = runtime_env(extras, folder / "specs", commit())
        environment["py_modules"].insert(0, str(job_wheel(extras.wheel, folder / "wheel")))
        metadata = {"job_name": name, "command": f"selfsup {shlex.join(entrypoint[3:])}"}
        client = _send(
            address, entrypoint=shlex.join(entrypoint), runtime_env=environment, submission_id=name, metadata=metadata
        )
    return Job(client, name, address, ray)


def job_name(title: str) -> str:
    """Return a name for a job of a spec that no other job has."""
    return f"{re.sub('[^A-Za-z0-9.-]+', '-', title).strip('-.')[:60] or 'selfsup'}-{secrets.token_hex(3)}"


def mlflow_page(experiment: str) -> str:
    """Return the URL of an experiment in MLflow, or of the server where it has none yet; "" for a local store."""
    uri = default_uri(home())
    if not is_server(uri):
        return ""
    try:
        entity = Tracker(uri).connect().experiment(experiment)
    except TrackError:  # only the cluster may reach it
        entity = None
    return f"{experiment_page(uri, entity.experiment_id)}/runs?{WORKFLOW}" if entity else redacted(uri)


def _send(address: str, **job: Any) -> "JobSubmissionClient":
    """Send a job; return the client of its cluster."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        if address.startswith("http"):
            check_reachable(address)  # Ray would wait forever
        client = JobSubmissionClient(address)
        client.submit_job(**job)
        return client
    except AuthenticationError as error:
        raise SelfsupError(
            f"the Ray cluster at {address} refused the job: it requires its token; set RAY_AUTH_TOKEN to it, or "
            "RAY_AUTH_TOKEN_PATH to its file"
        ) from error
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = redacted(str(error).strip().partition("\n")[0])
        if "already exists" in str(error):
            reason = "it has had a job of this name; give another --name"
        raise SelfsupError(f"no job server of Ray took the job at {address}: {reason}") from error


async def _stream(client: "JobSubmissionClient", job: str) -> None:
    async for lines in client.tail_job_logs(job):
        sys.stdout.write(lines)
        sys.stdout.flush()


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
    """Return whether an override names a file of the user's own code, as in `method=FILE.py`."""
    return outside.is_file(override) and re.match(r"(method|augment\.use|evals\.[^.=]+\.use)=", override) is not None


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

    The files of methods, evaluators and augmentations are among them, and name no others.
    """
    if outside.is_file(str(path)):
        return [path]
    tree = plain(Source(path.read_text(encoding="utf-8-sig"), str(path)).read())
    parts = tree, *(tree.get("studies") or ())
    names = [part["extends"] for part in parts if "extends" in part]
    names += [name for name in dict.fromkeys(used(tree)) if outside.is_file(name)]
    files = [locate(Path(os.path.normpath(path.parent / name)), name) for name in names]
    return [path, *(inner for file in files if not file.shipped for inner in spec_files(file.path))]


def used(tree: Any, key: str = "") -> Iterator[str]:
    """Yield the methods, augmentations and evaluators that a spec and its axes name. key: that of the value."""
    if isinstance(tree, dict):
        for inner, value in tree.items():
            yield from used(value, inner)
    elif isinstance(tree, tuple):
        for item in tree:
            yield from used(item, key)
    elif isinstance(tree, str) and key.rpartition(".")[2] in ("method", "use"):
        yield tree
