"""The code samples of the published contract run unchanged on a server with the demo data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.contract.document import Document
from tests.e2e.sample_runs import MAILED, PROGRAMS, SUPERUSER, SampleRuns, prepare_runs
from tests.e2e.sample_sequence import REJECTED, run_all
from tools.review import tools
from tools.review.changes import list_changes
from tools.servers.server import ROOT, RunningServer, running_server

CONTRACT = Document(json.loads((ROOT / "openapi" / "openapi.json").read_bytes()))
# Requests of each kind: JSON, a form, a query, an ETag, a new resource, images, an event stream.
REPRESENTATIVE = (
    "login", "list_brands", "search", "get_product", "create_brand", "update_brand", "delete_style",
    "add_product_image", "create_presigned_url", "put_upload", "get_generation", "get_prediction_image",
    "stream_generation_events", "receive_task_webhook", "get_docs",
)  # fmt: skip
EXPECTED = {
    "login": "access_token",
    "list_brands": "Atelier Nord",
    "search": "product",
    "get_product": "AN-2041",
    "create_brand": "Atelier Nord Kids",
    "update_brand": "atelier-nord",
    "add_product_image": "primary",
    "create_presigned_url": "signature=",
    "get_generation": "completed",
    "stream_generation_events": "event: ",
}
"""Text that a sample prints, by operation."""
BATCHES = ("batch_products", "batch_shots", "batch_predictions")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A separate server, because the samples change rows."""
    folder = tmp_path_factory.mktemp("samples")
    # These samples generate nothing. Workers would cut out the photo that each language uploads.
    with running_server(folder, SARTIQ_ENV="development", RENDER_WORKERS="0") as server:
        yield server


def get_contract(server: RunningServer, name: str = "openapi.json") -> dict[str, Any]:
    """Return the document that a server publishes."""
    contract: dict[str, Any] = httpx.get(f"{server.url}/{name}", timeout=30).raise_for_status().json()
    return contract


