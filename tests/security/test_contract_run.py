"""The contract run skips no check, operation or phase, and every operation rejects invalid credentials."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from handlers.app import Application
from tests.contract import run, selftest
from tests.contract.fuzzing import checks
from tests.contract.operations import BASE, OPERATIONS
from tests.support.auth import assert_challenge
from tests.support.client import send_request
from tests.support.failing_subtests import FailingSubtests

FUZZING = Path(run.__file__).parent / "fuzzing"
INVALID_CREDENTIALS = {
    "missing": None,
    "empty": "Bearer ",
    "without a scheme": "invented",
    "garbage": "Bearer invented",
    "three meaningless parts": "Bearer a.b.c",
    "unsigned": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJkZW1vIn0.",
    "Basic": "Basic ZGVtbzpkZW1v",
    "another scheme": "Digest username=demo",
}


def list_keys(node: Any) -> list[str]:
    """Return all keys of a configuration, at every depth."""
    if isinstance(node, list):
        return [key for child in node for key in list_keys(child)]
    return (
        [*node, *(key for child in node.values() for key in list_keys(child))]
        if isinstance(node, dict)
        else []
    )


def test_s28_the_configuration_disables_no_check_and_no_phase() -> None:
    configuration = tomllib.loads((FUZZING / "schemathesis.toml").read_text(encoding="utf-8"))
    assert configuration["warnings"] == {"fail-on": True}
    assert len(configuration["auth"]["wfc"]["peers"]) == 2
    assert configuration["cache"] == {"enabled": False}
    without_cache = {name: value for name, value in configuration.items() if name != "cache"}
    assert "enabled" not in list_keys(without_cache)
    # Selections set the statuses that operations may return. They must not exclude an operation from a check.
    for selection in configuration["operations"]:
        selectors = {"include-operation-id", "include-method", "exclude-operation-id"}
        assert set(selection) - selectors == {"checks"}
        assert list(selection["checks"]) == ["positive_data_acceptance"]
        assert list(selection["checks"]["positive_data_acceptance"]) == ["expected-statuses"]


def test_s28_the_peers_are_among_the_identities() -> None:
    configuration = tomllib.loads((FUZZING / "schemathesis.toml").read_text(encoding="utf-8"))
    identities = json.loads((FUZZING / "identities.json").read_text(encoding="utf-8"))["auth"]
    names = [identity["name"] for identity in identities]
    assert set(configuration["auth"]["wfc"]["peers"]) < set(names)


def test_s28_the_commands_run_every_phase_and_the_walks() -> None:
    everything = run.parse_arguments([])
    assert run.list_steps(everything.phases) == [run.fuzz_command, run.walk_command]
    fuzz = run.fuzz_command("http://localhost", everything, seed=1)
    options = [word for word in fuzz if word.startswith("-")]
    assert options == ["--config-file", "--url", "--seed", "--max-examples", "--phases"]
    assert fuzz[-1] == "examples,coverage,fuzzing"
    assert run.walk_command("http://localhost", everything, seed=1)[2:] == [
        "tests.contract.fuzzing.stateful", "--seed", "1",
        "--document", str(run.LOG_FOLDER / "closed-3.1.json"),
    ]  # fmt: skip


def test_s28_both_commands_read_the_openapi_3_0_form_on_request() -> None:
    options = run.parse_arguments(["--document", "3.0"])
    for command in (run.fuzz_command, run.walk_command):
        document = run.LOG_FOLDER / "closed-3.0.json"
        assert str(document) in command("http://localhost", options, 1)
        assert json.loads(document.read_bytes())["openapi"] == "3.0.3"


def test_s28_the_custom_checks_are_registered() -> None:
    known = set(schemathesis.checks.CHECKS.get_all_names())
    assert {checks.oauth2_is_enforced.__name__, checks.idempotency_key_replays_response.__name__} <= known


def test_s28_every_operation_rejects_invalid_credentials(
    application: Application, failing_subtests: FailingSubtests
) -> None:
    """The application has no database: rejected requests do not reach it."""
    secured = [operation for operation in OPERATIONS.values() if not operation.is_public]
    assert secured
    for operation in secured:
        target = BASE + operation.path
        for parameter in operation.path_names():
            target = target.replace(f"{{{parameter}}}", "01990000-5eed-7000-8000-000400000001")
        for kind, credential in INVALID_CREDENTIALS.items():
            with failing_subtests.test(f"{operation.operation_id} {kind}"):
                headers = {} if credential is None else {"authorization": credential}
                response = send_request(application, operation.method, target, headers)
                assert response.status == 401
                assert_challenge(response)
                assert response.json()["code"] in ("not_authenticated", "invalid_token")


def test_s28_the_contract_run_finds_seeded_defects(long_form: bool) -> None:
    if not long_form:
        pytest.skip("starts eighteen servers and takes minutes; `make security` runs it")
    assert selftest.main([]) == 0
