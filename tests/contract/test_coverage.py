"""The coverage of the contract counts responses on the wire; a missing response fails the run."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import httpx
import pytest

from handlers.app import Application, create_app
from studio.infrastructure.settings import Settings
from tests.contract.coverage import recording
from tests.contract.coverage.recording import (
    Cell,
    load_recorded_cells,
    response_cells,
    start_recording,
)
from tests.contract.coverage.reports import COLORS, build_badge, write_reports
from tests.contract.coverage.run import Coverage, declared_cells
from tests.support.app import SwitchedDatabase, create_test_app
from tests.support.client import send_request
from tools.servers.server import WRAPPER, running_server, wrap

PROBLEM = "application/problem+json"
DELETED, BRAND = Cell("delete_brand", 204, None), Cell("get_brand", 200, "application/json")
IMAGES = {Cell("get_shared_image", 200, f"image/{kind}") for kind in ("webp", "png", "jpeg")}


def test_every_documented_response_is_required() -> None:
    declared = declared_cells()
    assert {
        DELETED,
        BRAND,
        *IMAGES,
        Cell("get_brand", 304, None),
        Cell("get_brand", 404, PROBLEM),
    } <= declared
    assert Cell("get_brand", 201, "application/json") not in declared


def test_missing_responses_are_listed_first_and_fail() -> None:
    webp = Cell("get_shared_image", 200, "image/webp")
    coverage = Coverage({DELETED, BRAND, *IMAGES}, {DELETED, BRAND, *IMAGES} - {webp, DELETED})
    assert not coverage.is_complete
    assert coverage.lines() == [
        "                  200 204",
        "delete_brand            !",
        "get_shared_image  2/3",
        "get_brand           +",
        "",
        "Not produced by any test:",
        "  delete_brand 204 (no body)",
        "  get_shared_image 200 image/webp",
        "",
        "3 of 5 responses: 60.0 %",
    ]


def test_the_total_is_not_rounded_up() -> None:
    declared = {Cell("get_brand", status, PROBLEM) for status in range(1, 3001)}
    assert (
        Coverage(declared, declared - {Cell("get_brand", 7, PROBLEM)}).lines()[-1]
        == "2999 of 3000 responses: 99.9 %"
    )
    assert Coverage(declared, declared).is_complete


def test_undocumented_responses_are_listed_and_fail() -> None:
    coverage = Coverage({BRAND}, {BRAND, Cell("get_brand", 418, None)})
    assert not coverage.is_complete
    assert "  get_brand 418 (no body)" in coverage.lines()
    assert coverage.lines()[-1] == "1 of 1 responses: 100.0 %"


def test_the_coverage_is_written_as_json_junit_and_badge(tmp_path: Path) -> None:
    coverage = Coverage({DELETED, BRAND}, {BRAND, Cell("get_brand", 418, None)})
    json_file, junit, badge = write_reports(coverage, tmp_path / "reports")
    assert json.loads(json_file.read_text("utf-8")) == {
        "declared": 2,
        "produced": 1,
        "percent": 50.0,
        "complete": False,
        "operations": [
            {
                "operation_id": "delete_brand",
                "responses": [{"status": 204, "media_type": None, "produced": False}],
            },
            {
                "operation_id": "get_brand",
                "responses": [{"status": 200, "media_type": "application/json", "produced": True}],
            },
        ],
        "undeclared": [{"operation_id": "get_brand", "status": 418, "media_type": None}],
    }
    (suite,) = ElementTree.parse(junit).getroot()
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "2",
        "errors": "0",
        "skipped": "0",
    }
    assert [
        (case.get("classname"), case.get("name"), [failure.get("message") for failure in case])
        for case in suite
    ] == [
        ("delete_brand", "204 (no body)", ["no test produced this response"]),
        ("get_brand", "200 application/json", []),
        ("get_brand", "418 (no body)", ["the contract does not declare this response"]),
    ]
    svg = ElementTree.parse(badge).getroot()
    assert svg.get("aria-label") == "contract coverage: 50 %"
    assert COLORS[-1][1] in badge.read_text("utf-8")
    assert 'fill="#2e7d32"' in build_badge("contract coverage", 100.0)


@pytest.mark.parametrize(
    ("method", "path", "status", "operations"),
    [
        ("GET", "/api/v1/users/me", 200, {"get_current_user"}),
        ("GET", "/api/v1/users/01990000-5eed-7000-8000-000100000001", 200, {"get_user"}),
        ("HEAD", "/api/v1/users/me", 200, set()),
        ("OPTIONS", "/api/v1/users/me", 204, set()),
        ("TRACE", "/api/v1/brands/", 405, {"list_brands", "create_brand"}),
        ("GET", "/api/v1/brands/a/b", 404, set()),
        ("GET", "/", 200, set()),
    ],
)
def test_a_response_counts_for_its_operation(
    method: str, path: str, status: int, operations: set[str]
) -> None:
    assert {cell.operation_id for cell in response_cells(method, path, status, None)} == operations


def test_responses_in_process_are_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Set to its current value, so that monkeypatch restores it after the test.
    monkeypatch.setattr(Application, "__call__", Application.__call__)
    app = create_test_app(tmp_path / "server")
    send_request(app, "GET", "/api/v1/brands/")
    assert load_recorded_cells(tmp_path / "responses") == set()
    start_recording(tmp_path / "responses")
    for _ in range(2):
        assert send_request(app, "GET", "/api/v1/brands/").status == 401
    app.bridge.pool.shutdown()
    assert load_recorded_cells(tmp_path / "responses") == {Cell("list_brands", 401, PROBLEM)}
    (file,) = (tmp_path / "responses").iterdir()
    assert json.loads(file.read_text("utf-8")) == ["list_brands", 401, PROBLEM]


def test_responses_of_a_mock_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Application, "__call__", Application.__call__)
    start_recording(tmp_path / "coverage")
    mock = create_app(Settings(mode="mock", data_dir=tmp_path), database=SwitchedDatabase())
    assert send_request(mock, "GET", "/api/v1/brands/x", {"prefer": "code=200"}).status == 200
    mock.bridge.pool.shutdown()
    assert load_recorded_cells(tmp_path / "coverage") == set()


@pytest.mark.slow("it starts a server")
def test_responses_of_a_running_server_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(recording.ENVIRONMENT_VARIABLE, str(tmp_path / "responses"))
    monkeypatch.setenv(WRAPPER, "tests.contract.coverage.serve")
    with running_server(tmp_path / "server", RENDER_WORKERS="0", SARTIQ_SEED="demo") as server:
        assert httpx.get(f"{server.url}/brands/").status_code == 401
    cells = {Cell("list_brands", 401, PROBLEM), Cell("readiness", 200, "application/json")}
    assert cells <= load_recorded_cells(tmp_path / "responses") <= declared_cells()


def test_nothing_is_recorded_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WRAPPER, raising=False)
    assert wrap("handlers --prepare-only") == ["handlers", "--prepare-only"]
    monkeypatch.setenv(WRAPPER, "tests.contract.coverage.serve")
    assert wrap("handlers") == ["tests.contract.coverage.serve", "handlers"]
    assert wrap("studio.jobs worker") == ["studio.jobs", "worker"]
