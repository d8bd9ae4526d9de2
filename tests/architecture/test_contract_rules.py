"""Rules for the contract that the linter cannot express; checked on the bundle."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from handlers.contract.coercion import plain_type
from tests.architecture.bundle import (
    COMPOSITIONS,
    NULL,
    Node,
    all_schemas,
    assert_no_findings,
    is_scalar,
    list_inner_schemas,
    list_nodes,
    list_operations,
    list_parameters,
    list_schemas,
    parameter_roots,
    request_roots,
    resolve,
    response_roots,
    seed,
)


def test_the_contract_is_openapi_3_1_1_with_one_base_path(contract: Node) -> None:
    assert contract["openapi"] == "3.1.1"
    # With this keyword, Prism 5.16 stops validating without a message.
    assert "jsonSchemaDialect" not in contract
    assert len(contract["servers"]) == 1


def find_wrong_base_path(contract: Node) -> list[str]:
    """Return the URL of the server if its version is not the major number of `info.version`."""
    version, url = contract["info"]["version"], contract["servers"][0]["url"]
    # Versions below 1.0 prepare the first one.
    expected = f"/api/v{max(1, int(version.split('.')[0]))}"
    return [] if url == expected else [f"#/info/version: {version} is served at {expected}, not at {url}"]


def test_the_base_path_has_the_major_version(contract: Node) -> None:
    """Within a base path nothing is removed, so another major number alone must not allow breaks."""
    assert_no_findings(find_wrong_base_path(contract), "keep the major number, or change `servers`")
    seeded = seed(contract)
    seeded["servers"] = [{"url": "/api/v1"}]
    for version, expected in (("0.9.0", "v1"), ("1.4.0", "v1"), ("2.0.0", "v2")):
        seeded["info"]["version"] = version
        text = f"#/info/version: {version} is served at /api/{expected}, not at /api/v1"
        assert find_wrong_base_path(seeded) == ([] if expected == "v1" else [text])


def test_an_operation_has_a_unique_name_and_one_declared_tag(contract: Node) -> None:
    ids = [operation.id for operation in list_operations(contract)]
    assert_no_findings([name for name in ids if ids.count(name) > 1], "use another operationId")
    tags = {tag["name"] for tag in contract["tags"]}
    used = {tag for operation in list_operations(contract) for tag in operation.node["tags"]}
    assert_no_findings(
        [f"#/tags/{index}" for index, tag in enumerate(contract["tags"]) if tag["name"] not in used],
        "no operation has this tag: remove it, or give it to an operation",
    )
    assert_no_findings(
        [operation.id for operation in list_operations(contract) if not set(operation.node["tags"]) <= tags],
        "declare the tag in openapi.yaml",
    )
    assert_no_findings(
        [operation.id for operation in list_operations(contract) if len(operation.node["tags"]) != 1],
        "give it exactly one tag",
    )


def test_a_summary_has_at_most_six_words_and_a_description_says_more(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        summary, description = operation.node.get("summary", ""), operation.node.get("description", "")
        if not 1 <= len(summary.split()) <= 6:
            found.append(f"{operation.id} summary: {summary!r}")
        if len(description) <= len(summary) or description.rstrip(".") == summary.rstrip("."):
            found.append(f"{operation.id} description: {description!r}")
    assert_no_findings(found, "write a summary of one to six words and a longer description")


def test_every_operation_has_rate_limit_headers_or_a_reason(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        responses, is_exempt = operation.node["responses"], "x-not-limited" in operation.node
        if ("429" in responses) == is_exempt:
            found.append(f"{operation.id}: declares 429 and x-not-limited, or neither")
        for status in (status for status in responses if status < "400" and not is_exempt):
            if not {"RateLimit-Policy", "RateLimit"} <= set(
                resolve(contract, responses[status]).get("headers", {})
            ):
                found.append(f"{operation.id} {status}: lacks the RateLimit headers")
    assert_no_findings(
        found,
        "refer to 429 RateLimited and the headers RateLimit and RateLimitPolicy, or add x-not-limited",
    )


def find_undeclared_deprecations(contract: Node) -> list[str]:
    """Return the successful responses of deprecated operations that do not declare the headers."""
    return [
        f"{operation.id} {status}"
        for operation in list_operations(contract)
        if operation.node.get("deprecated")
        for status in operation.node["responses"]
        if status < "400"
        and not {"Deprecation", "Link", *(["Sunset"] if "x-sunset" in operation.node else [])}
        <= set(resolve(contract, operation.node["responses"][status]).get("headers", {}))
    ]


def find_unannounced_deprecations(contract: Node, changelog: str) -> list[str]:
    """Return the deprecated operations that the changelog does not name."""
    return [
        operation.id
        for operation in list_operations(contract)
        if operation.node.get("deprecated") and f"`{operation.id}`" not in changelog
    ]


def test_deprecated_operations_declare_their_headers_and_are_in_the_changelog(
    contract: Node, root: Path
) -> None:
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert_no_findings(find_undeclared_deprecations(contract), "add the headers of openapi/standard.yaml")
    assert_no_findings(find_unannounced_deprecations(contract, changelog), "name it in CHANGELOG.md")
    deprecated = seed(contract)
    deprecated["paths"]["/brands/"]["get"]["deprecated"] = True
    assert "list_brands 200" in find_undeclared_deprecations(deprecated)
    assert "list_brands" in find_unannounced_deprecations(deprecated, changelog)
    announced = changelog + "`list_brands` is deprecated"
    assert "list_brands" not in find_unannounced_deprecations(deprecated, announced)


def test_every_operation_has_a_successful_response(contract: Node) -> None:
    assert_no_findings(
        [
            operation.id
            for operation in list_operations(contract)
            if not any(status.startswith("2") or status == "303" for status in operation.node["responses"])
        ],
        "add the response of success: 2xx, or 303 for a redirect of a browser",
    )


def test_201_and_202_responses_have_a_location(contract: Node) -> None:
    assert_no_findings(
        [
            f"{operation.id} {status}"
            for operation in list_operations(contract)
            for status in ("201", "202")
            if status in operation.node["responses"]
            for headers in [resolve(contract, operation.node["responses"][status]).get("headers", {})]
            if not resolve(contract, headers.get("Location", {})).get("required")
        ],
        "add the required header Location",
    )


def test_a_201_response_has_links(contract: Node) -> None:
    """Stateful tests follow these links."""
    assert_no_findings(
        [
            operation.id
            for operation in list_operations(contract)
            if "201" in operation.node["responses"]
            and not resolve(contract, operation.node["responses"]["201"]).get("links")
        ],
        "add links to the operations on the new row",
    )


# Operations that create or start something and respond with 200.
CREATING_WITH_200 = {
    *("share_prediction", "create_presigned_url", "renew_subscription", "rotate_webhook_secret"),
}


def test_exactly_the_creating_operations_accept_an_idempotency_key(
    contract: Node,
) -> None:
    found = []
    for operation in list_operations(contract):
        is_batch = operation.path.endswith("/batch")
        with_200 = is_batch or operation.node["operationId"] in CREATING_WITH_200
        starts = with_200 or bool({"201", "202"} & set(operation.node["responses"]))
        creates = operation.method == "post" and starts
        expected = creates and bool(operation.node.get("security", contract["security"]))
        accepts = any(
            parameter["name"] == "Idempotency-Key" for parameter in list_parameters(contract, operation)
        )
        if accepts != expected:
            found.append(f"{operation.id}: {'add' if expected else 'remove'} the parameter Idempotency-Key")
        success = [code for code in ("200", "201", "202") if accepts and code in operation.node["responses"]]
        for code in [*success, *({"404", "409"} & set(operation.node["responses"]) if accepts else ())]:
            headers = resolve(contract, operation.node["responses"][code]).get("headers", {})
            if "Idempotency-Replayed" not in headers:
                found.append(f"{operation.id} {code}: lacks Idempotency-Replayed")
    assert_no_findings(
        found,
        "a POST with authentication that creates or starts something has it, and no other operation; "
        "its 200, 201, 202, 404 and 409 have the header Idempotency-Replayed",
    )


def test_parameters_are_unambiguous_for_every_tool(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        for parameter in list_parameters(contract, operation):
            name = f"{operation.id} {parameter['in']} {parameter['name']}"
            schema = parameter.get("schema", {})
            if not isinstance(schema.get("type"), str) or any(word in schema for word in COMPOSITIONS):
                found.append(f"{name}: no plain type")
            if len(parameter.get("description", "")) < 6:
                found.append(f"{name}: no description")
            if parameter["in"] in ("header", "cookie") and (
                schema.get("type") != "string" or "pattern" in schema or schema.get("minLength", 0) > 1
            ):
                found.append(f"{name}: a header is a string, bounded by length only")
    assert_no_findings(found, "give it a description and a schema with one type, not a reference")


def test_a_reference_has_no_siblings(contract: Node) -> None:
    """Some tools ignore siblings of `$ref`, others apply them."""
    assert_no_findings(
        [
            pointer
            for pointer, node in list_nodes(contract)
            if isinstance(node.get("$ref"), str) and len(node) > 1 and not pointer.endswith("/properties")
        ],
        "use anyOf or allOf with the reference, and the siblings beside it",
    )


def find_misspelled_nulls(contract: Node) -> list[str]:
    """Return the schemas that say "or null" in a spelling that some tool does not read.

    A string or number that can be null has `type: [string, 'null']`. Everything else that has a name is
    `anyOf: [{$ref: X}, {type: 'null'}]` where it is used.
    """
    found = []
    headers = [
        (f"header {name}", header["schema"]) for name, header in contract["components"]["headers"].items()
    ]
    for name, schema in [*all_schemas(contract), *headers]:
        kind = schema.get("type")
        if "nullable" in schema or isinstance(schema.get("exclusiveMinimum"), bool):
            found.append(f"{name}: a keyword of OpenAPI 3.0")
        if isinstance(kind, list) and kind not in (
            ["string", "null"],
            ["integer", "null"],
            ["number", "null"],
        ):
            found.append(f"{name}: the type {kind}")
        if None in schema.get("enum", ()) or schema.get("const", "") is None:
            found.append(f"{name}: null among the values")
        branches = schema.get("anyOf", [])
        if NULL in branches and (len(branches) != 2 or branches[1] != NULL or "$ref" not in branches[0]):
            found.append(f"{name}: anyOf with null needs one reference, then null")
        if NULL in branches and len(schema.get("description", "")) < 6:
            found.append(f"{name}: anyOf without a description")
        found += [
            f"{name}/{step}: a value that is always null needs its real type"
            for step, child in list_inner_schemas(schema)
            if child == NULL and not step.startswith("anyOf/")
        ]
        if kind == "null" and schema != NULL:
            found.append(f"{name}: a value that is always null needs its real type")
    found += [f"{name}: named for null" for name in contract["components"]["schemas"] if "Nullable" in name]
    fields = [
        (f"{operation.id} field {name}", field)
        for operation in list_operations(contract)
        for media_type, media in resolve(contract, operation.node.get("requestBody", {}))
        .get("content", {})
        .items()
        if media_type in ("multipart/form-data", "application/x-www-form-urlencoded")
        for name, field in resolve(contract, media["schema"]).get("properties", {}).items()
    ]
    for name, schema in headers + fields:
        if "anyOf" in schema or isinstance(schema.get("type"), list):
            found.append(f"{name}: text is never null")
    return found


def find_unnamed_schemas(contract: Node) -> list[str]:
    """Return the objects and enumerations that are no components. Constants need no name."""
    components = contract["components"]["schemas"].values()
    roots = request_roots(contract) + response_roots(contract)
    return [
        name
        for name, schema in list_schemas(contract, roots)
        if (len(schema.get("enum", [])) > 1 or plain_type(schema) == "object") and schema not in components
    ]


def test_null_is_spelled_as_every_tool_reads_it(contract: Node) -> None:
    assert_no_findings(
        find_misspelled_nulls(contract), "write type: [string, 'null'], or anyOf of a reference and null"
    )


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "string", "nullable": True}, "Brand/properties/name: a keyword of OpenAPI 3.0"),
        ({"type": "number", "exclusiveMinimum": True}, "Brand/properties/name: a keyword of OpenAPI 3.0"),
        ({"type": ["null", "string"]}, "Brand/properties/name: the type ['null', 'string']"),
        ({"type": ["boolean", "null"]}, "Brand/properties/name: the type ['boolean', 'null']"),
        ({"type": ["object", "null"]}, "Brand/properties/name: the type ['object', 'null']"),
        ({"type": ["string", "null"], "enum": ["a", None]}, "Brand/properties/name: null among the values"),
        ({"type": ["string", "null"], "const": None}, "Brand/properties/name: null among the values"),
        ({"type": "null"}, "Brand/properties/name: a value that is always null needs its real type"),
        (
            {"type": "null", "description": "Always null."},
            "Brand/properties/name: a value that is always null needs its real type",
        ),
        (
            {"description": "A name.", "anyOf": [NULL, {"$ref": "#/components/schemas/Gender"}]},
            "Brand/properties/name: anyOf with null needs one reference, then null",
        ),
        (
            {"description": "A name.", "anyOf": [{"type": "object"}, NULL]},
            "Brand/properties/name: anyOf with null needs one reference, then null",
        ),
        (
            {"anyOf": [{"$ref": "#/components/schemas/Gender"}, NULL]},
            "Brand/properties/name: anyOf without a description",
        ),
    ],
)
def test_each_other_spelling_of_null_is_found(contract: Node, schema: Node, message: str) -> None:
    seeded = seed(contract)
    seeded["components"]["schemas"]["Brand"]["properties"]["name"] = schema
    # The contract that is reviewed may have findings of its own. The rule above reports them.
    known = find_misspelled_nulls(contract)
    assert [one for one in find_misspelled_nulls(seeded) if one not in known] == [message]


def test_a_component_a_header_and_a_form_field_that_are_null_are_found(contract: Node) -> None:
    seeded = seed(contract)
    seeded["components"]["schemas"]["NullableGender"] = seeded["components"]["schemas"]["Gender"]
    seeded["components"]["headers"]["ETag"]["schema"]["type"] = ["string", "null"]
    form = seeded["paths"]["/login/access-token"]["post"]["requestBody"]["content"]
    body = resolve(seeded, form["application/x-www-form-urlencoded"]["schema"])
    body["properties"]["username"]["type"] = ["string", "null"]
    known = find_misspelled_nulls(contract)
    assert [one for one in find_misspelled_nulls(seeded) if one not in known] == [
        "NullableGender: named for null",
        "header ETag: text is never null",
        "login field username: text is never null",
    ]


def test_enums_and_objects_are_named_components(contract: Node) -> None:
    """Generators invent names such as `GenderType2Type1` for others."""
    assert_no_findings(find_unnamed_schemas(contract), "move it to components/schemas and refer to it")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "enum": ["a", "b"]},
        {"type": ["string", "null"], "enum": ["a", "b"]},
        {"type": ["object", "null"], "maxProperties": 3},
        {"anyOf": [{"type": "object"}, NULL]},
    ],
)
def test_a_schema_without_a_name_is_found(contract: Node, schema: Node) -> None:
    seeded = seed(contract)
    seeded["components"]["schemas"]["Brand"]["properties"]["name"] = schema
    known = find_unnamed_schemas(contract)
    found = [name for name in find_unnamed_schemas(seeded) if name not in known]
    assert [name.split("/anyOf")[0] for name in found] == ["Brand/properties/name"]


def find_scope_differences(contract: Node) -> list[str]:
    """Return how the scopes of API keys differ from the permissions that keys can have."""
    schemas, table = contract["components"]["schemas"], contract["x-permissions"]
    # What keys alone have is no choice.
    expected = sorted(name for name, roles in table.items() if "key" in roles and roles != ["key"])
    scopes = schemas["ApiKeyScopeInput"]["enum"]
    found = [f"ApiKeyScope: no `{name}`" for name in expected if name not in scopes]
    found += [f"ApiKeyScope: `{name}`, which keys cannot have" for name in scopes if name not in expected]
    return found or ["ApiKeyScope: the order differs"] * (scopes != expected)


def test_the_scopes_are_the_permissions_of_api_keys(contract: Node) -> None:
    remedy = "list the permissions with `key` in permissions.yaml, in alphabetic order"
    assert_no_findings(find_scope_differences(contract), remedy)
    seeded = seed(contract)
    seeded["x-permissions"]["seasons:read"] = ["superuser", "owner", "key"]
    assert find_scope_differences(seeded) == ["ApiKeyScope: no `seasons:read`"]


def test_every_event_type_has_a_webhook_and_a_closed_message(contract: Node) -> None:
    schemas = contract["components"]["schemas"]
    remedy = "list the same types in `webhooks` of openapi.yaml and in WebhookEventType, in the same order"
    types = schemas["WebhookEventType"]["x-extensible-enum"]
    assert_no_findings(
        [f"WebhookEventType: `{one}`" for one in {*contract["webhooks"]} ^ {*types}]
        or ["WebhookEventType: the order differs"] * (list(contract["webhooks"]) != types),
        remedy,
    )
    headers = ["webhook-id", "webhook-timestamp", "webhook-signature"]
    for event_type, item in contract["webhooks"].items():
        message = resolve(contract, item["post"]["requestBody"]["content"]["application/json"]["schema"])
        type_schema = resolve(contract, message["properties"]["type"])
        values = type_schema.get("enum", [type_schema.get("const")])
        assert_no_findings(
            [f"receive_{event_type.replace('.', '_')}: the type of the message"] * (values != [event_type]),
            f"allow only `{event_type}`",
        )
        parameters = [resolve(contract, parameter) for parameter in item["post"]["parameters"]]
        assert [parameter["name"] for parameter in parameters if parameter["required"]] == headers


def test_free_text_excludes_the_null_character(contract: Node) -> None:
    """PostgreSQL cannot store U+0000, so the schemas reject it."""
    roots = request_roots(contract) + [
        root for root in parameter_roots(contract) if " header " not in root[0]
    ]
    assert_no_findings(
        [
            name
            for name, schema in list_schemas(contract, roots)
            if plain_type(schema) == "string" and not {"enum", "format", "pattern"} & set(schema)
        ],
        "add pattern ^[^\\x00]*$, a format or an enum",
    )


def test_a_date_time_input_has_a_pattern_that_python_can_parse(contract: Node) -> None:
    roots = request_roots(contract) + parameter_roots(contract)
    assert_no_findings(
        [
            name
            for name, schema in list_schemas(contract, roots)
            if schema.get("format") == "date-time" and "pattern" not in schema and not schema.get("readOnly")
        ],
        "add the pattern of the other date-time inputs",
    )


def test_patterns_do_not_count_further_than_100(contract: Node) -> None:
    """Compiled, `[^\\x00]{1,2040}` takes 2 MB of each server process; `maxLength` takes nothing."""
    found = set()
    for _, node in list_nodes(contract):
        pattern = node.get("pattern")
        counts = re.findall(r"\{(\d+)(?:,(\d*))?\}", pattern) if isinstance(pattern, str) else []
        if any(int(most or least) > 100 for least, most in counts):
            found.add(str(pattern))
    assert_no_findings(sorted(found), "use maxLength or check the length in the handler")


def test_requests_never_require_a_read_only_property(contract: Node) -> None:
    assert_no_findings(
        [
            f"{name}/{field}"
            for name, schema in list_schemas(contract, request_roots(contract))
            for field in schema.get("required", [])
            if resolve(contract, schema.get("properties", {}).get(field, {})).get("readOnly")
        ],
        "remove it from required, or remove readOnly",
    )


def test_a_multipart_body_has_only_files_and_required_fields(contract: Node) -> None:
    """The fuzzer cannot generate invalid optional text: every value of a form field is valid text."""
    found = []
    for operation in list_operations(contract):
        body = resolve(contract, operation.node.get("requestBody", {}))
        schema = body.get("content", {}).get("multipart/form-data", {}).get("schema")
        if not schema:
            continue
        schema = resolve(contract, schema)
        for field, part in schema["properties"].items():
            part = resolve(contract, part)
            is_text = "enum" in part or part.get("format") == "uuid"
            if field not in schema["required"] or not (part.get("format") == "binary" or is_text):
                found.append(f"{operation.id}/{field}")
    assert_no_findings(found, "make it a required file, enum or uuid")


def test_paths_and_properties_follow_one_spelling(contract: Node) -> None:
    found = []
    for path in contract["paths"]:
        segments = path.strip("/").split("/")
        if path.endswith("}/"):
            found.append(f"{path}: the path of an item has no trailing slash")
        found += [
            path for segment in segments if not re.fullmatch(r"\{[a-z][a-z_]*\}|[a-z][a-z0-9.-]*", segment)
        ]
    for name, schema in all_schemas(contract):
        for field, child in schema.get("properties", {}).items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", field):
                found.append(f"{name}/{field}: not in snake_case")
            if field.endswith("_at") and resolve(contract, child).get("format") != "date-time":
                found.append(f"{name}/{field}: not a date-time")
    assert_no_findings(
        found, "use kebab-case in paths, snake_case in properties, and _at for date-times only"
    )


def test_every_property_has_a_description_and_an_example(contract: Node) -> None:
    found = []
    for name, schema in all_schemas(contract):
        for field, child in schema.get("properties", {}).items():
            child = resolve(contract, child)
            if len(child.get("description", "")) < 6:
                found.append(f"{name}/properties/{field}: no description: add what it means")
            if is_scalar(child) and "example" not in child and child.get("format") != "binary":
                found.append(f"{name}/properties/{field}: no example: add a value that a client would send")
    assert_no_findings(found)


def test_no_name_of_the_implementation_occurs(contract: Node) -> None:
    words = re.compile(
        r"\b(python|handlers?\.|connexion|flask|sqlalchemy|marshmallow|x-openapi-router)", re.IGNORECASE
    )
    # Code samples name the languages of clients.
    samples = "#/components/schemas/OperationSamples"
    nodes = [(pointer, node) for pointer, node in list_nodes(contract) if not pointer.startswith(samples)]
    assert_no_findings(
        [
            pointer
            for pointer, node in nodes
            for value in node.values()
            if isinstance(value, str) and words.search(value)
        ],
        "describe what clients see",
    )
    assert_no_findings(
        [pointer for pointer, node in nodes for key in node if words.search(key)], "use another key"
    )
