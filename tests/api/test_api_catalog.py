"""Discovery of the API from its host: API catalog, `Link` headers and cached API descriptions."""

from __future__ import annotations

import json

import pytest
import yaml

from handlers.app import Application
from tests.support.client import ClientResponse, send_request

CATALOG = "/.well-known/api-catalog"
PUBLIC = "http://localhost:8000"
DESCRIPTIONS = {
    "/api/v1/openapi.json": "application/json",
    "/api/v1/openapi.yaml": "application/yaml",
    "/api/v1/openapi-3.0.json": "application/json",
}


def parse_links(response: ClientResponse) -> set[tuple[str, str, str]]:
    """Return relation, target and type of each link."""
    found = set()
    for link in response.headers["link"].split(", "):
        target, relation, media_type = link.split("; ")
        found.add((relation[5:-1], target[1:-1], media_type[6:-1]))
    return found


def test_the_catalog_links_to_the_api_its_descriptions_and_its_status(app: Application) -> None:
    response = send_request(app, "GET", CATALOG)
    assert response.status == 200
    profile = 'profile="https://www.rfc-editor.org/info/rfc9727"'
    assert response.headers["content-type"] == f"application/linkset+json; {profile}"
    assert response.headers["cache-control"] == "max-age=3600"
    assert response.json() == {
        "linkset": [
            {"anchor": PUBLIC + CATALOG, "item": [{"href": f"{PUBLIC}/api/v1"}]},
            {
                "anchor": f"{PUBLIC}/api/v1",
                "service-desc": [
                    {"href": PUBLIC + path, "type": media_type} for path, media_type in DESCRIPTIONS.items()
                ],
                "service-doc": [{"href": f"{PUBLIC}/api/v1/docs", "type": "text/html"}],
                "status": [
                    {"href": f"{PUBLIC}/api/v1/utils/system-health-check", "type": "application/json"}
                ],
            },
        ]
    }


def test_head_of_the_api_catalog_returns_its_link_and_writes_are_rejected(app: Application) -> None:
    response, get_response = send_request(app, "HEAD", CATALOG), send_request(app, "GET", CATALOG)
    assert (response.status, response.body) == (200, b"")
    assert response.headers["content-length"] == str(len(get_response.body))
    assert ("api-catalog", CATALOG, "application/linkset+json") in parse_links(response)
    rejected = send_request(app, "PUT", CATALOG)
    assert (rejected.status, rejected.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("path", ["/", "/api/v1/docs", CATALOG])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_first_page_links_to_the_api_description(app: Application, method: str, path: str) -> None:
    assert parse_links(send_request(app, method, path)) == {
        *(("service-desc", target, media_type) for target, media_type in DESCRIPTIONS.items()),
        ("service-doc", "/api/v1/docs", "text/html"),
        ("api-catalog", CATALOG, "application/linkset+json"),
    }


def test_every_link_has_the_media_type_that_it_declares(app: Application) -> None:
    for _, target, media_type in parse_links(send_request(app, "GET", "/")):
        response = send_request(app, "GET", target)
        assert (response.status, response.headers["content-type"].partition(";")[0]) == (200, media_type)


@pytest.mark.parametrize("path", ["/api/v1/utils/health-check/", "/api/v1/nothing"])
def test_other_responses_have_no_link_header(app: Application, path: str) -> None:
    assert "link" not in send_request(app, "GET", path).headers


@pytest.mark.parametrize("path", DESCRIPTIONS)
def test_an_unchanged_description_is_not_sent_again(app: Application, path: str) -> None:
    first = send_request(app, "GET", path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    assert tag.startswith('"')
    for known in (tag, f"W/{tag}", f'"another", {tag}', "*"):
        for method in ("GET", "HEAD"):
            again = send_request(app, method, path, {"if-none-match": known})
            assert (again.status, again.body) == (304, b"")
            assert (again.headers["etag"], again.headers["cache-control"]) == (tag, "no-cache")
    other = send_request(app, "GET", path, {"if-none-match": '"another"'})
    assert (other.status, other.body) == (200, first.body)


def test_json_and_yaml_are_the_same_document_with_different_etags(app: Application) -> None:
    as_json, as_yaml, _ = (send_request(app, "GET", path) for path in DESCRIPTIONS)
    assert as_json.json()["servers"][0]["url"] == f"{PUBLIC}/api/v1"
    assert yaml.load(as_yaml.body, yaml.CSafeLoader) == json.loads(as_json.body)
    assert as_json.headers["etag"] != as_yaml.headers["etag"]
