"""What the contract must say so that nothing unexpected can be sent or answered; read off the bundle."""

from __future__ import annotations

from tests.house.bundle import (
    Node,
    all_schemas,
    holds,
    operations,
    request_roots,
    resolved,
    schemas,
)

SELF_BOUNDED_FORMATS = {"uuid", "date", "date-time", "binary"}


def test_s27_errors_are_declared_as_problems_and_one_by_one(contract: Node) -> None:
    found = []
    for operation in operations(contract):
        responses = operation.node["responses"]
        if "default" in responses:
            found.append(f"{operation.id}: default response")
        if operation.node.get("security", contract["security"]) and "401" not in responses:
            found.append(f"{operation.id}: wants a token and declares no 401")
        found += [
            f"{operation.id} {status}: {list(resolved(contract, response).get('content', {}))}"
            for status, response in responses.items()
            if status >= "400"
            and list(resolved(contract, response).get("content", {})) != ["application/problem+json"]
        ]
    # The two health answers that say "no" with a body of their own would be listed here; there are none.
    holds(found)


def test_s27_whatever_takes_a_body_says_that_it_does_not_wait_for_it_for_ever(contract: Node) -> None:
    takes = {operation.id for operation in operations(contract) if "requestBody" in operation.node}
    says = {operation.id for operation in operations(contract) if "408" in operation.node["responses"]}
    assert takes == says


def test_s27_a_request_body_is_closed(contract: Node) -> None:
    """An unknown property is a mistake of the caller; a map of free names is bounded by maxProperties."""
    holds(
        [
            name
            for name, schema in schemas(contract, request_roots(contract))
            if schema.get("type") == "object"
            and "enum" not in schema
            and schema.get("additionalProperties") is not False
            and "maxProperties" not in schema
        ]
    )


def is_bounded(schema: Node) -> bool:
    if "enum" in schema:
        return True
    match schema.get("type"):
        case "string":
            return "maxLength" in schema or schema.get("format") in SELF_BOUNDED_FORMATS
        case "array":
            return "maxItems" in schema
        case "integer" | "number":
            return "minimum" in schema and "maximum" in schema
    return True


def test_s27_strings_arrays_and_numbers_are_bounded(contract: Node) -> None:
    holds([name for name, schema in all_schemas(contract) if not is_bounded(schema)])


def test_s27_whatever_wants_a_token_names_a_permission(contract: Node) -> None:
    found = []
    for operation in operations(contract):
        secured = bool(operation.node.get("security", contract["security"]))
        if secured != ("x-permission" in operation.node):
            found.append(operation.id)
    holds(found)
