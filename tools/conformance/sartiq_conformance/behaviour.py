"""Check behaviour that a schema cannot express: isolation, filters, pages, preconditions, retries, deletion.

They are derived from the contract: which collections there are, which parameters a list has, which headers an
operation takes. They write only rows of the organization of the run.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sartiq_conformance.contract import Contract, Operation
from sartiq_conformance.target import NonConformance, Target, fail

Check = tuple[str, Callable[[], None]]

# The server would send events to the URL of a new endpoint, and files to a new destination.
UNTOUCHED_COLLECTIONS = {"/webhook-endpoints/", "/destinations/"}
ROWS_PER_COLLECTION = 3
NOT_ASCII = "Élan 裙子 🧥"
UNKNOWN_PROPERTY = "conformance_unknown"
STALE_ETAG = '"conformance-stale"'
FAR_FUTURE = "2199-01-01T00:00:00Z"
# These select a part of a list and no rows.
PAGE_PARAMETERS = {"skip", "limit", "cursor", "sort", "organization_id"}


@dataclass
class Collection:
    """A collection of the organization to which the run can add rows: its operations and those rows."""

    create: Operation
    rows_list: Operation
    read: Operation
    delete: Operation
    update: Operation | None
    id_name: str
    body: Callable[[str], dict[str, Any]]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def ids(self, row: dict[str, Any]) -> dict[str, str]:
        """Return the path parameters of a row."""
        return {self.id_name: row["id"]}


def list_collections(contract: Contract) -> list[Collection]:
    """Return the collections whose rows belong to an organization and need no other row."""
    found = []
    for create in contract.operations:
        schema = contract.find_body(create) if create.method == "POST" else None
        if (
            schema is None
            or not create.find("query", "organization_id")
            or create.path in UNTOUCHED_COLLECTIONS
        ):
            continue
        items = [
            one
            for one in contract.operations
            if one.path.rpartition("{")[0] == create.path and one.path.endswith("}")
        ]
        by_method = {one.method: one for one in items}
        rows = contract.by_label.get(f"GET {create.path}")
        if (
            rows is None
            or not {"GET", "DELETE"} <= by_method.keys()
            or "201" not in create.definition["responses"]
        ):
            continue
        found.append(
            Collection(
                create,
                rows,
                by_method["GET"],
                by_method["DELETE"],
                by_method.get("PATCH"),
                by_method["GET"].list_parameters("path")[0]["name"],
                partial(contract.build_body, schema),
            )
        )
    return found


def behaviour_checks(target: Target) -> Iterator[Check]:
    """Yield the checks of behaviour."""
    contract = Contract(target.contract)
    collections = list_collections(contract)
    for collection in collections:
        yield f"{collection.create.label}: new rows", partial(add_rows, target, collection)
    for operation in contract.operations:
        if operation.method == "GET" and operation.find("query", "limit"):
            yield from list_checks(target, contract, operation)
    bodies = {one.create.label: one.body(unique_name()) for one in collections}
    for operation in contract.operations:
        if is_addressed_by_id(operation):
            yield f"{operation.label}: an unknown id", partial(check_unknown_id, target, operation)
        schema = contract.find_body(operation)
        if schema is not None and schema.get("additionalProperties") is False:
            name = f"{operation.label}: an unknown property"
            valid = bodies.get(operation.label)
            yield name, partial(check_unknown_property, target, operation, collections, valid)
        for parameter in operation.list_parameters("query") if operation.method == "GET" else ():
            if limits := find_limits(contract, parameter):
                name = f"{operation.label}: {parameter['name']} at its limits"
                yield name, partial(check_limits, target, operation, parameter["name"], *limits)
    for collection in collections:
        if collection.create.find("header", "Idempotency-Key"):
            yield (
                f"{collection.create.label}: Idempotency-Key",
                partial(check_idempotency, target, collection),
            )
        if collection.update is not None and collection.update.find("header", "If-Match"):
            yield f"{collection.update.label}: If-Match", partial(check_update, target, collection)
        yield f"{collection.delete.label}: the row is gone", partial(check_deletion, target, collection)


def list_checks(target: Target, contract: Contract, operation: Operation) -> Iterator[Check]:
    """Yield the checks of a list that needs no other row and no superuser."""
    is_for_superusers = operation.definition.get("x-permission", "").endswith(":admin")
    if is_for_superusers or operation.list_parameters("path") or contract.find_row(operation) == {}:
        return
    if operation.find("query", "organization_id"):
        yield f"{operation.label}: rows of the organization", partial(check_tenant, target, operation)
    yield f"{operation.label}: pages", partial(check_pages, target, operation)
    for parameter in operation.list_parameters("query"):
        if parameter["name"] not in PAGE_PARAMETERS:
            name = f"{operation.label}: {parameter['name']}"
            yield name, partial(check_filter, target, contract, operation, parameter)


def add_rows(target: Target, collection: Collection) -> None:
    """Create rows and find them in the list."""
    params = {"organization_id": target.organization_id}
    for _ in range(ROWS_PER_COLLECTION):
        body = collection.body(unique_name())
        row = target.create(collection.create.path, params=params, json=body)
        different = [name for name, value in body.items() if name == "name" and row.get(name) != value]
        if different:
            raise NonConformance(f"{collection.create.label}: {different} differ from the request")
        collection.rows.append(row)
    listed = {row["id"] for row in target.list_rows(collection.rows_list.path, **params)}
    if missing := [row["id"] for row in collection.rows if row["id"] not in listed]:
        raise NonConformance(f"{collection.rows_list.label}: the new rows {missing} are not in the list")


def unique_name() -> str:
    """Return a name that no other row has."""
    return f"Conformance {secrets.token_hex(6)}"


def scope(target: Target, operation: Operation) -> dict[str, str]:
    """Return the query that limits an operation to the organization, if it has it."""
    return {"organization_id": target.organization_id} if operation.find("query", "organization_id") else {}


def check_tenant(target: Target, operation: Operation) -> None:
    """Rows of a list belong to the organization, or are public."""
    for response in target.list_pages(operation.path, **scope(target, operation)):
        for row in response.json()["data"]:
            owner = row.get("organization_id", target.organization_id)
            if owner != target.organization_id and not row.get("public"):
                raise fail(response, f"row {row.get('id')} belongs to organization {owner} and is not public")


def check_pages(target: Target, operation: Operation) -> None:
    """`limit` and `skip` cut a page out of the list, and cursors visit each row once."""
    params = scope(target, operation)
    whole = target.request("GET", operation.path, 200, params={**params, "limit": 100})
    ids = list_keys(whole)
    first = target.request("GET", operation.path, 200, params={**params, "limit": 1})
    if list_keys(first) != ids[:1]:
        raise fail(first, f"limit=1 returns {len(first.json()['data'])} rows, or another one than the first")
    if operation.find("query", "skip") is None:
        return
    second = target.request("GET", operation.path, 200, params={**params, "limit": 1, "skip": 1})
    if list_keys(second) != ids[1:2]:
        raise fail(second, "skip=1&limit=1 does not return the second row")
    if len(ids) < whole.json().get("count", 0):
        return  # more than a hundred rows: walking them would take long
    walked = [row["id"] for row in target.list_rows(operation.path, limit=max(1, len(ids) // 3), **params)]
    if walked != ids:
        raise fail(whole, f"the cursors visit {len(walked)} rows, the whole list has {len(ids)}")


def list_keys(response: Any) -> list[Any]:
    """Return the ids of the rows of a page. Rows without an id, such as changes, stand for themselves."""
    return [row.get("id", row) for row in response.json()["data"]]


def check_filter(target: Target, contract: Contract, operation: Operation, parameter: dict[str, Any]) -> None:
    """A filter selects rows: none for an unknown value, only matching ones for a value of a property."""
    name, schema = parameter["name"], contract.resolve(parameter["schema"])
    params, row = scope(target, operation), contract.find_row(operation)
    if schema.get("format") == "uuid":
        nothing = [str(uuid.uuid4())]
    elif schema.get("format") == "date-time":
        nothing = [FAR_FUTURE] if name.endswith("_after") else ["2000-01-01T00:00:00Z"]
    elif name in ("q", "search"):
        nothing = [secrets.token_hex(12)]
    else:
        nothing = []
    for value in nothing:
        # An id that does not resolve is 404, other values match nothing.
        response = target.request("GET", operation.path, (200, 404), params={**params, name: value})
        if response.status_code == 200 and response.json()["data"]:
            raise fail(response, f"{name}={value} returns rows, but matches none")
    values = schema.get("enum", [True, False] if schema.get("type") == "boolean" else [])
    for value in values if name in row else ():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        response = target.request("GET", operation.path, 200, params={**params, name: text})
        if wrong := [one["id"] for one in response.json()["data"] if one[name] != value]:
            raise fail(response, f"{name}={text} returns rows with another {name}: {wrong[:3]}")


def is_addressed_by_id(operation: Operation) -> bool:
    """Return whether an operation reads or deletes a row that a UUID addresses."""
    path = operation.list_parameters("path")
    is_safe = operation.method in ("GET", "DELETE") and not operation.find("query", "signature")
    return is_safe and bool(path) and all(one["schema"].get("format") == "uuid" for one in path)


def require_query(operation: Operation) -> dict[str, Any]:
    """Return the required query parameters, with their examples."""
    required = [one for one in operation.list_parameters("query") if one.get("required")]
    return {one["name"]: one["schema"].get("example", "x") for one in required}


def check_unknown_id(target: Target, operation: Operation) -> None:
    """An unknown id is not found."""
    ids, params = operation.build_ids(), require_query(operation)
    # 403: an operation that only superusers may call says nothing about ids.
    target.request(operation.method, operation.path, (403, 404), ids, params=params)


def check_unknown_property(
    target: Target, operation: Operation, collections: list[Collection], valid: dict[str, Any] | None
) -> None:
    """A body with an unknown property is rejected, and the violation names it.

    Args:
        target: The server.
        operation: The operation.
        collections: The collections; the operation gets their rows, as far as it is about some.
        valid: The rest of the body of a new row of a collection; None for other operations.
    """
    rows = {one.id_name: one.rows[-1]["id"] for one in collections if one.rows}
    ids = {name: rows.get(name, other) for name, other in operation.build_ids().items()}
    is_own = bool(ids) and ids.keys() <= rows.keys()
    # Elsewhere the caller may lack the permission, or the row does not exist: both come first.
    statuses = (422,) if is_own or valid else (403, 404, 422) if ids else (403, 422)
    body, params = {**(valid or {}), UNKNOWN_PROPERTY: 1}, scope(target, operation)
    response = target.request(operation.method, operation.path, statuses, ids, params=params, json=body)
    if response.status_code != 422:
        return
    pointers = [violation.get("pointer") for violation in response.json()["detail"]]
    if f"/{UNKNOWN_PROPERTY}" not in pointers:
        raise fail(response, f"no violation names /{UNKNOWN_PROPERTY}: {pointers}")


def find_limits(contract: Contract, parameter: dict[str, Any]) -> tuple[list[str], list[str]] | None:
    """Return the outermost valid values of a query parameter and the invalid ones beside them."""
    schema = contract.resolve(parameter["schema"])
    if schema.get("type") == "integer":
        minimum, maximum = schema.get("minimum"), schema.get("maximum")
        valid = [minimum, maximum]
        invalid = [None if minimum is None else minimum - 1, None if maximum is None else maximum + 1]
    elif schema.get("type") == "string" and not {"format", "enum"} & schema.keys():
        longest = schema.get("maxLength", 0)
        texts = [NOT_ASCII, *["x" * longest][:longest]]
        valid = [text for text in texts if re.search(schema.get("pattern", ""), text)]
        invalid = ["x" * (longest + 1)][:longest]
    else:
        return None
    return [str(one) for one in valid if one is not None], [str(one) for one in invalid if one is not None]


def check_limits(
    target: Target, operation: Operation, name: str, valid: list[str], invalid: list[str]
) -> None:
    """A valid value at a limit is accepted; one beyond it is 422."""
    ids = operation.build_ids()
    params = {**require_query(operation), **scope(target, operation)}
    for value in valid:
        target.request("GET", operation.path, (200, 403, 404), ids, params={**params, name: value})
    for value in invalid:
        target.request("GET", operation.path, (403, 422), ids, params={**params, name: value})


def check_idempotency(target: Target, collection: Collection) -> None:
    """A repeated request with the same key creates one row; the key with another body is rejected."""
    headers, params = {"Idempotency-Key": str(uuid.uuid4())}, {"organization_id": target.organization_id}
    send = partial(target.request, "POST", collection.create.path, params=params, headers=headers)
    body = collection.body(unique_name())
    first, second = send(201, json=body), send(201, json=body)
    if first.json()["id"] != second.json()["id"]:
        raise fail(second, f"the repeated request made row {second.json()['id']} beside {first.json()['id']}")
    same_name = [
        row
        for row in target.list_rows(collection.rows_list.path, **params)
        if row.get("name") == body.get("name")
    ]
    if len(same_name) != 1:
        raise fail(second, f"the repeated request left {len(same_name)} rows, not one")
    send(422, json=collection.body(unique_name()))


def check_update(target: Target, collection: Collection) -> None:
    """An update with an outdated `If-Match` changes nothing; one with the current ETag can be read."""
    update, row = collection.update, require_rows(collection)[-1]
    if update is None:
        return
    ids, body = collection.ids(row), {"name": unique_name()}
    target.request("PATCH", update.path, 412, ids, json=body, headers={"If-Match": STALE_ETAG})
    current = target.request("GET", collection.read.path, 200, ids)
    if current.json()["name"] != row["name"]:
        raise fail(current, "an update with an outdated If-Match was 412 and changed the row")
    headers = {"If-Match": current.headers["etag"]}
    updated = target.request("PATCH", update.path, 200, ids, json=body, headers=headers)
    read = target.request("GET", collection.read.path, 200, ids)
    if read.json() != updated.json() or read.json()["name"] != body["name"]:
        raise fail(read, "the row does not read as the update returned it")


def check_deletion(target: Target, collection: Collection) -> None:
    """A deleted row is not found and is in no list."""
    # Not the row that was updated: with `--keep`, the requests of findings can be repeated.
    row, params = require_rows(collection)[0], {"organization_id": target.organization_id}
    ids = collection.ids(row)
    if collection.delete.find("header", "If-Match"):
        target.request("DELETE", collection.delete.path, 412, ids, headers={"If-Match": STALE_ETAG})
    target.request("DELETE", collection.delete.path, 204, ids)
    target.request("GET", collection.read.path, 404, ids)
    target.request("DELETE", collection.delete.path, 404, ids)
    if row["id"] in {one["id"] for one in target.list_rows(collection.rows_list.path, **params)}:
        raise NonConformance(f"{collection.rows_list.label}: the deleted row {row['id']} is in the list")


def require_rows(collection: Collection) -> list[dict[str, Any]]:
    """Return the rows that the run has made.

    Raises:
        NonConformance: There is none; the check of new rows has failed.
    """
    if not collection.rows:
        raise NonConformance(f"{collection.create.label}: no row could be made, so this was not checked")
    return collection.rows
