"""Where numbers are kept, a local SQLite store or an MLflow server, and how to look at them. MLflow is not imported."""

import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

from selfsup.errors import TrackError

REACH = 5.0  # seconds to wait for a server's first answer
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",  # with the next: half a minute, where MLflow's own 7 and 2 take four
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def default_uri(home: Path) -> str:
    """MLFLOW_TRACKING_URI, or the store under `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.resolve() / 'mlflow.db'}"


def ui_command(uri: str, home: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The (argv, whole environment) that serve a local store to this machine only, without MLflow's job runner."""
    if sqlite_path(uri) is None:
        raise TrackError(f"the store in use is a server: open {shown(uri)} in a browser")
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    argv += ["--artifacts-destination", (home.resolve() / "artifacts").as_uri()]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
    pool = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "48"}  # a request takes two connections; the default can dead-lock
    return argv, os.environ | ENVIRONMENT | pool | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def sqlite_path(uri: str) -> Path | None:
    """The file of a local store, None for a server. TrackError for anything else."""
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///")).resolve()
    if re.match("https?://", uri):
        return None
    raise TrackError(f"MLflow at {shown(uri)}: expected sqlite:///PATH, or http(s)://HOST:PORT of an MLflow server")


def shown(uri: str) -> str:
    """Without a user's name and password."""
    return re.sub("//[^/@]*@", "//", uri)


def reach(uri: str) -> None:
    """Any answer will do. MLflow's own client would try for minutes before it says that nobody is there."""
    try:
        urllib.request.urlopen(shown(uri).rstrip("/") + "/health", timeout=REACH).close()
    except urllib.error.HTTPError as error:
        error.close()
