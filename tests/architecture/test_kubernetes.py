"""The manifests of deploy/kubernetes are valid, and name settings, ports, paths and commands that exist."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from handlers.pipeline.middleware.long_polling import HEARTBEAT_SECONDS
from handlers.server.cli import GRACEFUL_SHUTDOWN_SECONDS, READINESS_PATH
from studio.infrastructure.settings import Settings, list_settings
from studio.media.data_files import MAX_DATA_FILE_BYTES
from tests.architecture.image import COMMAND, ENVIRONMENT, USER_ID
from tests.support.requirements import skip_or_fail

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
KUBERNETES = ["1.33", "1.37"]
"""The oldest and the newest version that the manifests are validated for."""
SECRETS = "/run/secrets/sartiq/"
IMAGE = "sartiq-backend-api"
# Valid values of the secrets, by the key in the secret.
SECRET_VALUES = {
    "secret-key": "0123456789abcdef" * 4,
    "database-url": "postgresql://sartiq@database.internal/sartiq",
    "migration-database-url": "postgresql://owner@database.internal/sartiq",
    "broker-url": "rediss://redis.internal:6379/0",
    "smtp-url": "smtp+starttls://mail.internal:587",
    "aws-credentials": "[default]",
}


def load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


KUSTOMIZATION = load("kustomization.yaml")[0]
RESOURCES = [resource for name in KUSTOMIZATION["resources"] for resource in load(name)]
WORKLOADS = {
    resource["metadata"]["name"]: resource
    for resource in RESOURCES
    if resource["kind"] in ("Deployment", "Job")
}
COMMON = dict(
    line.split("=", 1)
    for line in (FOLDER / "settings.env").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def describe(resource: dict[str, Any]) -> str:
    return f"{resource['kind']}-{resource['metadata']['name']}"


def list_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"] for each in RESOURCES if each["kind"] == kind}


def pod_of(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return pod


def container_of(name: str) -> dict[str, Any]:
    (container,) = pod_of(name)["containers"]
    return dict(container)


def selected_workloads(selector: dict[str, Any]) -> set[str]:
    """Return the names of the workloads whose pods a selector matches."""
    wanted = {key: {value} for key, value in selector.get("matchLabels", {}).items()}
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        wanted[expression["key"]] = set(expression["values"])
    labels = {name: each["spec"]["template"]["metadata"]["labels"] for name, each in WORKLOADS.items()}
    return {
        name for name, own in labels.items() if all(own.get(key) in values for key, values in wanted.items())
    }


def test_the_kustomization_lists_every_file_and_has_the_workloads() -> None:
    listed = {*KUSTOMIZATION["resources"], "kustomization.yaml", "settings.env"}
    assert listed == {path.name for path in FOLDER.iterdir()}
    assert set(WORKLOADS) == {"sartiq-migrate", "sartiq-api", "sartiq-worker", "sartiq-beat"}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("resource", RESOURCES, ids=describe)
def test_every_resource_is_valid(resource: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def test_a_misspelled_field_is_noticed() -> None:
    broken = copy.deepcopy(WORKLOADS["sartiq-api"])
    broken["spec"]["template"]["spec"]["securtyContext"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_variable_is_a_setting_and_every_secret_is_a_file(name: str) -> None:
    variables = {variable.name: variable for _, variable in list_settings()}
    for setting in COMMON:
        assert setting.startswith("AWS_") or not variables[setting].secret
    items = {
        item["path"]: item["key"]
        for volume in pod_of(name)["volumes"]
        for item in volume.get("secret", {}).get("items", [])
    }
    used = set()
    for entry in container_of(name)["env"]:
        setting = entry["name"]
        if entry["value"].startswith(SECRETS):
            used.add(entry["value"].removeprefix(SECRETS))
            assert setting == "AWS_SHARED_CREDENTIALS_FILE" or variables[setting.removesuffix("_FILE")].secret
        else:
            assert setting in variables
    # The login that owns the tables can read all tenants.
    assert ("migration-database-url" in used) == (name == "sartiq-migrate")
    # A process gets no secret that it does not use.
    assert used == set(items) == set(items.values())


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_process_accepts_its_settings(name: str, tmp_path: Path) -> None:
    for key, value in SECRET_VALUES.items():
        (tmp_path / key).write_text(value + "\n")
    own = {
        entry["name"]: entry["value"].replace(SECRETS, f"{tmp_path}/") for entry in container_of(name)["env"]
    }
    settings = Settings.from_environment(ENVIRONMENT | COMMON | own)
    assert settings.environment == "production"
    assert settings.media_url == COMMON["MEDIA_URL"]
    assert settings.secret_key == SECRET_VALUES["secret-key"]
    if name != "sartiq-migrate":
        assert settings.celery_broker_url == SECRET_VALUES["broker-url"]
    if name != "sartiq-beat":
        assert settings.database_url.endswith("@database.internal/sartiq")


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_command_runs_a_module_of_the_image(name: str) -> None:
    container = container_of(name)
    assert "command" not in container
    python, flag, module, *_ = container["args"]
    assert [python, flag] == COMMAND[:2]
    assert importlib.util.find_spec(f"{module}.__main__") is not None


def test_every_container_runs_the_image_of_this_version() -> None:
    assert {container_of(name)["image"] for name in WORKLOADS} == {IMAGE}
    (image,) = KUSTOMIZATION["images"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (image["name"], image["newTag"]) == (IMAGE, version)
    assert image["newName"].endswith(f"/{IMAGE}")


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_pod_has_the_least_privileges(name: str) -> None:
    pod, container = pod_of(name), container_of(name)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    mounts = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert mounts == {ENVIRONMENT["DATA_DIR"], "/tmp"}  # noqa: S108 - a path in the container
    (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert secret["defaultMode"] == 0o440


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_container_has_resources(name: str) -> None:
    resources = container_of(name)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory", "ephemeral-storage"}
    assert set(resources["limits"]) == {"memory", "ephemeral-storage"}


def test_the_probes_name_operations_and_ports_that_exist() -> None:
    contract = json.loads((ROOT / "openapi/openapi.json").read_text(encoding="utf-8"))
    operations = {
        f"{contract['servers'][0]['url']}{path}" for path, item in contract["paths"].items() if "get" in item
    }
    api = container_of("sartiq-api")
    ports = {port["name"]: port["containerPort"] for port in api["ports"]}
    assert ports == {"http": Settings().port, "metrics": int(COMMON["METRICS_PORT"])}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = api[kind]["httpGet"]
        assert probe["port"] == "http"
        assert probe["path"] in operations
    assert api["readinessProbe"]["httpGet"]["path"] == READINESS_PATH
    worker = container_of("sartiq-worker")
    assert worker["ports"] == [{"name": "metrics", "containerPort": int(COMMON["METRICS_PORT"])}]
    for kind in ("startupProbe", "livenessProbe"):
        assert worker[kind]["httpGet"]["port"] == "metrics"
        # Reading the metrics waits for a database that is away, for five seconds.
        assert worker[kind]["timeoutSeconds"] > 5
    assert COMMON["METRICS_HOST"] == "0.0.0.0"
    # `tests/studio/test_periodic_tasks.py` runs the commands of its probes.
    assert {"startupProbe", "livenessProbe"} <= set(container_of("sartiq-beat"))


def test_the_scheduler_of_periodic_tasks_runs_once() -> None:
    beat = WORKLOADS["sartiq-beat"]["spec"]
    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})
    scaled = {spec["scaleTargetRef"]["name"] for spec in list_kind("HorizontalPodAutoscaler").values()}
    assert scaled == {"sartiq-api", "sartiq-worker"}
    # With a number of replicas, each `kubectl apply` would undo the autoscaler.
    assert [name for name in scaled if "replicas" in WORKLOADS[name]["spec"]] == []


def test_requests_and_generations_may_finish_before_a_pod_is_killed() -> None:
    api = container_of("sartiq-api")
    pause = api["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod_of("sartiq-api")["terminationGracePeriodSeconds"] > pause + GRACEFUL_SHUTDOWN_SECONDS + 1
    assert pod_of("sartiq-worker")["terminationGracePeriodSeconds"] > 10


def test_selectors_match_their_own_pods() -> None:
    for name in ("sartiq-api", "sartiq-worker", "sartiq-beat"):
        assert selected_workloads(WORKLOADS[name]["spec"]["selector"]) == {name}
    for name, spec in list_kind("PodDisruptionBudget").items():
        assert selected_workloads(spec["selector"]) == {name}
    (service,) = list_kind("Service").values()
    assert selected_workloads({"matchLabels": service["selector"]}) == {"sartiq-api"}
    assert [port["targetPort"] for port in service["ports"]] == ["http"]


def test_policies_allow_only_what_the_processes_need() -> None:
    policies = list_kind("NetworkPolicy")
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ports = {
        name: {port["port"] for rule in spec.get("ingress", spec.get("egress", [])) for port in rule["ports"]}
        for name, spec in policies.items()
    }
    assert ports == {
        "deny-all": set(),
        "requests-from-the-ingress-controller": {Settings().port},
        "metrics-for-prometheus": {int(COMMON["METRICS_PORT"])},
        "stores": {53, 5432, 6379},
        "internet": {443, 465, 587},
    }
    selected = {name: selected_workloads(spec["podSelector"]) for name, spec in policies.items()}
    assert selected["requests-from-the-ingress-controller"] == {"sartiq-api"}
    assert selected["metrics-for-prometheus"] == {"sartiq-api", "sartiq-worker"}
    assert selected["internet"] == {"sartiq-api", "sartiq-worker", "sartiq-migrate"}
    blocks = {
        block["ipBlock"]["cidr"]: block["ipBlock"]["except"]
        for block in policies["internet"]["egress"][0]["to"]
    }
    # The metadata of the machine, with its credentials.
    assert "169.254.0.0/16" in blocks["0.0.0.0/0"]


def test_the_ingress_waits_for_long_polls_and_streams() -> None:
    (ingress,) = [each for each in RESOURCES if each["kind"] == "Ingress"]
    annotations = ingress["metadata"]["annotations"]
    seconds = int(annotations["nginx.org/proxy-read-timeout"].removesuffix("s"))
    assert seconds > max(Settings().max_wait_seconds, Settings().request_seconds, HEARTBEAT_SECONDS)
    assert annotations["nginx.org/proxy-buffering"] == "False"
    megabytes = int(annotations["nginx.org/client-max-body-size"].removesuffix("m"))
    assert megabytes * 1024**2 > MAX_DATA_FILE_BYTES
    (rule,) = ingress["spec"]["rules"]
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    assert COMMON["PUBLIC_URL"] == f"https://{rule['host']}"


def test_the_page_names_every_secret() -> None:
    page = (ROOT / "docs/operations/kubernetes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--from-(?:file|literal)=([a-z-]+)", page)) == set(SECRET_VALUES)
    used = {
        item["key"]
        for name in WORKLOADS
        for volume in pod_of(name)["volumes"]
        for item in volume.get("secret", {}).get("items", [])
    }
    assert used == set(SECRET_VALUES)


def test_kustomize_renders_the_image_and_the_settings() -> None:
    if shutil.which("kustomize") is None:
        skip_or_fail("kustomize (make services installs it)")
    rendered = subprocess.run(
        ["kustomize", "build", FOLDER], check=True, capture_output=True, text=True
    ).stdout
    resources = list(yaml.safe_load_all(rendered))
    for resource in resources:
        kubernetes_validate.validate(resource, KUBERNETES[-1], strict=True)
    (settings,) = [each for each in resources if each["kind"] == "ConfigMap"]
    assert settings["data"] == COMMON
    (image,) = KUSTOMIZATION["images"]
    for workload in resources:
        if workload["kind"] in ("Deployment", "Job"):
            (container,) = workload["spec"]["template"]["spec"]["containers"]
            assert container["image"] == f"{image['newName']}:{image['newTag']}"
            assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
