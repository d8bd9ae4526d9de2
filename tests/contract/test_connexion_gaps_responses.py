"""Gaps of stock Connexion in responses: undocumented responses, problems and leaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from handlers.pipeline.errors import build_problem
from tests.contract.mini.server import (
    SUPERUSER,
    RecordingDatabase,
    build_token,
    create_mini_app,
    load_mini_document,
)
from tests.support.client import ClientResponse, send_request

Call = Callable[..., ClientResponse]

BREAKS = {
    "status": "the status 202 is not documented",
    "media-type": "the media type 'application/vnd.other+json' is not documented",
    "body": "/name:",
    "extra": "'color' was unexpected",
    "write-only": "/secret:",
    "exclusive-bound": "/price:",
    "null": "/name:",
    "not-a-number": "/name:",
    "unserializable": "the body cannot be encoded",
    "uuid": "/id:",
    "header-missing": "the header X-Count is missing",
    "header-value": "the header X-Count has the value 'zero'",
    "body-on-204": "a body that is not documented",
    "bytes": "the body is not JSON",
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_response_that_breaks_the_contract_is_a_logged_500_without_commit(
    call: Call, outcomes: list[str], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    response = call("POST", f"/misbehave/{how}", {"x-request-id": "broken-1"})
    assert response.status == 500
    assert response.json() == {
        "type": "http://localhost:8000/api/v1/problems/internal_error",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "Internal server error",
        "code": "internal_error",
        "request_id": "broken-1",
    }
    assert outcomes == ["rolled back"]
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "misbehave" in record.getMessage()
    assert BREAKS[how] in record.getMessage()


def test_a_valid_response_is_committed(call: Call, outcomes: list[str]) -> None:
    assert call("POST", "/misbehave/well").status == 200
    assert outcomes == ["committed"]


@pytest.mark.parametrize("how", ["undocumented-problem", "undocumented-403"])
def test_a_problem_with_an_undocumented_status_is_a_logged_500(
    call: Call, outcomes: list[str], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    response = call("POST", f"/misbehave/{how}")
    assert (response.status, response.json()["code"]) == (500, "internal_error")
    assert outcomes == ["rolled back"]
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "misbehave returned 40" in record.getMessage()


def test_s23_a_problem_that_breaks_the_contract_is_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    document = load_mini_document()
    document["components"]["schemas"]["Problem"]["properties"]["code"] = {"type": "string", "enum": ["other"]}
    app = create_mini_app(document)
    assert send_request(app, "GET", "/api/v1/widgets/").status == 500
    assert "list_widgets returned 401: /code" in caplog.text


@pytest.mark.parametrize("how", ["crash", "abort", "missing-table"])
def test_s23_an_unexpected_error_is_a_generic_500_without_details(
    call: Call, outcomes: list[str], how: str
) -> None:
    response = call("POST", f"/misbehave/{how}")
    assert (response.status, response.json()["detail"]) == (500, "Internal server error")
    assert outcomes == ["rolled back"]
    for word in (b"hunter2", b"teapot", b"secrets", b"Traceback", b"SELECT"):
        assert word not in response.body


def test_an_unavailable_database_is_503_with_retry_after(call: Call, outcomes: list[str]) -> None:
    response = call("POST", "/misbehave/database-away")
    assert (response.status, response.json()["code"]) == (503, "unavailable")
    assert response.headers["retry-after"] == "5"
    assert b"10.1.2.3" not in response.body
    assert outcomes == ["rolled back"]


def test_a_business_rule_is_a_409_with_its_code(call: Call, outcomes: list[str]) -> None:
    response = call("POST", "/misbehave/conflict")
    assert (response.status, response.json()["code"]) == (409, "in_use")
    assert outcomes == ["rolled back"]


def test_s23_every_layer_returns_the_same_problem_shape(mini: Any, call: Call) -> None:
    json_type = {"content-type": "application/json"}
    responses = [
        send_request(mini, "GET", "/api/v1/nothing"),
        send_request(mini, "BREW", "/api/v1/widgets/"),
        send_request(mini, "GET", "/api/v1/widgets/"),
        call("GET", "/widgets/", {"accept": "text/html"}),
        call("GET", "/widgets/?limit=%"),
        call("GET", "/widgets/?limit=x"),
        call("POST", "/widgets/", json_type, body=b"{"),
        call("POST", "/widgets/", {"content-type": "text/plain"}, body=b"{}"),
        call("POST", "/widgets/", json_type, body=b" " * 1_000_001),
        call("DELETE", "/widgets/01990000-5eed-7000-8000-000400000001"),
        call("GET", "/widgets/01990000-5eed-7000-8000-000400000002"),
        call("POST", "/misbehave/conflict"),
        call("POST", "/misbehave/crash"),
        call("POST", "/misbehave/database-away"),
    ]
    assert [response.status for response in responses] == [
        404,
        405,
        401,
        406,
        400,
        422,
        400,
        415,
        413,
        403,
        404,
        409,
        500,
        503,
    ]
    for response in responses:
        problem = response.json()
        assert response.headers["content-type"] == "application/problem+json"
        required = ["required_permission"] if response.status == 403 else []
        assert list(problem) == ["type", "title", "status", "detail", "code", *required, "request_id"]
        assert problem["status"] == response.status
        assert problem["type"] == f"http://localhost:8000/api/v1/problems/{problem['code']}"
        assert problem["request_id"] == response.headers["x-request-id"]
        assert int(response.headers["content-length"]) == len(response.body)


def test_s23_an_error_of_the_error_handling_itself_is_still_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = create_mini_app()
    calls: list[Exception] = []

    def fail_once(error: Exception) -> Any:
        calls.append(error)
        if len(calls) == 1:
            raise RuntimeError("the handler of errors has an error")
        return build_problem(error)

    monkeypatch.setattr("handlers.pipeline.errors.build_problem", fail_once)
    assert send_request(app, "GET", "/api/v1/nothing").json()["code"] == "internal_error"


def test_a_failed_commit_is_a_500(call: Call) -> None:
    class Failing(RecordingDatabase):
        def transaction(self, write: bool) -> Any:
            from contextlib import contextmanager

            @contextmanager
            def failing() -> Any:
                yield
                raise RuntimeError("disk full")

            return failing()

    app = create_mini_app(database=Failing())
    headers = {"authorization": f"Bearer {build_token()}"}
    assert send_request(app, "POST", "/api/v1/widgets/", headers, as_json={"name": "Lamp"}).status == 500


def test_a_file_is_streamed_from_disk_with_its_length(mini: Any) -> None:
    response = send_request(mini, "GET", "/api/v1/file")
    assert response.status == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert int(response.headers["content-length"]) == len(response.body) > 1000
    assert send_request(mini, "GET", "/api/v1/file", {"if-none-match": '"one"'}).status == 304


@pytest.mark.parametrize("chunk_bytes", [1, 7, 100_000])
def test_a_file_is_streamed_whole_whatever_its_size(
    mini: Any, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    whole = send_request(mini, "GET", "/api/v1/file").body
    monkeypatch.setattr("handlers.pipeline.wsgi_bridge.FILE_CHUNK_BYTES", chunk_bytes)
    assert send_request(mini, "GET", "/api/v1/file").body == whole
    # The last chunk can be a full one.
    monkeypatch.setattr("handlers.pipeline.wsgi_bridge.FILE_CHUNK_BYTES", len(whole))
    assert send_request(mini, "GET", "/api/v1/file").body == whole


def test_a_missing_file_is_a_problem_and_not_a_partial_response(
    mini: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish(*_: Any) -> Any:
        raise FileNotFoundError("/secret/place")

    monkeypatch.setattr("handlers.pipeline.wsgi_bridge._open_and_read", vanish)
    response = send_request(mini, "GET", "/api/v1/file")
    assert (response.status, response.json()["code"]) == (500, "internal_error")
    assert b"secret" not in response.body


def test_json_is_written_without_whitespace(call: Call) -> None:
    assert b": " not in call("GET", "/widgets/me").body


def test_204_has_neither_body_nor_content_type(mini: Any) -> None:
    headers = {"authorization": f"Bearer {build_token(sub=SUPERUSER)}"}
    response = send_request(mini, "DELETE", "/api/v1/widgets/01990000-5eed-7000-8000-000400000001", headers)
    assert (response.status, response.body) == (204, b"")
    assert "content-type" not in response.headers
