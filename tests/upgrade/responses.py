"""Read everything that an account can read, as the released contract describes it, and compare two readings.

It knows the contract of the release and no resource by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from tools.demo import Api

PAGE_SIZE = 100

Reading = dict[str, Any]
"""The JSON of each response, by path and query."""

# What a reading itself changes, and what depends on the moment.
VOLATILE = frozenset({"last_used_at", "estimated_start_at", "next_cursor", "next"})


def read_everything(api: Api, contract: Path) -> Reading:
    """Return the response of every list of a contract, in all pages, and of every item in them."""
    paths = json.loads(contract.read_text("utf-8"))["paths"]
    operations = {path: item["get"] for path, item in paths.items() if _returns_json(item.get("get"))}
    organizations = [row["id"] for row in api.get("/organizations/", limit=PAGE_SIZE)["data"]]
    reading: Reading = {}
    items: dict[str, list[str]] = {}
    for template in sorted(operations, key=lambda path: path.strip("/").count("/")):
        operation = operations[template]
        for path in _expand(template, items):
            if not _is_list(operation):
                reading[path] = _get(api, path, {})
                continue
            for parameters in _list_scopes(operation, organizations):
                # A reading is denied what a role may not read, which is an audit event.
                rows = [row for row in _read_pages(api, path, parameters) if row.get("outcome") != "refused"]
                reading[f"{path}?{httpx.QueryParams(parameters)}"] = rows
                found = [f"{path.rstrip('/')}/{row['id']}" for row in rows if "id" in row]
                items.setdefault(template.rstrip("/"), []).extend(found)
    return reading


def find_differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Yield what a client of the release misses: a value that is changed or absent; members may be added."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name, value in before.items():
            if name not in VOLATILE:
                yield from find_differences(value, after.get(name), f"{place}/{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from find_differences(left, right, f"{place}/{number}")
    elif before != after:
        yield f"{place}: {json.dumps(before)[:300]} became {json.dumps(after)[:300]}"


def _returns_json(operation: Mapping[str, Any] | None) -> bool:
    """Return whether it is an operation of an account whose response is JSON."""
    if operation is None or operation.get("security") == []:
        return False
    success = operation["responses"].get("200", {})
    required = [each for each in operation.get("parameters", []) if each.get("required")]
    in_query = [each for each in required if each.get("in") == "query"]
    return "application/json" in success.get("content", {}) and not in_query


def _is_list(operation: Mapping[str, Any]) -> bool:
    return any(each.get("$ref", "").endswith("/Limit") for each in operation["parameters"])


def _list_scopes(operation: Mapping[str, Any], organizations: list[str]) -> Iterator[dict[str, str]]:
    yield {}
    if any(each.get("$ref", "").endswith("/OrganizationId") for each in operation["parameters"]):
        yield from ({"organization_id": organization} for organization in organizations)


def _expand(template: str, items: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield the paths of a template for the items that were found before."""
    if "{" not in template:
        yield template
        return
    collection, _, rest = template.rpartition("/{")
    suffix = rest.partition("}")[2]
    for path in dict.fromkeys(items.get(collection, [])):
        yield path + suffix


def _read_pages(api: Api, path: str, parameters: dict[str, str]) -> Iterator[dict[str, Any]]:
    skip = 0
    while True:
        page = _get(api, path, {**parameters, "limit": PAGE_SIZE, "skip": skip})
        if "data" not in page:
            yield page
            return
        yield from page["data"]
        skip += PAGE_SIZE
        if len(page["data"]) < PAGE_SIZE:
            return


def _get(api: Api, path: str, parameters: Mapping[str, Any]) -> Any:
    response = api.client.get(path, params=dict(parameters))
    if response.is_success:
        return response.json()
    # A role may be too low for some of them, before and after.
    return {"status": response.status_code, "code": response.json()["code"]}
