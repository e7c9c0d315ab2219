"""The files of infra/ are valid where they would run, keep secrets out, and let nobody in without authentication."""

import dataclasses
import importlib.resources
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from jsonschema import Draft202012Validator

from selfsup.homes import home_at, mirror_of
from selfsup.mirror import USUAL_GIB
from selfsup.mlflow_store import default_uri
from selfsup.pipelines.stages.gauges import GAUGES
from selfsup.sections import Stream

INFRA = Path(__file__).parent.parent / "infra"
VERSION = tomllib.loads((INFRA.parent / "pyproject.toml").read_text())["project"]["version"]
LOCK = dict(line.split(" ;")[0].split("==") for line in (INFRA / "requirements.lock").read_text().splitlines())
STARTS_RAY = ("Dockerfile", "docker-compose.yaml", "kuberay-cluster.yaml", "kuberay-job.yaml", "sky.yaml", "slurm.sh")
SECRET = re.compile("TOKEN|PASSWORD|SECRET|ACCESS_KEY$")


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((INFRA / name).read_text())


COMPOSE = load("docker-compose.yaml")
SERVICES = COMPOSE["services"]


def test_every_file_says_when_to_use_it_and_the_readme_names_it() -> None:
    table = (INFRA / "README.md").read_text().partition("What else")[0]
    names = {path.name for path in INFRA.iterdir() if path.suffix in (".yaml", ".sh") or path.name == "Dockerfile"}
    assert {*STARTS_RAY, "kuberay-home.yaml", "runtime-env.yaml"} == names
    for name in names:
        lines = [line for line in (INFRA / name).read_text().splitlines() if not line.startswith("#!")]
        assert all(line.startswith("# ") for line in lines[:3]), name
        assert name in table


def test_compose_follows_its_schema() -> None:
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = Draft202012Validator(json.loads(vendored.read_text()))
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    assert not validator.is_valid(COMPOSE | {"services": {"head": {"imagee": "selfsup"}}})


def test_compose_binds_ports_of_this_machine_alone_and_none_of_prometheus_and_postgres() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert {name for name, ports in published.items() if not ports} == {"worker", "prometheus", "postgres"}
    assert not any("network_mode" in service for service in SERVICES.values())


def test_compose_pins_images_and_takes_secrets_from_its_environment() -> None:
    assert all(re.search(r":(v|RELEASE\.)?\d+[\d.TZ-]*$", service["image"]) for service in SERVICES.values())
    environments = [service["environment"] for service in SERVICES.values() if "environment" in service]
    values = [value for variables in environments for name, value in variables.items() if SECRET.search(name)]
    assert len(values) == 12  # of head and worker 3 each, MLflow's 3, and 1 each of postgres, minio and grafana
    assert all(re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value) for value in values)
    text = (INFRA / "docker-compose.yaml").read_text()
    assert not re.search(r"://\w+:(?!\$\{)[^@\s]+@", text)
    made = re.search(r"for name in ([A-Z_ ]+)$", text, re.MULTILINE)
    assert made
    assert set(re.findall(r"\$\{([A-Z_]+)", text)) == set(made[1].split())
    assert "/infra/.env" in (INFRA.parent / ".gitignore").read_text().splitlines()


def test_mlflow_asks_for_a_password_and_both_of_its_databases_are_postgres() -> None:
    service = SERVICES["mlflow"]
    assert "--app-name=basic-auth" in service["command"]
    assert {"MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"} <= set(service["environment"])
    assert service["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    store = service["environment"]["MLFLOW_BACKEND_STORE_URI"]
    assert f"database_uri = {store}\n" in COMPOSE["configs"]["auth"]["content"]
    driver = re.match(r"postgresql\+(\w+)://", store)
    assert driver
    assert f"{driver[1]}-binary==" in (INFRA / "Dockerfile").read_text()


def test_services_write_only_to_volumes_that_compose_declares_and_read_configs_that_are_there() -> None:
    volumes = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert volumes == set(COMPOSE["volumes"])
    assert {config["source"] for service in SERVICES.values() for config in service.get("configs", [])} == set(
        COMPOSE["configs"]
    )
    inline = {name: config["content"] for name, config in COMPOSE["configs"].items() if "content" in config}
    (scrape,) = yaml.safe_load(inline["prometheus"])["scrape_configs"]
    (discovery,) = scrape["dns_sd_configs"]
    assert all(
        f"--metrics-export-port={discovery['port']} " in SERVICES[name]["command"] for name in discovery["names"]
    )


def test_the_dashboard_shows_every_gauge_and_nothing_else() -> None:
    text = (INFRA / COMPOSE["configs"]["dashboard"]["file"]).read_text()
    dashboard = json.loads(text)
    exported = {f"ray_selfsup_{name}" for name in GAUGES}
    assert {name for panel in dashboard["panels"] for name in re.findall(r"ray_\w+", str(panel))} == exported
    assert set(re.findall(r"ray_\w+", text)) == exported
    (source,) = yaml.safe_load(COMPOSE["configs"]["datasource"]["content"])["datasources"]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    assert source["url"].split("/")[2].partition(":")[0] in SERVICES
    (provider,) = yaml.safe_load(COMPOSE["configs"]["dashboards"]["content"])["providers"]
    targets = {config["source"]: config["target"] for config in SERVICES["grafana"]["configs"]}
    assert Path(targets["dashboard"]).parent == Path(provider["options"]["path"])


@pytest.fixture(scope="module")
def kubernetes() -> Any:
    """Kubernetes' types, which import three names of a client that we do not need."""
    schema = ModuleType("lightkube.core.schema")
    schema.DictMixin, schema.dataclass, schema.field = object, dataclasses.dataclass, dataclasses.field
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "lightkube.core", ModuleType("lightkube.core"))
        patch.setitem(sys.modules, "lightkube.core.schema", schema)
        from lightkube.models import core_v1

        yield core_v1


