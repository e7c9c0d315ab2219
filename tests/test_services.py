"""The services of docker-compose.yaml as processes of this machine: its commands and environments, with other hosts.

Postgres and MLflow are what compose runs, the head is a Ray with a token; in MinIO's place is moto's server.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml
from plans import write_shards
from pyarrow import fs
from ray_head import Head, ray_head
from servers import answers, free_ports, object_store
from tiny import BACKBONE

COMPOSE = yaml.safe_load((Path(__file__).parent.parent / "infra/docker-compose.yaml").read_text())
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
SECRETS = ("POSTGRES_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET_KEY", "MINIO_PASSWORD")
SPEC = {
    "name": "tiny",
    "method": "simclr",
    "data": {"train": "s3://shards/train", "val": "s3://shards/val"},
    "backbone": BACKBONE,
    "train": {"duration": {"steps": 4}, "batch": 8},
    "evals": {"knn": {"k": 3}},
    "baselines": False,
    "resources": {"cpus_per_worker": 0.9, "data_cpus": 0.1},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTGRES is None, reason="needs Debian's package postgresql"),
]


class Services:
    """Addresses under the names that compose gives them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.addresses = folder, dict[str, str]()

    def here(self, text: str) -> str:
        """Return a text of compose with addresses of this machine, and each secret as its name in small letters."""
        text = re.sub(r"\$\{([A-Z_]+):\?[^}]*\}", lambda match: match[1].lower(), text)
        for name, address in self.addresses.items():
            text = text.replace(name, address)
        return text

    def environment(self, service: str) -> dict[str, str]:
        variables = COMPOSE["services"][service]["environment"]
        return {name: self.here(value) for name, value in variables.items() if not name.startswith("RAY_")}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    services = Services(tmp_path_factory.mktemp("services"))
    with object_store("mlflow") as services.addresses["minio:9000"], postgres(services), mlflow(services):
        yield services


@contextmanager
def postgres(services: Services) -> Iterator[None]:
    assert POSTGRES
    [port] = free_ports(1)
    variables = services.environment("postgres")
    user = "postgres" if os.getuid() == 0 else None  # root may not run it
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        password = Path(folder) / "password"
        password.write_text(variables["POSTGRES_PASSWORD"])
        for path in (Path(folder), password):
            shutil.chown(path, user or os.getuid())
        own = ["--auth=scram-sha-256", f"--pwfile={password}", f"--username={variables['POSTGRES_USER']}"]
        subprocess.run([POSTGRES / "initdb", "-D", f"{folder}/data", *own], user=user, check=True, capture_output=True)
        argv = [POSTGRES / "postgres", "-D", f"{folder}/data", "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
        with (services.folder / "postgres").open("w") as log, stopped(argv, log, user=user):
            answers(port)
            words = ["createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow"]
            login = os.environ | {"PGPASSWORD": variables["POSTGRES_PASSWORD"]}
            subprocess.run([POSTGRES / words[0], *words[1:]], env=login, check=True)
            services.addresses["@postgres/"] = f"@127.0.0.1:{port}/"
            yield


@contextmanager
def mlflow(services: Services) -> Iterator[None]:
    [port] = free_ports(1)
    services.addresses |= {f"{name}:5000": f"127.0.0.1:{port}" for name in ("mlflow", "localhost")}
    config = services.folder / "auth.ini"
    config.write_text(services.here(COMPOSE["configs"]["auth"]["content"]))
    services.addresses |= {"0.0.0.0": "127.0.0.1", "/auth.ini": str(config)}
    program, *words = map(services.here, COMPOSE["services"]["mlflow"]["command"])
    argv = [sys.executable, "-m", program, *words, f"--port={port}", "--workers=1"]
    with (
        (services.folder / "mlflow").open("w") as log,
        stopped(argv, log, env=os.environ | services.environment("mlflow")),
    ):
        answers(port)
        yield


@contextmanager
def stopped(argv: list[object], log: object, **options: object) -> Iterator[None]:
    """Run a program for the duration of the block."""
    process = subprocess.Popen(argv, stdout=log, stderr=log, **options)  # type: ignore[call-overload]
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def head(services: Services) -> Iterator[Head]:
    with ray_head(services.environment("head")) as running:
        yield running


def test_mlflow_lets_nobody_in_without_the_password(services: Services) -> None:
    url = f"{services.here('http://mlflow:5000')}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert requests.get(url, timeout=60).status_code == 401
    assert requests.get(url, auth=("admin", "wrong"), timeout=60).status_code == 401
    assert requests.get(url, auth=("admin", "mlflow_password"), timeout=60).json()["experiment"]["name"] == "Default"


def test_a_job_reads_shards_from_the_store_and_leaves_numbers_and_files_with_mlflow(
    services: Services, head: Head, tmp_path: Path
) -> None:
    store = fs.S3FileSystem(
        endpoint_override=services.addresses["minio:9000"], scheme="http", allow_bucket_creation=True
    )
    for split, number in (("train", 32), ("val", 8)):
        write_shards(tmp_path / split, classes="ab", number=number // 2, seed=number)
        store.create_dir(f"shards/{split}")
        fs.copy_files(str(tmp_path / split / "shards"), f"shards/{split}", destination_filesystem=store)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SPEC))
    submit = [sys.executable, "-m", "selfsup.cli", "submit", "tiny.yaml", "--address", head.address]
    done = head.call(*submit, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "mlflow_password" not in done.stdout
    server, login = services.here("http://mlflow:5000"), ("admin", "mlflow_password")
    query = {"experiment_ids": ["1"], "filter": "attributes.status = 'FINISHED'"}
    answer = requests.post(f"{server}/api/2.0/mlflow/runs/search", json=query, auth=login, timeout=60).json()
    [run] = answer["runs"]
    values = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert f"{values['eval/knn/top1']:.1f}" in done.stdout
    files = store.get_file_info(fs.FileSelector("mlflow", recursive=True))
    assert any(run["info"]["run_id"] in file.path for file in files if file.is_file)
