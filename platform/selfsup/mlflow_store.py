"""Where numbers are kept, a local SQLite store or an MLflow server: how to open it, and how to look at it."""

import contextlib
import fcntl
import logging
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

from selfsup.errors import SpecError, TrackError
from selfsup.redact import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

PORT = 5000  # of `selfsup ui`
REACH = 5.0  # seconds to wait for a server's first answer
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",  # with the next: half a minute, where MLflow's own 7 and 2 take four
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def home() -> Path:
    """Where everything is kept. Raises SpecError where that is no folder."""
    return folder("SELFSUP_HOME", "~/.selfsup")


def folder(variable: str, usual: str) -> Path:
    """The folder that the environment names, there or to be made.

    Raises SpecError where none can be, and for a URL, which would become one of that name here.
    """
    place = os.environ.get(variable) or usual
    if "://" in place:
        raise SpecError(f"{variable}: {redacted(place)}: expected a folder; URLs are for data")
    try:
        path = Path(place).expanduser().resolve()
    except RuntimeError as error:  # no such user, or a loop of links
        raise SpecError(f"{variable}: {place}: {error}; expected a folder") from error
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        raise SpecError(f"{variable}: {place}: {there} is a file; expected a folder")
    return path


def default_uri(home: Path) -> str:
    """MLFLOW_TRACKING_URI, from now on without a name and password, or the store under `home`."""
    move_credentials()
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(home.resolve() / "mlflow.db")


def move_credentials() -> None:
    """Take a user's name and password out of MLFLOW_TRACKING_URI, to where MLflow's client looks for them.

    Raises TrackError for a name alone.
    """
    parts = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    name, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if not name or not parts.scheme.startswith("http"):
        return
    if not password:
        raise TrackError("MLFLOW_TRACKING_URI: a user's name alone: set MLFLOW_TRACKING_USERNAME and _PASSWORD instead")
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(name), unquote(password)
    os.environ["MLFLOW_TRACKING_URI"] = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def ui_command(uri: str, home: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The (argv, whole environment) that serve a local store to this machine only, without MLflow's job runner."""
    if is_server(uri):
        raise TrackError(f"the store in use is a server: open {redacted(uri)} in a browser")
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    argv += ["--artifacts-destination", (home.resolve() / "artifacts").as_uri()]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
    pool = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "48"}  # a request takes two connections; the default can dead-lock
    return argv, os.environ | ENVIRONMENT | pool | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def mlflow_command(uri: str, *words: str) -> str:
    """What to type for a command of MLflow on this store. A server, whose name may hold a password, is in the user's
    environment already.
    """
    variable = [] if is_server(uri) else [f"MLFLOW_TRACKING_URI={shlex.quote(uri)}"]
    return " ".join([*variable, shlex.join([sys.executable, "-m", "mlflow", *words])])


def experiment_page(uri: str, experiment: str, port: int = PORT) -> str:
    """Where MLflow's UI shows an experiment, by MLflow's id; of a local store while `selfsup ui` runs."""
    base = redacted(uri).rstrip("/") if is_server(uri) else f"http://127.0.0.1:{port}"
    return f"{base}/#/experiments/{experiment}"


def links(page: str, sweep: str, charts: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """What is to be seen of a sweep -> where in MLflow's UI.

    page: of its experiment. sweep: the digest, as in the tags. charts: of which kind of runs, by a metric.
    """
    found = {}
    for what, (kind, metric) in charts.items():
        query = {
            "searchFilter": f"tags.`selfsup.sweep` = '{sweep}' AND tags.`selfsup.kind` = '{kind}'",
            "orderByKey": f"metrics.`{metric}`",
            "orderByAsc": "false",
            "compareRunsMode": "CHART",
        }
        found[what] = f"{page}/runs?{urlencode(query, quote_via=quote)}"
    return found


def sqlite_uri(path: Path) -> str:
    """Of a local store; where the path has letters that a URL escapes, with the driver's name.

    MLflow opens sqlite:///a%20b as "a b", but also makes a folder "a%20b", unless the driver is named.
    """
    from sqlalchemy import URL

    plain = f"sqlite:///{path}"
    escaped = URL.create("sqlite+pysqlite", database=str(path)).render_as_string()
    return plain if escaped.endswith(f"///{path}") else escaped


def sqlite_path(uri: str) -> Path | None:
    """The file of a local store, None for a server. TrackError for anything else."""
    if re.match(r"sqlite(\+pysqlite)?:///", uri):
        from sqlalchemy import make_url

        return Path(make_url(uri).database or "").resolve()
    if re.match("https?://", uri):
        return None
    raise TrackError(f"MLflow at {redacted(uri)}: expected sqlite:///PATH, or http(s)://HOST:PORT of an MLflow server")


def is_server(uri: str) -> bool:
    return sqlite_path(uri) is None


def reach(uri: str) -> None:
    """Any answer will do. MLflow's own client would try for minutes before it says that nobody is there."""
    try:
        urllib.request.urlopen(redacted(uri).rstrip("/") + "/health", timeout=REACH).close()
    except urllib.error.HTTPError as error:
        error.close()


def load_mlflow() -> None:
    """Import MLflow late, since it takes seconds, and after the environment that it reads is set."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    assert mlflow
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(
        logging.CRITICAL
    )  # else a page of SQL; the error is raised, too


def connect(uri: str) -> "MlflowClient":
    """Open the store, making or migrating the schema of a local one; within 10 s fail where there is none."""
    load_mlflow()
    path = sqlite_path(uri)
    if path is not None:
        return _local_client(uri, path)
    reach(uri)
    found = _client(uri)
    found.search_experiments(max_results=1)
    return found


def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(uri, registry_uri=uri)


def _local_client(uri: str, store: Path) -> "MlflowClient":
    """Two processes that open a fresh or an older SQLite store at once break it, so only one at a time may.

    MLflow makes a schema that is missing, and adds tables to an older one, when it opens a store; a store that lacks
    only columns it refuses.
    """
    from mlflow.exceptions import MlflowException

    store.parent.mkdir(parents=True, exist_ok=True)
    with store.with_name(store.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _analyse(store)
        try:
            return _client(uri)
        except MlflowException:
            _migrate(uri, store)
            return _client(uri)


def _analyse(store: Path) -> None:
    """Without statistics SQLite looks for the curve of one run among those of all: 50 ms, not 1, with 4,000 runs.

    A connection takes note of them when it is opened. Raises sqlite3.DatabaseError where the file is damaged, which
    MLflow would open again and again for minutes; one that is no store yet is MLflow's to judge.
    """
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(store)) as opened:
        opened.execute("PRAGMA analysis_limit = 400")
        opened.execute("ANALYZE metrics")
        opened.commit()


def _migrate(uri: str, store: Path) -> None:
    backup = store.with_name(store.name + ".backup")
    shutil.copyfile(store, backup)
    argv = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TrackError(f"MLflow at {uri}: its schema cannot be migrated (a copy of it is {backup}): {reason}")