def faults(value: Any, kind: Any, place: str) -> list[str]:
    """Return where a value has fields that its dataclass has not, lacks some, or has others' types."""
    kind = next(arg for arg in get_args(kind) if arg is not type(None)) if get_origin(kind) is Union else kind
    if get_origin(kind) is list:
        (part,) = get_args(kind)
        return [fault for i, item in enumerate(value) for fault in faults(item, part, f"{place}[{i}]")]
    if not dataclasses.is_dataclass(kind):
        return [] if isinstance(value, kind) else [f"{place}: {value!r}"]
    kinds, fields = get_type_hints(kind), dataclasses.fields(kind)
    required = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}
    lacking = [f"{place} lacks {name}" for name in sorted(required - set(value))]
    unknown = [f"{place}.{name} is unknown" for name in value if name not in kinds]
    inner = [fault for name in value if name in kinds for fault in faults(value[name], kinds[name], f"{place}.{name}")]
    return lacking + unknown + inner


def kuberay(core: Any) -> dict[str, Any]:
    """Return the types of KubeRay that we use; the definitions of 1.5.1 to 1.7.0 require the fields that come first."""
    optional = dataclasses.field(default=None)
    groups = [("rayStartParams", dict, optional)]
    auth = dataclasses.make_dataclass("AuthOptions", [("mode", str)])
    head = dataclasses.make_dataclass("HeadGroupSpec", [("template", core.PodTemplateSpec), *groups])
    counts = [("groupName", str), ("minReplicas", int), ("maxReplicas", int), ("template", core.PodTemplateSpec)]
    workers = dataclasses.make_dataclass("WorkerGroupSpec", [*counts, ("replicas", int, optional), *groups])
    fields = [("headGroupSpec", head), ("rayVersion", str), ("authOptions", auth), ("workerGroupSpecs", list[workers])]
    cluster = dataclasses.make_dataclass("RayClusterSpec", fields)
    ends = [("shutdownAfterJobFinishes", bool, optional), ("ttlSecondsAfterFinished", int, optional)]
    job = dataclasses.make_dataclass("RayJobSpec", [("entrypoint", str), ("rayClusterSpec", cluster), *ends])
    return {"RayCluster": cluster, "RayJob": job}


@pytest.mark.parametrize("name", ["kuberay-cluster.yaml", "kuberay-job.yaml"])
def test_kuberay_s_objects_have_its_fields_and_pods_those_of_kubernetes(name: str, kubernetes: Any) -> None:
    manifest = load(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    kind = kuberay(kubernetes)[manifest["kind"]]
    assert faults(manifest["spec"], kind, "spec") == []
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    pod = cluster["headGroupSpec"]["template"]["spec"]
    pod["containers"][0] |= {"imagee": "selfsup", "stdin": "yes"}
    del cluster["workerGroupSpecs"][0]["minReplicas"], pod["volumes"][0]["name"]
    assert len(faults(manifest["spec"], kind, "spec")) == 4


def test_a_job_s_home_is_a_claim_that_its_pods_mount_and_many_nodes_write(kubernetes: Any) -> None:
    claim = load("kuberay-home.yaml")
    assert faults(claim, kubernetes.PersistentVolumeClaim, "claim") == []
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods_of(load("kuberay-job.yaml")["spec"]["rayClusterSpec"]):
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
        (container,) = pod["containers"]
        (mount,) = container["volumeMounts"]
        assert (mount["name"], {"name": "SELFSUP_HOME", "value": mount["mountPath"]} in container["env"]) == (
            "home",
            True,
        )
    assert load("sky.yaml")["volumes"] == {load("sky.yaml")["envs"]["SELFSUP_HOME"]: claim["metadata"]["name"]}


def test_a_cluster_s_home_is_object_storage_with_keys_of_a_secret_and_a_bounded_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (INFRA / "kuberay-cluster.yaml").read_text()
    for pod in pods_of(load("kuberay-cluster.yaml")["spec"]):
        (container,), (volume,) = pod["containers"], pod["volumes"]
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variables["MLFLOW_TRACKING_URI"])
        home = home_at(variables["SELFSUP_HOME"])
        assert mirror_of(home)
        assert default_uri(home).startswith("http://")
        (mount,) = container["volumeMounts"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], variables["SELFSUP_CACHE"])
        assert int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) > USUAL_GIB + Stream().cache
        (source,) = container["envFrom"]
        assert f"kubectl create secret generic {source['secretRef']['name']} " in text


