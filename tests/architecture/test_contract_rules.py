"""What the contract promises about itself and no rule of a linter can say; read off the bundle."""

from __future__ import annotations

import copy
import re
from pathlib import Path

from tests.architecture.bundle import (
    COMPOSITIONS,
    Node,
    all_schemas,
    assert_no_findings,
    list_nodes,
    list_operations,
    list_parameters,
    list_schemas,
    parameter_roots,
    request_roots,
    resolve,
    response_roots,
)


def test_it_is_openapi_3_0_3_below_one_base_path(contract: Node) -> None:
    assert contract["openapi"] == "3.0.3"
    assert [server["url"] for server in contract["servers"]] == ["/api/v1"]


def test_an_operation_has_a_unique_name_and_one_declared_tag(contract: Node) -> None:
    ids = [operation.id for operation in list_operations(contract)]
    assert_no_findings([name for name in ids if ids.count(name) > 1])
    tags = {tag["name"] for tag in contract["tags"]}
    assert_no_findings(
        [operation.id for operation in list_operations(contract) if not set(operation.node["tags"]) <= tags]
    )
    assert_no_findings(
        [operation.id for operation in list_operations(contract) if len(operation.node["tags"]) != 1]
    )


def test_a_summary_has_at_most_six_words_and_a_description_says_more(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        summary, description = operation.node.get("summary", ""), operation.node.get("description", "")
        if not 1 <= len(summary.split()) <= 6:
            found.append(f"{operation.id} summary: {summary!r}")
        if len(description) <= len(summary) or description.rstrip(".") == summary.rstrip("."):
            found.append(f"{operation.id} description: {description!r}")
    assert_no_findings(found)


def test_every_operation_is_limited_and_tells_what_is_left_or_says_why_not(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        responses, excused = operation.node["responses"], "x-not-limited" in operation.node
        if ("429" in responses) == excused:
            found.append(f"{operation.id}: declares 429 and x-not-limited, or neither")
        for status in (one for one in responses if one < "400" and not excused):
            if not {"RateLimit-Policy", "RateLimit"} <= set(
                resolve(contract, responses[status]).get("headers", {})
            ):
                found.append(f"{operation.id} {status}: does not tell what is left")
    assert_no_findings(found)


def find_undeclared_deprecations(contract: Node) -> list[str]:
    """Return the good answers of deprecated operations that do not declare what they say about it."""
    return [
        f"{operation.id} {status}"
        for operation in list_operations(contract)
        if operation.node.get("deprecated")
        for status in operation.node["responses"]
        if status < "400"
        and not {"Deprecation", "Sunset", "Link"}
        <= set(resolve(contract, operation.node["responses"][status]).get("headers", {}))
    ]


def find_unannounced_deprecations(contract: Node, changelog: str) -> list[str]:
    """Return the deprecated operations of which the changelog does not tell."""
    return [
        operation.id
        for operation in list_operations(contract)
        if operation.node.get("deprecated") and f"`{operation.id}`" not in changelog
    ]


def test_what_is_deprecated_declares_the_headers_that_say_so_and_was_announced(
    contract: Node, root: Path
) -> None:
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert_no_findings(find_undeclared_deprecations(contract))
    assert_no_findings(find_unannounced_deprecations(contract, changelog))
    ended = copy.deepcopy(contract)
    ended["paths"]["/brands/"]["get"]["deprecated"] = True
    assert find_undeclared_deprecations(ended) == ["list_brands 200"]
    assert find_unannounced_deprecations(ended, changelog) == ["list_brands"]
    assert find_unannounced_deprecations(ended, changelog + "`list_brands` is deprecated") == []


def test_what_was_made_or_accepted_says_where_it_is(contract: Node) -> None:
    assert_no_findings(
        [
            f"{operation.id} {status}"
            for operation in list_operations(contract)
            for status in ("201", "202")
            if status in operation.node["responses"]
            for headers in [resolve(contract, operation.node["responses"][status]).get("headers", {})]
            if not resolve(contract, headers.get("Location", {})).get("required")
        ]
    )


def test_a_create_links_to_what_can_follow(contract: Node) -> None:
    """Stateful testing walks these links."""
    assert_no_findings(
        [
            operation.id
            for operation in list_operations(contract)
            if "201" in operation.node["responses"]
            and not resolve(contract, operation.node["responses"]["201"]).get("links")
        ]
    )


def test_exactly_the_creating_operations_accept_an_idempotency_key(
    contract: Node,
) -> None:
    found = []
    for operation in list_operations(contract):
        starts = operation.method == "post" and bool({"201", "202"} & set(operation.node["responses"]))
        wanted = starts and bool(operation.node.get("security", contract["security"]))
        takes = any(one["name"] == "Idempotency-Key" for one in list_parameters(contract, operation))
        if takes != wanted:
            found.append(f"{operation.id}: {'takes none' if wanted else 'takes one'}")
        success = [code for code in ("201", "202") if takes and code in operation.node["responses"]]
        for code in [*success, *({"404", "409"} & set(operation.node["responses"]) if takes else ())]:
            headers = resolve(contract, operation.node["responses"][code]).get("headers", {})
            if "Idempotency-Replayed" not in headers:
                found.append(f"{operation.id} {code}: does not tell a replay")
    assert_no_findings(found)


def test_every_tool_reads_a_parameter_alike(contract: Node) -> None:
    found = []
    for operation in list_operations(contract):
        for parameter in list_parameters(contract, operation):
            name = f"{operation.id} {parameter['in']} {parameter['name']}"
            schema = parameter.get("schema", {})
            if "type" not in schema or "$ref" in schema or any(word in schema for word in COMPOSITIONS):
                found.append(f"{name}: no plain type")
            if len(parameter.get("description", "")) < 6:
                found.append(f"{name}: no description")
            if parameter["in"] in ("header", "cookie") and (
                schema.get("type") != "string" or "pattern" in schema or schema.get("minLength", 0) > 1
            ):
                found.append(f"{name}: a header is a string, bounded by length only")
    assert_no_findings(found)


def test_a_reference_stands_alone(contract: Node) -> None:
    """Siblings of `$ref` are dropped by some tools and honoured by others."""
    assert_no_findings(
        [
            pointer
            for pointer, node in list_nodes(contract)
            if isinstance(node.get("$ref"), str) and len(node) > 1 and not pointer.endswith("/properties")
        ]
    )


def test_nullable_stands_beside_a_type(contract: Node) -> None:
    found = []
    for name, schema in all_schemas(contract):
        if schema.get("nullable") and ("type" not in schema or any(word in schema for word in COMPOSITIONS)):
            found.append(name)
        if schema.get("nullable") and schema.get("type") == "boolean":
            found.append(f"{name}: a boolean is never null")
        if schema.get("nullable") and "enum" in schema and None not in schema["enum"]:
            found.append(f"{name}: nullable, but its enum lacks null")
    assert_no_findings(found)


def test_what_generators_make_a_type_of_has_a_name(contract: Node) -> None:
    """Without one they make up `GenderType2Type1`. What is always the same value needs none, nor null."""
    components = contract["components"]["schemas"]
    found = []
    for name, schema in list_schemas(contract, request_roots(contract) + response_roots(contract)):
        values = [value for value in schema.get("enum", []) if value is not None]
        is_object = schema.get("type") == "object" and schema.get("enum") != [None]
        if (len(values) > 1 or is_object) and schema not in components.values():
            found.append(f"{name}: no component")
    for name, schema in components.items():
        nullable = schema.get("nullable", False) and ("enum" in schema or schema["type"] == "object")
        if nullable and not (name.startswith("Nullable") and schema.get("title") == name[len("Nullable") :]):
            found.append(f"{name}: what may be null is called Nullable..., and its title names the value")
        twin = components.get(name.removeprefix("Nullable"))
        if nullable and twin and [*twin.get("enum", []), None] != schema["enum"]:
            found.append(f"{name}: other values than where it may not be null")
    assert_no_findings(found)


def test_free_text_excludes_the_null_character(contract: Node) -> None:
    """PostgreSQL cannot store U+0000, so the schema does not let it in."""
    roots = request_roots(contract) + [
        root for root in parameter_roots(contract) if " header " not in root[0]
    ]
    assert_no_findings(
        [
            name
            for name, schema in list_schemas(contract, roots)
            if schema.get("type") == "string" and not {"enum", "format", "pattern"} & set(schema)
        ]
    )


def test_a_date_time_input_is_one_that_python_can_hold(contract: Node) -> None:
    roots = request_roots(contract) + parameter_roots(contract)
    assert_no_findings(
        [
            name
            for name, schema in list_schemas(contract, roots)
            if schema.get("format") == "date-time" and "pattern" not in schema and not schema.get("readOnly")
        ]
    )


def test_required_never_names_a_read_only_property_of_a_request(contract: Node) -> None:
    assert_no_findings(
        [
            f"{name}/{field}"
            for name, schema in list_schemas(contract, request_roots(contract))
            for field in schema.get("required", [])
            if resolve(contract, schema.get("properties", {}).get(field, {})).get("readOnly")
        ]
    )


def test_a_multipart_body_is_the_file_and_what_is_required(contract: Node) -> None:
    """Optional text beside a file cannot be fuzzed truthfully: it reaches the server as text in any case."""
    found = []
    for operation in list_operations(contract):
        body = resolve(contract, operation.node.get("requestBody", {}))
        schema = body.get("content", {}).get("multipart/form-data", {}).get("schema")
        if not schema:
            continue
        schema = resolve(contract, schema)
        for field, part in schema["properties"].items():
            part = resolve(contract, part)
            text = "enum" in part or part.get("format") == "uuid"
            if field not in schema["required"] or not (part.get("format") == "binary" or text):
                found.append(f"{operation.id}/{field}")
    assert_no_findings(found)


def test_paths_and_properties_are_spelled_one_way(contract: Node) -> None:
    found = []
    for path in contract["paths"]:
        segments = path.strip("/").split("/")
        if path.endswith("}/"):
            found.append(f"{path}: the path of an item has no slash at the end")
        found += [
            path for segment in segments if not re.fullmatch(r"\{[a-z][a-z_]*\}|[a-z][a-z0-9.-]*", segment)
        ]
    for name, schema in all_schemas(contract):
        for field, child in schema.get("properties", {}).items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", field):
                found.append(f"{name}/{field}: snake_case")
            if field.endswith("_at") and resolve(contract, child).get("format") != "date-time":
                found.append(f"{name}/{field}: a time")
    assert_no_findings(found)


def test_every_property_is_described_and_exemplified(contract: Node) -> None:
    found = []
    for name, schema in all_schemas(contract):
        for field, child in schema.get("properties", {}).items():
            child = resolve(contract, child)
            if len(child.get("description", "")) < 6:
                found.append(f"{name}/{field}: description")
            scalar = child.get("type") in ("string", "integer", "number", "boolean")
            if scalar and "example" not in child and child.get("format") != "binary":
                found.append(f"{name}/{field}: example")
    assert_no_findings(found)


def test_no_name_of_the_implementation_appears(contract: Node) -> None:
    words = re.compile(
        r"\b(python|handlers?\.|connexion|flask|sqlalchemy|marshmallow|x-openapi-router)", re.IGNORECASE
    )
    # It names the languages of callers.
    samples = "#/components/schemas/OperationSamples"
    told = [(pointer, node) for pointer, node in list_nodes(contract) if not pointer.startswith(samples)]
    assert_no_findings(
        [
            pointer
            for pointer, node in told
            for value in node.values()
            if isinstance(value, str) and words.search(value)
        ]
    )
    assert_no_findings([pointer for pointer, node in told for key in node if words.search(key)])