def get_samples(contract: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the sources of the samples by operationId and label."""
    return {
        operation.operation_id: {
            sample["label"]: sample["source"] for sample in operation.definition["x-codeSamples"]
        }
        for operation in Document(contract).operations()
    }


@pytest.fixture(scope="module")
def samples(server: RunningServer) -> dict[str, dict[str, str]]:
    return get_samples(get_contract(server))


def test_samples_that_need_a_superuser_or_an_emailed_token_say_so(samples: dict[str, dict[str, str]]) -> None:
    roles = CONTRACT.spec["x-permissions"]
    for operation in CONTRACT.operations():
        permission = operation.definition.get("x-permission")
        mailed = "e-mailed token" in operation.definition.get("x-public", "")
        for source in samples[operation.operation_id].values():
            assert (SUPERUSER in source) == (
                roles.get(permission) == ["superuser"] or operation.operation_id == "add_member"
            )
            assert (MAILED in source) == ("MAILED_TOKEN" in source) == mailed


def test_samples_stream_events_and_stop_waiting(samples: dict[str, dict[str, str]]) -> None:
    """Every operation with `Prefer` waits; its client gives up later than the server."""
    waiting = {"curl": "--max-time 45", "Python": "timeout=45", "JavaScript": "AbortSignal.timeout(45_000)"}
    streaming = {"curl": "-N --max-time 300", "Python": "httpx.stream(", "JavaScript": ".getReader()"}
    for operation in CONTRACT.operations():
        for language, source in samples[operation.operation_id].items():
            if any(parameter["name"] == "Prefer" for parameter in operation.parameters):
                assert "wait=30" in source
                assert waiting[language] in source
            is_stream = operation.operation_id == "stream_generation_events"
            assert (streaming[language] in source) == is_stream


def test_both_forms_of_the_contract_and_the_page_have_the_same_samples(
    server: RunningServer, samples: dict[str, dict[str, str]]
) -> None:
    assert get_samples(get_contract(server, "openapi-3.0.json")) == samples
    by_name = {
        operation: {label.lower(): source for label, source in sources.items()}
        for operation, sources in samples.items()
    }
    assert get_contract(server, "docs/code-samples.json") == by_name


@pytest.mark.parametrize(
    "language",
    [
        "curl",
        pytest.param("Python", marks=pytest.mark.slow("one language proves the values of the samples")),
        pytest.param("JavaScript", marks=pytest.mark.slow("one language proves the values of the samples")),
    ],
)
def test_representative_samples_run_as_printed(
    language: str, server: RunningServer, samples: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    runs = prepare_runs(server, tmp_path, language, samples)
    for name in REPRESENTATIVE:
        if name == "put_upload":
            url = re.search(r"https?://[^\"'\s]*signature=[^\"'\s]*", runs.outputs["create_presigned_url"])
            assert url
            runs.environment["UPLOAD_URL"] = url[0]
        runs.run(name)
    assert runs.failures == {}
    assert {name for name, text in EXPECTED.items() if text not in runs.outputs[name]} == set()
    assert (tmp_path / "image.webp").read_bytes()[8:12] == b"WEBP"


@pytest.mark.parametrize("language", PROGRAMS)
@pytest.mark.slow("it starts a server and runs the samples of all operations: two minutes for each language")
def test_the_samples_of_all_operations_run_in_an_order(language: str, tmp_path: Path) -> None:
    module = "tests.e2e.public_host_server"
    with running_server(tmp_path / "server", module, SARTIQ_ENV="development") as server:
        runs = prepare_runs(server, tmp_path / "work", language, get_samples(get_contract(server)))
        run_all(runs)
    assert runs.failures.keys() == REJECTED, runs.failures
    assert all("409" in text for text in runs.failures.values()), runs.failures
    assert runs.outputs.keys() == runs.samples.keys()
    rejected = {name for name in BATCHES if not re.search(r"refused_count\W+0\b", runs.outputs[name])}
    assert rejected == set()


@pytest.mark.slow("it starts a process for each sample; tests/contract/test_roles.py covers the rule")
def test_samples_that_need_a_superuser_fail_for_others(
    server: RunningServer, samples: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """The demo account gets 403, or 404 where the response must not reveal an account."""
    runs: SampleRuns = prepare_runs(server, tmp_path, "curl", samples)
    for name, sources in samples.items():
        if SUPERUSER in sources["curl"]:
            done = runs.start(name, runs.environment["DEMO_TOKEN"])
            assert done.returncode != 0, name
            assert ("404" if name == "add_member" else "403") in done.stderr + done.stdout, name


def test_a_sample_fails_if_the_server_rejects_the_request(
    server: RunningServer, samples: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    for language in PROGRAMS:
        sources = {"list_brands": samples["list_brands"][language]}
        done = SampleRuns(server, tmp_path, language, sources).start("list_brands", "not a token")
        assert done.returncode != 0
        assert "401" in done.stderr + done.stdout


@pytest.mark.parametrize("name", ["openapi.json", "openapi-3.0.json"])
@pytest.mark.slow("Redocly and Spectral read 1.4 MB: half a minute")
def test_the_linters_find_no_more_in_the_published_document(
    server: RunningServer, name: str, tmp_path: Path
) -> None:
    published = tmp_path / name
    # Spectral accepts no http URL, which this server has.
    contract = {**get_contract(server, name), "servers": CONTRACT.spec["servers"]}
    published.write_text(json.dumps(contract), encoding="utf-8")
    found = []
    for path in (ROOT / "openapi" / name, published):
        report = json.loads(tools.redocly("lint", str(path), "--format", "json").stdout)
        found.append([(problem["ruleId"], problem["message"]) for problem in report["problems"]])
    assert found[0] == found[1]
    if name == "openapi.json":
        assert tools.run_spectral(published, tmp_path) == []


@pytest.mark.slow("tests/contract/test_every_operation.py: the served contract adds nothing but samples")
def test_samples_are_no_change_for_clients(server: RunningServer) -> None:
    bundle, published = CONTRACT.spec, get_contract(server)
    assert list_changes({**bundle, "servers": published["servers"]}, published) == []
