"""MLflow stores, a local SQLite file or a server: addresses, connections, and links into MLflow's UI."""

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
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from selfsup.errors import TrackError
from selfsup.folders import folder_from_environment
from selfsup.homes import home_at, mirror_of, shown
from selfsup.redact import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

PORT = 5000  # of `selfsup ui`
WORKFLOW = "workflowType=machine_learning"  # of URLs of MLflow's UI, which else opens on its side for agents
CONNECT_TIMEOUT = 5.0  # seconds to wait for a server's first answer
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a line with a runner, whenever a run on a server ends
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",  # with the next: half a minute, where MLflow's own 7 and 2 take four
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def home() -> Path:
    """Return SELFSUP_HOME, the folder of all results, or the one that mirrors it where it is a URL.

    Raises SpecError where it can be neither.
    """
    value = os.environ.get("SELFSUP_HOME", "")
    return home_at(value) if "://" in value else folder_from_environment("SELFSUP_HOME", default="~/.selfsup")


def default_uri(home: Path) -> str:
    """Return MLFLOW_TRACKING_URI, after `move_credentials`, or the URI of the store under `home`.

    Raises TrackError where the home is on object storage, which cannot hold a database.
    """
    move_credentials()
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri and mirror_of(home):
        raise TrackError(
            f"MLFLOW_TRACKING_URI is not set, and {shown(home)} cannot hold MLflow's database: set it to the server "
            "that all use, as http://HOST:5000, or to a file of this machine, as sqlite:////PATH/mlflow.db"
        )
    return uri or sqlite_uri(home.resolve() / "mlflow.db")


def move_credentials() -> None:
    """Move name and password from MLFLOW_TRACKING_URI to the variables that MLflow's client reads.

    Raises TrackError for a name without password.
    """
    parts = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    name, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if not name or not parts.scheme.startswith("http"):
        return
    if not password:
        raise TrackError(
            "MLFLOW_TRACKING_URI: a user name without password: set MLFLOW_TRACKING_USERNAME and _PASSWORD instead"
        )
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(name), unquote(password)
    os.environ["MLFLOW_TRACKING_URI"] = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def ui_command(uri: str, home: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """Return (argv, environment) of a server of a local store, for this machine only, without MLflow's job runner."""
    if is_server(uri):
        raise TrackError(f"the store in use is a server: open {redacted(uri)} in a browser")
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    argv += ["--artifacts-destination", (home.resolve() / "artifacts").as_uri()]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
    pool = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "48"}  # a request takes two connections; the default can dead-lock
    return argv, os.environ | ENVIRONMENT | pool | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def mlflow_command(uri: str, *words: str) -> str:
    """Return the shell command for a command of MLflow on this store.

    The address of a server, which may hold a password, is left to the user's environment.
    """
    variable = [] if is_server(uri) else [f"MLFLOW_TRACKING_URI={shlex.quote(uri)}"]
    return " ".join([*variable, shlex.join([sys.executable, "-m", "mlflow", *words])])


def experiment_page(uri: str, experiment: str, port: int = PORT) -> str:
    """Return the URL of an experiment, by MLflow's id, in MLflow's UI; of a local store while `selfsup ui` runs."""
    base = redacted(uri).rstrip("/") if is_server(uri) else f"http://127.0.0.1:{port}"
    return f"{base}/#/experiments/{experiment}"


def sqlite_uri(path: Path) -> str:
    """Return the URI of a local store, with the driver's name where the path has characters that a URL escapes.

    Without it, MLflow opens sqlite:///a%20b as "a b", but also creates a folder "a%20b".
    """
    from sqlalchemy import URL

    plain = f"sqlite:///{path}"
    escaped = URL.create("sqlite+pysqlite", database=str(path)).render_as_string()
    return plain if escaped.endswith(f"///{path}") else escaped


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a local store, None for a server. Raises TrackError for any other URI."""
    if re.match(r"sqlite(\+pysqlite)?:///", uri):
        from sqlalchemy import make_url

        return Path(make_url(uri).database or "").resolve()
    if re.match("https?://", uri):
        return None
    raise TrackError(f"MLflow at {redacted(uri)}: expected sqlite:///PATH, or http(s)://HOST:PORT of an MLflow server")


def is_server(uri: str) -> bool:
    return sqlite_path(uri) is None


def check_reachable(uri: str) -> None:
    """Raise OSError where a server does not answer; any answer will do. MLflow's client would retry for minutes."""
    try:
        urllib.request.urlopen(redacted(uri).rstrip("/") + "/health", timeout=CONNECT_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        error.close()


def load_mlflow() -> None:
    """Import MLflow, which takes seconds, after setting the environment that it reads."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    assert mlflow
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(
        logging.CRITICAL
    )  # else a page of SQL; the error is raised, too


def connect(uri: str) -> "MlflowClient":
    """Open a store, creating or migrating the schema of a local one; fail within 10 s without a server."""
    load_mlflow()
    path = sqlite_path(uri)
    if path is not None:
        return _local_client(uri, path)
    check_reachable(uri)
    client = _client(uri)
    client.search_experiments(max_results=1)
    return client


def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(uri, registry_uri=uri)


def _local_client(uri: str, store: Path) -> "MlflowClient":
    """Open a local store under a lock: two processes that open a new or an older one at once would break it.

    MLflow creates a missing schema, and adds tables to an older one, when it opens a store; it rejects a store that
    lacks columns, which is then migrated.
    """
    from mlflow.exceptions import MlflowException

    store.parent.mkdir(parents=True, exist_ok=True)
    with store.with_name(store.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _analyze(store)
        try:
            return _client(uri)
        except MlflowException:
            _migrate(uri, store)
            return _client(uri)


def _analyze(store: Path) -> None:
    """Update SQLite's statistics, which new connections read.

    Without them a query for the curve of one run scans those of all: 50 ms instead of 1 with 4,000 runs. Raises
    sqlite3.DatabaseError for a damaged file, which MLflow would retry for minutes; a file without schema passes.
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
