"""Security rules for the contract, checked on the bundle.

The OWASP rules for Spectral (@stoplight/spectral-owasp-ruleset 2.0.1) for API1 to API4
and API8, adapted to this contract: a UUID is bounded without `maxLength`, and CORS is off by default.
"""

from __future__ import annotations

import difflib

import pytest

from handlers.contract.coercion import plain_type
from handlers.contract.schema_compiler import translate
from tests.architecture.bundle import (
    Node,
    all_schemas,
    assert_no_findings,
    compare_lists,
    list_operations,
    list_parameters,
    list_schemas,
    request_roots,
    resolve,
    response_roots,
    seed,
)

SELF_BOUNDED_FORMATS = {"uuid", "date", "date-time", "binary"}
# A new public operation must be listed here.
PUBLIC = {
    "login", "refresh_token", "revoke_token", "recover_password", "reset_password", "confirm_email_change",
    "cancel_account_deletion", "accept_invitation", "exchange_review_link", "list_generation_models",
    "find_login_provider", "start_oidc_login", "finish_oidc_login",
    "get_published_image", "get_shared_image", "put_upload", "receive_task_webhook",
    "health_check", "health", "system_health_check", "readiness", "db_check", "get_version",
    "get_openapi_json", "get_openapi_30_json", "get_openapi_yaml", "get_docs", "get_docs_asset",
    "get_problem_page", "get_permissions_page", "get_states_page", "get_problems_page",
}  # fmt: skip
# Short-lived, signed credentials for one purpose: an <img> or a PUT by a browser can only send a URL.
CREDENTIALS_IN_URLS = {
    ("get_published_image", "publish_token"), ("get_shared_image", "share_token"),
    ("put_upload", "signature"),
}  # fmt: skip
# Path parameters that are not ids. All others are UUIDs, which cannot be enumerated (API1).
NAMES_IN_PATHS = {
    "email", "publish_token", "share_token", "file_name", "asset_name", "code", "external_id",
}  # fmt: skip
# Maps with free names, each bounded by maxProperties or read-only.
MAPS_IN_RESPONSES = {
    "OpenApiDocument",  # the contract itself
    "ViolationContext",  # the violated bound by name
    "CodeSamples",  # one for each operation
    "DependencyStates",  # one for each dependency
    "ProvenanceSettings",  # settings of the renderer
    "ProviderSettings", "ProviderCapabilities",
    "Metadata",  # the client's own keys
    "ProductImportColumnMapping",  # the columns of the client's file
    "WebhookMessageHeaders",  # headers by name
}  # fmt: skip


