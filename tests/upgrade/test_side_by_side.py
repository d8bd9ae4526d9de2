"""Tests that `make upgrade` names the operations that a server answers with 500."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.upgrade.release import UpgradeFailed
from tests.upgrade.side_by_side import list_failing, write_new_values
from tools.demo import Api
from tools.servers.http_recorder import RecordedRequest, StubResponse, run_http_recorder

PATHS = {
    "/brands/": {"get": {"operationId": "list_brands"}},
    "/brands/{brand_id}": {"get": {"operationId": "get_brand"}, "delete": {"operationId": "delete_brand"}},
    "/styles/": {"get": {"operationId": "list_styles"}},
}


def test_the_operations_that_are_answered_with_500_are_listed(tmp_path: Path) -> None:
    def respond(request: RecordedRequest) -> StubResponse:
        path = request.path.removeprefix("/api/v1")
        return StubResponse(
            status={"/brands/1": 500, "/brands/?limit=2": 500, "/styles/": 404}.get(path, 200)
        )

    contract = tmp_path / "openapi.json"
    contract.write_text(json.dumps({"paths": PATHS}))
    with run_http_recorder(respond) as server, Api(server.url) as api:
        assert list_failing(api, ["/brands/1", "/styles/"], contract) == {"get_brand"}
        assert list_failing(api, ["/brands/?limit=2", "/brands/2"], contract) == {"list_brands"}


def test_a_table_without_rows_fails_because_nothing_would_be_read(own_database_url: str) -> None:
    with pytest.raises(UpgradeFailed, match="api_keys has no rows"):
        write_new_values(own_database_url)
