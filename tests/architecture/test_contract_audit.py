"""What the contract must say so that nothing unexpected can be sent or answered; read off the bundle.

These are the rules of OWASP's set for Spectral (@stoplight/spectral-owasp-ruleset 2.0.1) for API1 to API4 and
API8, made to know what this contract says in other ways: a uuid is bounded without maxLength, CORS is closed.
"""

from __future__ import annotations

from tests.architecture.bundle import (
    Node,
    all_schemas,
    assert_no_findings,
    list_operations,
    list_parameters,
    list_schemas,
    request_roots,
    resolve,
    response_roots,
)

SELF_BOUNDED_FORMATS = {"uuid", "date", "date-time", "binary"}
# Whoever opens another operation to everybody says so here too.
PUBLIC = {
    "login", "refresh_token", "revoke_token", "recover_password", "reset_password", "confirm_email_change",
    "accept_invitation", "list_generation_models", "get_shared_image", "put_upload", "receive_task_webhook",
    "health_check", "system_health_check", "readiness", "db_check", "get_version",
    "get_openapi_json", "get_openapi_yaml", "get_docs", "get_docs_asset", "get_problem_page",
    "get_permissions_page", "get_states_page", "get_problems_page",
}  # fmt: skip
# Credentials of one purpose, short-lived and signed: an <img> or a browser's PUT can send an address only.
CREDENTIALS_IN_URLS = {("get_shared_image", "share_token"), ("put_upload", "signature")}
# Names in paths that are no ids; all others are uuids, which nobody can count through (API1).
NAMES_IN_PATHS = {"email", "share_token", "file_name", "asset_name", "code"}
# Maps of names that are not ours to choose, each bounded by maxProperties or read-only.
OPEN_RESPONSES = {
    "OpenApiDocument",  # the contract itself
    "NullableViolationContext",  # the bound that was broken, by its name
    "CodeSamples",  # of each operation, by its name
    "DependencyStates",  # one for each dependency that is there
    "ProvenanceSettings",  # of the renderer that made the picture
    "NullableProviderSettings", "NullableProviderCapabilities",
}  # fmt: skip


def test_s27_errors_are_declared_as_problems_and_one_by_one(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        responses = operation.node["responses"]
        if "default" in responses:
            found.append(f"{operation.id}: default response")
        if operation.node.get("security", contract["security"]) and "401" not in responses:
            found.append(f"{operation.id}: wants a token and declares no 401")
        found += [
            f"{operation.id} {status}: {list(resolve(contract, response).get('content', {}))}"
            for status, response in responses.items()
            if status >= "400"
            and list(resolve(contract, response).get("content", {})) != ["application/problem+json"]
        ]
    # The two health answers that say "no" with a body of their own would be listed here; there are none.
    assert_no_findings(found)


def test_s27_whatever_takes_a_body_says_that_it_does_not_wait_for_it_for_ever(contract: Node) -> None:
    takes = {operation.id for operation in list_operations(contract) if "requestBody" in operation.node}
    says = {operation.id for operation in list_operations(contract) if "408" in operation.node["responses"]}
    assert takes == says


def test_s27_a_request_body_is_closed(contract: Node) -> None:
    """An unknown property is a mistake of the caller; a map of free names is bounded by maxProperties."""
    assert_no_findings(
        [
            name
            for name, schema in list_schemas(contract, request_roots(contract))
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
    assert_no_findings([name for name, schema in all_schemas(contract) if not is_bounded(schema)])


def test_s27_whatever_wants_a_token_names_a_permission(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        secured = bool(operation.node.get("security", contract["security"]))
        if secured != ("x-permission" in operation.node):
            found.append(operation.id)
    assert_no_findings(found)


def test_s27_public_operations_are_listed_with_a_reason(contract: Node) -> None:
    why = {
        operation.id: operation.node.get("x-public", "")
        for operation in list_operations(contract)
        if not operation.node.get("security", contract["security"])
    }
    assert set(why) == PUBLIC
    assert_no_findings([name for name, reason in why.items() if len(reason.split()) < 4])


def test_s27_a_scheme_of_tokens_says_by_which_rules(contract: Node) -> None:
    schemes = contract["components"]["securitySchemes"]
    assert contract["security"]
    assert {name for wanted in contract["security"] for name in wanted} <= set(schemes)
    assert_no_findings([name for name, scheme in schemes.items() if scheme.get("scheme") == "basic"])
    assert_no_findings([name for name, scheme in schemes.items() if scheme.get("in") in ("query", "cookie")])
    tokens = [scheme for scheme in schemes.values() if scheme["type"] == "oauth2"]
    assert tokens
    assert all("RFC 8725" in scheme["description"] for scheme in tokens)


def test_s27_no_address_holds_a_credential(contract: Node) -> None:
    words = ("token", "key", "secret", "password", "signature", "credential", "authorization")
    found = {
        (operation.id, parameter["name"])
        for operation in list_operations(contract)
        for parameter in list_parameters(contract, operation)
        if parameter["in"] != "header" and any(word in parameter["name"].lower() for word in words)
        # The id of a key opens nothing.
        if parameter["schema"].get("format") != "uuid"
    }
    assert found == CREDENTIALS_IN_URLS


def test_s27_an_id_in_a_path_cannot_be_counted_through(contract: Node) -> None:
    found = {
        parameter["name"]
        for operation in list_operations(contract)
        for parameter in list_parameters(contract, operation)
        if parameter["in"] == "path" and parameter["schema"].get("format") != "uuid"
    }
    assert found == NAMES_IN_PATHS


def test_s27_every_operation_declares_the_errors_that_every_request_can_get(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        always = {"400", "405", "422", "500", "503"}
        if operation.node.get("security", contract["security"]):
            always.add("401")
        if "x-not-limited" not in operation.node:
            always.add("429")
        if "requestBody" in operation.node:
            always |= {"408", "413", "415"}
        if "{" in operation.path:
            always.add("404")
        found += [f"{operation.id} {status}" for status in always - set(operation.node["responses"])]
    assert_no_findings(found)


def test_s27_an_answer_is_closed_too(contract: Node) -> None:
    """What is not declared would leak (API3); the server checks every answer against this."""
    found = {
        name
        for name, schema in list_schemas(contract, response_roots(contract))
        if schema.get("type") == "object"
        and "enum" not in schema
        and schema.get("additionalProperties") is not False
    }
    assert found == OPEN_RESPONSES


def test_s27_a_text_that_is_sent_has_a_shape(contract: Node) -> None:
    """A header is bounded by its length alone, so that every tool reads it alike."""
    roots = request_roots(contract) + [
        (f"{operation.id} {parameter['name']}", parameter["schema"])
        for operation in list_operations(contract)
        for parameter in list_parameters(contract, operation)
        if parameter["in"] != "header"
    ]
    assert_no_findings(
        [
            name
            for name, schema in list_schemas(contract, roots)
            if schema.get("type") == "string" and not {"enum", "format", "pattern"} & set(schema)
        ]
    )