def test_s27_every_error_status_is_declared_as_a_problem(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        responses = operation.node["responses"]
        if "default" in responses:
            found.append(f"{operation.id}: default response")
        if operation.node.get("security", contract["security"]) and "401" not in responses:
            found.append(f"{operation.id}: needs a token and declares no 401")
        found += [
            f"{operation.id} {status}: this error has no application/problem+json"
            for status, response in responses.items()
            if status >= "400"
            and list(resolve(contract, response).get("content", {})) != ["application/problem+json"]
        ]
    assert_no_findings(found, "refer to a response of components/responses.yaml")


def test_s27_every_operation_with_a_request_body_declares_408(contract: Node) -> None:
    with_body = {operation.id for operation in list_operations(contract) if "requestBody" in operation.node}
    with_timeout = {
        operation.id for operation in list_operations(contract) if "408" in operation.node["responses"]
    }
    assert_no_findings(with_body - with_timeout, "add the response 408, TooSlow")
    assert_no_findings(with_timeout - with_body, "remove the response 408, it has no body")


def test_s27_request_bodies_reject_unknown_properties(contract: Node) -> None:
    """A map with free names is bounded by `maxProperties` instead."""
    assert_no_findings(
        [
            name
            for name, schema in list_schemas(contract, request_roots(contract))
            if plain_type(schema) == "object"
            and schema.get("additionalProperties") is not False
            and "maxProperties" not in schema
        ],
        "add additionalProperties: false, or maxProperties to a map",
    )


def is_bounded(schema: Node) -> bool:
    if {"enum", "x-extensible-enum"} & schema.keys():
        return True
    match plain_type(schema):
        case "string":
            return "maxLength" in schema or schema.get("format") in SELF_BOUNDED_FORMATS
        case "array":
            return "maxItems" in schema
        case "integer" | "number":
            return "minimum" in schema and "maximum" in schema
    return True


def test_s27_strings_arrays_and_numbers_are_bounded(contract: Node) -> None:
    assert_no_findings(
        [name for name, schema in all_schemas(contract) if not is_bounded(schema)],
        "add maxLength to a string, maxItems to an array, minimum and maximum to a number",
    )


@pytest.mark.parametrize("kind", ["string", "integer", "number"])
def test_s27_a_value_that_can_be_null_needs_bounds_too(kind: str) -> None:
    assert not is_bounded({"type": [kind, "null"]})
    assert is_bounded({"type": [kind, "null"], "maxLength": 3, "minimum": 0, "maximum": 3})


def find_wrong_permissions(contract: Node) -> list[str]:
    """Return the operations whose permission is missing, needless or not in `x-permissions`."""
    permissions, found = contract["x-permissions"], []
    for operation in list_operations(contract):
        is_secured = bool(operation.node.get("security", contract["security"]))
        permission = operation.node.get("x-permission")
        if is_secured and not permission:
            found.append(f"{operation.id} needs authentication: add x-permission")
        elif permission and not is_secured:
            found.append(f"{operation.id} needs no authentication: remove x-permission")
        elif permission and permission not in permissions:
            near = difflib.get_close_matches(permission, permissions, 1)
            hint = f"did you mean `{near[0]}`?" if near else "add it there"
            found.append(f"{operation.id}: openapi/permissions.yaml has no `{permission}`: {hint}")
    return found


def test_s27_every_operation_that_needs_a_token_names_a_permission(contract: Node) -> None:
    assert_no_findings(find_wrong_permissions(contract))


def test_s27_each_wrong_permission_is_found(contract: Node) -> None:
    seeded = seed(contract)
    brands = seeded["paths"]["/brands/"]
    brands["post"]["x-permission"] = "brand:write"
    del brands["get"]["x-permission"]
    seeded["paths"]["/utils/version"]["get"]["x-permission"] = "brands:read"
    known = find_wrong_permissions(contract)
    assert [one for one in find_wrong_permissions(seeded) if one not in known] == [
        "list_brands needs authentication: add x-permission",
        "create_brand: openapi/permissions.yaml has no `brand:write`: did you mean `brands:write`?",
        "get_version needs no authentication: remove x-permission",
    ]


def test_s27_public_operations_are_listed_with_a_reason(contract: Node) -> None:
    reasons = {
        operation.id: operation.node.get("x-public", "")
        for operation in list_operations(contract)
        if not operation.node.get("security", contract["security"])
    }
    compare_lists(reasons, PUBLIC, "needs no authentication: require it, or list it in PUBLIC of this rule")
    assert_no_findings(
        [name for name, reason in reasons.items() if len(reason.split()) < 4],
        "say why in x-public, in four words or more",
    )


def test_s27_security_schemes_use_tokens_in_headers_and_name_their_rules(contract: Node) -> None:
    schemes = contract["components"]["securitySchemes"]
    assert contract["security"]
    assert {name for requirement in contract["security"] for name in requirement} <= set(schemes)
    assert_no_findings(
        [name for name, scheme in schemes.items() if scheme.get("scheme") == "basic"],
        "use bearer tokens instead of passwords",
    )
    assert_no_findings(
        [name for name, scheme in schemes.items() if scheme.get("in") in ("query", "cookie")],
        "send the credential in a header",
    )
    tokens = [scheme for scheme in schemes.values() if scheme["type"] == "oauth2"]
    assert tokens
    assert all("RFC 8725" in scheme["description"] for scheme in tokens)


def test_s27_no_url_has_a_credential(contract: Node) -> None:
    words = ("token", "key", "secret", "password", "signature", "credential", "authorization")
    found = {
        (operation.id, parameter["name"])
        for operation in list_operations(contract)
        for parameter in list_parameters(contract, operation)
        if parameter["in"] != "header" and any(word in parameter["name"].lower() for word in words)
        # The id of an API key is not a credential.
        if parameter["schema"].get("format") != "uuid"
    }
    compare_lists(found, CREDENTIALS_IN_URLS, "send the credential in a header, or list it in this rule")


def test_s27_ids_in_paths_cannot_be_enumerated(contract: Node) -> None:
    found = {
        (operation.id, parameter["name"])
        for operation in list_operations(contract)
        for parameter in list_parameters(contract, operation)
        if parameter["in"] == "path" and parameter["schema"].get("format") != "uuid"
    }
    assert_no_findings(
        [f"{operation_id} path {name}" for operation_id, name in found if name not in NAMES_IN_PATHS],
        "use a uuid, which cannot be guessed, or list the name in NAMES_IN_PATHS of this rule",
    )
    assert {name for _, name in found} == NAMES_IN_PATHS


def test_s27_every_operation_declares_the_errors_of_every_request(contract: Node) -> None:
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
    assert_no_findings(found, "add this status, with the response of components/responses.yaml")


def test_published_responses_allow_unknown_properties(contract: Node) -> None:
    """So v1 can add properties without breaking strict clients. Requests share none of these schemas."""
    assert_no_findings(
        [
            name
            for name, schema in list_schemas(contract, response_roots(contract))
            if "properties" in schema and "additionalProperties" in schema
        ],
        "remove additionalProperties; a request needs a schema of its own",
    )


def test_s27_the_server_sends_no_unknown_properties(contract: Node) -> None:
    """An undeclared property could leak data (API3). The server closes objects and checks each response."""
    open_objects = {
        name
        for name, schema in list_schemas(contract, response_roots(contract))
        # A choice of components is closed, because they are.
        if plain_type(schema) == "object"
        and "oneOf" not in schema
        and translate(schema, "response").get("additionalProperties") is not False
    }
    compare_lists(open_objects, MAPS_IN_RESPONSES, "list its properties, or add it to MAPS_IN_RESPONSES")


def test_s27_every_string_in_a_request_has_a_format_or_pattern(contract: Node) -> None:
    """Headers have only a length: tools treat patterns of headers differently."""
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
            if plain_type(schema) == "string" and not {"enum", "format", "pattern"} & set(schema)
        ],
        "add a pattern, a format or an enum",
    )
