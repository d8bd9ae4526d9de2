"""The container files name settings, commands and directories that exist. Tests cannot build the image."""

from __future__ import annotations

import importlib.util
import os
import re
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from studio.infrastructure.settings import InvalidSettings, Settings
from tests.architecture.image import COMMAND, DOCKERFILE, ENVIRONMENT

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
PINNED = re.compile(r"[\w/.-]+:v?\d+\.\d+(\.\d+)?(-[a-z-]+)?@sha256:[0-9a-f]{64}")
OWN_SERVICES = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def test_the_services_are_the_documented_ones() -> None:
    assert set(OWN_SERVICES) == {"prepare", "api", "worker", "beat"}
    assert set(COMPOSE["services"]) - set(OWN_SERVICES) == {"postgres", "redis", "s3"}


def test_compose_has_the_schema_of_its_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, ROOT / "compose.yaml"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_image_has_an_exact_version_and_a_digest() -> None:
    images = [service["image"] for name, service in COMPOSE["services"].items() if name not in OWN_SERVICES]
    stages = re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE)
    images += [image for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) if image not in stages]
    assert [image for image in images if not PINNED.fullmatch(image)] == []
    # Another major version cannot read the volume. Moving it is described in docs/operations/production.md.
    assert COMPOSE["services"]["postgres"]["image"].startswith("postgres:17.")
    assert COMPOSE["services"]["postgres"]["volumes"] == ["database:/var/lib/postgresql/data"]


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_every_service_of_ours_has_the_least_privileges(name: str) -> None:
    service = OWN_SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["volumes"] == [ENVIRONMENT["DATA_DIR"], "/tmp"]  # noqa: S108 - a path in the container


def test_only_the_api_can_be_reached_and_only_from_this_host() -> None:
    ports = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert ports == {"api": ["${API_ADDRESS:-127.0.0.1:8000}:8000"]}


def test_every_service_that_runs_has_a_health_check() -> None:
    services = set(COMPOSE["services"]) - {"prepare"}
    assert {name for name in services if "healthcheck" in COMPOSE["services"][name]} == services
    port = OWN_SERVICES["worker"]["environment"]["METRICS_PORT"]
    assert f"http://127.0.0.1:{port}/metrics" in OWN_SERVICES["worker"]["healthcheck"]["test"][-1]


def test_settings_that_compose_does_not_name_come_from_a_file_that_is_not_committed() -> None:
    assert {str(service["env_file"]) for service in OWN_SERVICES.values()} == {
        str([{"path": "settings.env", "required": False}])
    }
    assert "/settings.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_every_setting_of_a_service_is_documented(name: str) -> None:
    table = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", table, re.MULTILINE))
    given = set(OWN_SERVICES[name]["environment"])
    assert {setting for setting in given if not setting.startswith("AWS_")} <= known
    assert {"SECRET_KEY", "DATABASE_URL", "CELERY_BROKER_URL", "MEDIA_URL"} <= given


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_every_command_runs_a_module_of_the_image(name: str) -> None:
    python, flag, module, *_ = OWN_SERVICES[name].get("command", COMMAND)
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(f"{module}.__main__") is not None
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert f"!{module.partition('.')[0]}" in allowed


def test_the_image_has_the_files_of_the_server_and_an_unprivileged_user() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / path).exists() for path in allowed)
    assert {"db", "handlers", "studio", "openapi/openapi.json", "pyproject.toml", "wsgi.py"} <= set(allowed)
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_the_image_can_be_built_with_each_lock_file_of_a_server() -> None:
    copied = re.findall(r"^COPY (requirements.*) \./$", DOCKERFILE, re.MULTILINE)
    assert copied[0].split() == ["requirements.txt", "requirements-c2pa.txt", "requirements-local.txt"]
    assert "ARG REQUIREMENTS=requirements.txt" in DOCKERFILE
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in copied[0].split()} <= set(allowed)


def test_the_image_and_compose_run_in_production_mode() -> None:
    assert ENVIRONMENT["SARTIQ_ENV"] == "production"
    assert {service["environment"].get("SARTIQ_ENV", "production") for service in OWN_SERVICES.values()} == {
        "production"
    }


def test_s31_the_image_serves_a_mock_at_any_address_and_a_development_server_only_on_request() -> None:
    development = ENVIRONMENT | {"SARTIQ_ENV": "development"}
    assert Settings.from_environment(development | {"SARTIQ_MODE": "mock"}).host == "0.0.0.0"
    with pytest.raises(InvalidSettings, match="HOST must be a loopback address"):
        Settings.from_environment(development)
    assert Settings.from_environment(development | {"ALLOW_PUBLIC_DEVELOPMENT": "1"}).mode == "live"


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_no_process_of_the_image_starts_without_a_secret_key(name: str, tmp_path: Path) -> None:
    _, *arguments = OWN_SERVICES[name].get("command", COMMAND)
    environment = {
        variable: string.Template(value).substitute(PATH=os.defpath)
        for variable, value in ENVIRONMENT.items()
    }
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        # Inherit nothing. The volume exists only in a container.
        env=environment | {"DATA_DIR": str(tmp_path), "MAIL": "off"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("Not started: SECRET_KEY must be set"), process.stderr
    assert list(tmp_path.iterdir()) == []
