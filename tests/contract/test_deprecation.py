"""All responses of deprecated operations have the headers of RFC 9745 and RFC 8594; no others have them.

What has ended returns 410.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from handlers.app import Application
from handlers.common.responses import ApiResponse
from handlers.contract.errors import ContractError
from tests.contract.mini import open_things, widgets
from tests.contract.mini.server import build_token, create_mini_app, load_mini_document
from tests.contract.mini.widgets import WIDGET
from tests.support.client import ClientResponse, send_request

SINCE, SUNSET = "2026-03-01T00:00:00Z", "2027-03-01T12:30:00Z"
DATES = {"deprecated": True, "x-deprecated-at": SINCE, "x-sunset": SUNSET}
WIDGET_PATH = f"/api/v1/widgets/{WIDGET['id']}"
EXPECTED_HEADERS = {"deprecation": "@1772323200", "sunset": "Mon, 01 Mar 2027 12:30:00 GMT"}


def deprecated_document() -> dict[str, Any]:
    """Return the mini contract with four deprecated operations, one of which never ends."""
    document = load_mini_document()
    paths = document["paths"]
    paths["/widgets/{widget_id}"]["get"] |= {**DATES, "x-replacement": "add_photo"}
    paths["/widgets/me"]["get"] |= {**DATES, "x-replacement": "get_widget"}
    paths["/misbehave/{how}"]["post"] |= {**DATES, "x-replacement": "Nothing misbehaves any more."}
    paths["/token"]["post"] |= {"deprecated": True, "x-deprecated-at": SINCE, "x-documented": True}
    return document


@pytest.fixture(scope="module")
def app() -> Iterator[Application]:
    """The application with this contract."""
    app = create_mini_app(deprecated_document())
    yield app
    app.bridge.pool.shutdown()


def deprecation_headers(response: ClientResponse) -> dict[str, str]:
    """Return the deprecation headers of a response."""
    return {
        name: response.headers[name] for name in ("deprecation", "sunset", "link") if name in response.headers
    }


def request_as_user(app: Application, method: str, target: str, **headers: str) -> ClientResponse:
    """Return the response to a request with a token."""
    return send_request(app, method, target, {"authorization": f"Bearer {build_token()}", **headers})


def documentation_url(operation_id: str, tag: str = "widgets") -> str:
    """Return the link to the documentation of an operation."""
    return f'</api/v1/docs#/{tag}/{operation_id}>; rel="deprecation"; type="text/html"'


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_response_has_the_dates_and_the_successor(app: Application, method: str) -> None:
    response = request_as_user(app, method, WIDGET_PATH)
    assert response.status == 200
    successor = f'<{WIDGET_PATH}/photos>; rel="successor-version"'
    assert deprecation_headers(response) == {
        **EXPECTED_HEADERS,
        "link": f"{documentation_url('get_widget')}, {successor}",
    }
    not_modified = request_as_user(app, method, WIDGET_PATH, **{"if-none-match": response.headers["etag"]})
    assert (not_modified.status, deprecation_headers(not_modified)) == (304, deprecation_headers(response))


def test_a_successor_with_more_path_parameters_is_linked_by_its_documentation(app: Application) -> None:
    successor = '</api/v1/docs#/widgets/get_widget>; rel="successor-version"'
    assert deprecation_headers(request_as_user(app, "GET", "/api/v1/widgets/me")) == {
        **EXPECTED_HEADERS,
        "link": f"{documentation_url('get_my_widget')}, {successor}",
    }


ERRORS = {
    401: lambda app: send_request(app, "GET", WIDGET_PATH),
    404: lambda app: request_as_user(app, "GET", "/api/v1/widgets/01990000-5eed-7000-8000-0000000000ff"),
    406: lambda app: request_as_user(app, "GET", WIDGET_PATH, accept="text/html"),
    422: lambda app: request_as_user(app, "GET", WIDGET_PATH + "?surprise=1"),
    409: lambda app: send_request(app, "POST", "/api/v1/misbehave/conflict"),
    500: lambda app: send_request(app, "POST", "/api/v1/misbehave/crash"),
    503: lambda app: send_request(app, "POST", "/api/v1/misbehave/database-away"),
}


@pytest.mark.parametrize("status", ERRORS)
def test_errors_have_the_headers_too(app: Application, status: int) -> None:
    response = ERRORS[status](app)
    assert response.status == status
    assert {name: response.headers.get(name) for name in EXPECTED_HEADERS} == EXPECTED_HEADERS
    assert response.headers["link"].startswith("</api/v1/docs#/")


def test_an_operation_without_a_successor_links_only_its_documentation(app: Application) -> None:
    response = send_request(app, "POST", "/api/v1/misbehave/well")
    assert (response.status, deprecation_headers(response)["link"]) == (
        200,
        documentation_url("misbehave", "open-things"),
    )


def test_what_the_public_documentation_has_has_no_sunset(app: Application) -> None:
    response = send_request(app, "POST", "/api/v1/token")
    assert deprecation_headers(response) == {
        "deprecation": EXPECTED_HEADERS["deprecation"],
        "link": documentation_url("sign_in", "open-things"),
    }


def test_links_of_the_handler_are_kept(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    response = ApiResponse(200, WIDGET, {"Link": '</next>; rel="next"'}, with_etag=True)
    monkeypatch.setattr(app.endpoints["get_my_widget"], "_handler", lambda: response)
    link = request_as_user(app, "GET", "/api/v1/widgets/me").headers["link"]
    assert link.startswith(f'</next>; rel="next", {documentation_url("get_my_widget")}')


def test_path_values_are_quoted_in_headers(app: Application) -> None:
    deprecation = app.endpoints["get_widget"]._operation.deprecation
    assert deprecation is not None
    link = deprecation.headers({"widget_id": '1>; rel="next", <x'})["link"]
    assert "</api/v1/widgets/1%3E%3B%20rel%3D%22next%22%2C%20%3Cx/photos>" in link


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/api/v1/widgets/"),
        ("PATCH", WIDGET_PATH),
        ("BREW", WIDGET_PATH),
        ("OPTIONS", WIDGET_PATH),
        ("GET", "/api/v1/nothing"),
        ("GET", "/api/v1/file"),
    ],
)
def test_other_responses_have_no_deprecation_headers(app: Application, method: str, target: str) -> None:
    assert deprecation_headers(request_as_user(app, method, target)) == {}


def test_responses_are_validated_with_these_headers() -> None:
    document = deprecated_document()
    # Copied: YAML anchors share the response with other operations.
    response = {**document["paths"]["/misbehave/{how}"]["post"]["responses"]["200"]}
    text = {"type": "string", "enum": ["@1772323200"]}
    response["headers"] = {**response["headers"], "Deprecation": {"required": True, "schema": text}}
    document["paths"]["/misbehave/{how}"]["post"]["responses"]["200"] = response
    assert send_request(create_mini_app(document), "POST", "/api/v1/misbehave/well").status == 200
    text["enum"] = ["@1"]
    assert send_request(create_mini_app(document), "POST", "/api/v1/misbehave/well").status == 500


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"x-deprecated-at": None}, "get_file is deprecated and needs x-deprecated-at"),
        ({"x-sunset": "soon"}, "get_file is deprecated and needs x-sunset"),
        ({"x-sunset": "2027-03-01"}, "get_file is deprecated and needs x-sunset"),
        ({"x-sunset": "2027-03-01T00:00:00+01:00"}, "get_file is deprecated and needs x-sunset"),
        (
            {"x-sunset": "2026-08-27T23:59:59Z"},
            "get_file ends less than 180 days after x-deprecated-at: write '2026-08-28T00:00:00Z' or later",
        ),
        ({"x-replacement": "get_castle"}, "get_file is replaced by get_castle, which does not exist"),
        ({"x-replacement": None}, "get_file is deprecated and needs x-replacement"),
        ({"deprecated": False}, "get_file is not deprecated and has x-deprecated-at"),
        ({"x-documented": True}, "get_file is in the public documentation (x-documented), so it never ends"),
        (
            {"deprecated": False, "responses": {"410": {"description": "ended"}}},
            "get_file has only the response 410 and is not deprecated",
        ),
    ],
)
def test_an_invalid_deprecation_is_rejected_at_start(definition: dict[str, Any], message: str) -> None:
    document = load_mini_document()
    document["paths"]["/file"]["get"] |= {**DATES, "x-replacement": "get_widget", **definition}
    with pytest.raises(ContractError) as error:
        create_mini_app(document)
    assert message in str(error.value)


def ended_document() -> dict[str, Any]:
    """Return the mini contract with two operations that have ended."""
    document = load_mini_document()
    document["components"]["schemas"]["Problem"]["properties"] |= {
        "sunset": {"type": "string", "format": "date-time"},
        "replacement": {"type": "string"},
    }
    problem = document["components"]["responses"]["400"]
    for path, method, replacement in (
        ("/widgets/me", "get", "get_widget"),
        ("/file", "get", "Files are not served any more."),
    ):
        definition = document["paths"][path][method] | {**DATES, "x-replacement": replacement}
        document["paths"][path][method] = {**definition, "responses": {"410": problem, "500": problem}}
    return document


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    """The application with this contract. The handlers of both operations are removed."""
    monkeypatch.delattr(widgets, "get_my_widget")
    monkeypatch.delattr(open_things, "get_file")
    app = create_mini_app(ended_document())
    yield app
    app.bridge.pool.shutdown()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_operation_that_has_ended_returns_410_without_a_handler(ended: Application, method: str) -> None:
    response = send_request(ended, method, "/api/v1/widgets/me?surprise=1")
    assert response.status == 410
    successor = '</api/v1/docs#/widgets/get_widget>; rel="successor-version"'
    assert deprecation_headers(response) == {
        **EXPECTED_HEADERS,
        "link": f"{documentation_url('get_my_widget')}, {successor}",
    }
    if method == "HEAD":
        assert response.body == b""
        return
    assert response.json() == {
        "type": "http://localhost:8000/api/v1/problems/sunset",
        "title": "Gone",
        "status": 410,
        "detail": "`get_my_widget` has ended on 2027-03-01: use `get_widget`",
        "code": "sunset",
        "sunset": SUNSET,
        "replacement": "get_widget",
        "request_id": response.headers["x-request-id"],
    }


def test_the_end_of_an_operation_says_in_a_sentence_what_to_do(ended: Application) -> None:
    body = send_request(ended, "GET", "/api/v1/file").json()
    assert body["detail"] == "`get_file` has ended on 2027-03-01. Files are not served any more."
    assert body["replacement"] == "Files are not served any more."


def test_the_other_operations_of_its_path_are_served(ended: Application) -> None:
    assert send_request(ended, "POST", "/api/v1/widgets/me").headers["allow"] == "GET, HEAD, OPTIONS"
    assert request_as_user(ended, "GET", WIDGET_PATH).status == 200


def test_the_handler_of_an_operation_that_has_ended_must_be_removed() -> None:
    with pytest.raises(ContractError, match=r"get_file has ended: remove it from tests\.contract\.mini"):
        create_mini_app(ended_document())


def test_an_operation_that_has_ended_declares_410() -> None:
    document = load_mini_document()
    definition = document["paths"]["/file"]["get"]
    definition |= {
        **DATES,
        "x-replacement": "get_widget",
        "responses": {"410": definition["responses"]["400"]},
    }
    with pytest.raises(ContractError, match="get_file does not declare 500"):
        create_mini_app(document)