def clusters() -> list[dict[str, Any]]:
    return [load("kuberay-cluster.yaml")["spec"], load("kuberay-job.yaml")["spec"]["rayClusterSpec"]]


def pods() -> list[dict[str, Any]]:
    return [pod for spec in clusters() for pod in pods_of(spec)]


def pods_of(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["template"]["spec"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]


def test_pods_run_as_no_root_and_both_files_have_nodes_with_and_without_gpus() -> None:
    assert len(pods()) == 6
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods())
    assert all(not pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] for pod in pods())
    limits = [pod["containers"][0]["resources"]["limits"] for pod in pods()]
    assert sum("nvidia.com/gpu" in limit for limit in limits) == 2


def test_whatever_starts_ray_has_its_token_on_and_no_token_in_it() -> None:
    for name in STARTS_RAY:
        assert re.search("RAY_AUTH_MODE(:|=|, value:) ?token", (INFRA / name).read_text()), name
    for name in ("head", "worker"):
        assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"
    for spec in clusters():
        assert spec["authOptions"] == {"mode": "token"}
    for pod in pods():
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in pod["containers"][0]["env"]
        assert not any(SECRET.search(variable["name"]) for variable in pod["containers"][0]["env"])
    assert load("sky.yaml")["secrets"] == {"RAY_AUTH_TOKEN": None}


def test_versions_are_those_of_the_project_and_its_lock() -> None:
    assert {spec["rayVersion"] for spec in clusters()} == {LOCK["ray"]}
    images = {pod["containers"][0]["image"] for pod in pods()} | {
        SERVICES[name]["image"] for name in ("head", "mlflow")
    }
    assert {image.rpartition(":")[2] for image in images} == {VERSION}


def test_the_image_has_a_pinned_base_the_lock_and_the_wheel_and_does_not_run_as_root() -> None:
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    stages = "\n".join(lines).split("\nFROM ")[1:]
    assert re.match(r"python:3\.\d+\.\d+-slim-\w+ AS packages\n", stages[0])
    assert all(stage.startswith("packages") for stage in stages[1:])
    assert "RUN pip install -r /tmp/requirements.lock" in lines
    assert "RUN pip install --no-deps /wheels/*.whl" in stages[-1]
    assert all("\nUSER 1000" in stage for stage in stages if "wheel --no-deps" not in stage and stage is not stages[0])
    installed = [word for line in lines if line.startswith("RUN pip install") for word in line.split()[3:]]
    assert all("==" in word for word in installed if word[0] not in "-/")
    copied = [line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert all((INFRA.parent / path).exists() for path in copied)
    packages = tomllib.loads((INFRA.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    assert {path.partition("/")[0] for path in packages.values()} <= set(copied)


@pytest.mark.parametrize(
    ("srun", "selfsup", "code"),
    [
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', "env > seen; echo $@ >> seen", 0),
        ('while [ "$1" != -- ]; do shift; done; shift; "$@" || true', "exit 3", 1),  # a failure that Ray hides
        ("exit 0", "exit 0", 1),  # as Ray's symmetric-run where its head does not start
    ],
    ids=["well", "failed", "not started"],
)
def test_a_slurm_job_ends_well_only_where_selfsup_did(tmp_path: Path, srun: str, selfsup: str, code: int) -> None:
    for name, script in {"srun": srun, "selfsup": selfsup}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = os.environ | {"PATH": path, "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "8"}
    ended = subprocess.run(
        ["bash", INFRA / "slurm.sh", "run", "a spec"], cwd=tmp_path, env=variables, check=False, capture_output=True
    )
    assert ended.returncode == code
    if code == 0:
        seen = (tmp_path / "seen").read_text()
        assert "\nRAY_AUTH_MODE=token\n" in f"\n{seen}"
        assert re.search(r"^RAY_AUTH_TOKEN=[0-9a-f]{64}$", seen, re.MULTILINE)
        assert re.search(r"^RAY_ADDRESS=\S+:6379$", seen, re.MULTILINE)
        assert seen.endswith("\nrun a spec\n")


def test_a_sky_task_has_fields_of_skypilot_0_14() -> None:
    task = load("sky.yaml")
    known = {"name", "workdir", "num_nodes", "resources", "volumes", "envs", "secrets", "setup", "run", "file_mounts"}
    assert set(task) <= known
    assert all(isinstance(value, str) for value in task["envs"].values())
    for script in (task["setup"], task["run"]):
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
