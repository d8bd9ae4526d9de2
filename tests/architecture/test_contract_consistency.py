"""Parts of the contract fit each other: sources and bundle, links and operations, requests and responses.

Each rule is also run on a contract with a seeded mistake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from db.errors import TooManyConcurrentRequests
from studio.infrastructure.settings import Settings
from studio.rate_limits.limits import QuotaPolicies
from tests.architecture.bundle import (
    Node,
    assert_no_findings,
    compare_lists,
    list_nodes,
    list_operations,
    list_parameters,
    list_schemas,
    parameter_roots,
    request_roots,
    resolve,
    seed,
)
from tools.review.runtime_expressions import find_wrong_expressions
from tools.review.source_map import SourceMap

UPPER_BOUNDS = ("maximum", "maxLength", "maxItems", "maxProperties")
LOWER_BOUNDS = ("minimum", "minLength", "minItems", "minProperties")
BOUNDS = {*UPPER_BOUNDS, *LOWER_BOUNDS, "type", "enum", "pattern", "multipleOf"}


@pytest.fixture(scope="session")
def sources(root: Path) -> dict[str, Node]:
    """Return the parsed YAML files of the contract by their names, such as `openapi/paths/brands.yaml`."""
    folder = root / "openapi"
    paths = [
        folder / "openapi.yaml",
        folder / "standard.yaml",
        *(path for path in sorted(folder.rglob("*.yaml")) if path.parent != folder),
    ]
    return {
        path.relative_to(root).as_posix(): yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in paths
    }


def find_line(root: Path, name: str, key: str) -> int:
    """Return the line of a key at the start of a line."""
    lines = (root / name).read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.startswith(f"{key}:")), 1)


def find_unnamed_path_items(sources: dict[str, Node]) -> Iterator[tuple[str, str]]:
    """Yield the file and the key of each path item that openapi.yaml does not name."""
    root = sources["openapi/openapi.yaml"]
    named = {
        item["$ref"]
        for word in ("paths", "webhooks")
        for item in root.get(word, {}).values()
        if "$ref" in item
    }
    for name, document in sources.items():
        if name.startswith("openapi/paths/"):
            file = name.removeprefix("openapi/")
            yield from ((name, key) for key in document if f"{file}#/{key}" not in named)


def find_unused_components(sources: dict[str, Node], contract: Node) -> Iterator[tuple[str, str]]:
    """Yield the file and the key of each component that neither the bundle nor a standard part refers to."""
    standard = json.dumps(sources["openapi/standard.yaml"])
    for name, document in sources.items():
        if name.startswith("openapi/components/"):
            kind = Path(name).relative_to("openapi/components").parts[0].removesuffix(".yaml")
            used = contract["components"].get(kind, {})
            yield from ((name, key) for key in document if key not in used and f'"{key}"' not in standard)


def test_every_path_item_and_component_is_used(sources: dict[str, Node], contract: Node, root: Path) -> None:
    assert_no_findings(
        [
            f"{name}:{find_line(root, name, key)} openapi.yaml does not name the path item `{key}`: "
            "add its path there, or remove it"
            for name, key in find_unnamed_path_items(sources)
        ]
        + [
            f"{name}:{find_line(root, name, key)} nothing refers to `{key}`: refer to it, or remove it"
            for name, key in find_unused_components(sources, contract)
        ]
    )
    seeded = seed(sources)
    seeded["openapi/paths/brands.yaml"]["colors"] = {}
    seeded["openapi/components/schemas/brands.yaml"]["Color"] = {}
    assert list(find_unnamed_path_items(seeded)) == [("openapi/paths/brands.yaml", "colors")]
    assert list(find_unused_components(seeded, contract)) == [
        ("openapi/components/schemas/brands.yaml", "Color")
    ]


def find_copied_properties(sources: dict[str, Node]) -> Iterator[tuple[str, str]]:
    """Yield the file and the path of each property that repeats an earlier one of the same name.

    A YAML alias is not a copy: the parser returns the same object.
    """
    for name, document in sources.items():
        if not name.startswith("openapi/components/schemas/"):
            continue
        first: dict[str, list[Node]] = {}
        for schema_name, schema in document.items():
            for field, value in schema.get("properties", {}).items():
                same = [one for one in first.setdefault(field, []) if one == value]
                if not same:
                    first[field].append(value)
                elif same[0] is not value and set(value) != {"$ref"}:
                    yield name, f"{schema_name}/properties/{field}"


def test_a_property_that_schemas_share_is_written_once(sources: dict[str, Node], root: Path) -> None:
    assert_no_findings(
        [
            f"{name}:{find_line(root, name, path.split('/')[0])} {path} is a copy: name the first one with a "
            "YAML anchor (`name: &brand_name`) and write `name: *brand_name` here"
            for name, path in find_copied_properties(sources)
        ]
    )
    seeded = seed(sources)
    brands = seeded["openapi/components/schemas/brands.yaml"]
    brands["BrandUpdate"]["properties"]["name"] = dict(brands["Brand"]["properties"]["name"])
    assert list(find_copied_properties(seeded)) == [
        ("openapi/components/schemas/brands.yaml", "BrandUpdate/properties/name")
    ]


def test_links_and_workflows_read_and_send_what_the_contract_has(contract: Node, root: Path) -> None:
    """The mistakes that it must find are those of `tests/tools/review/seeded_changes.py`."""
    assert_no_findings(find_wrong_expressions(contract, SourceMap(root / "openapi")))


def find_invalid_defaults(contract: Node) -> list[str]:
    """Return the defaults that their own schema rejects."""
    return [
        f"{pointer}/default is invalid by its own schema: {error.message}"
        for pointer, node in list_nodes(contract)
        if "default" in node and not pointer.endswith(("/properties", "/responses"))
        for error in Draft202012Validator(merge_bounds(contract, node)).iter_errors(node["default"])
    ]


def merge_bounds(contract: Node, schema: Node) -> Node:
    """Return the bounds of a schema and of the schemas that it refers to or is composed of."""
    schema = resolve(contract, schema)
    merged: Node = {}
    for part in schema.get("allOf", []):
        merged |= merge_bounds(contract, part)
    if "anyOf" in schema:
        merged["anyOf"] = [merge_bounds(contract, part) for part in schema["anyOf"]]
    merged |= {key: value for key, value in schema.items() if key in BOUNDS}
    return merged


def test_a_default_is_a_valid_value(contract: Node) -> None:
    assert_no_findings(find_invalid_defaults(contract))
    seeded = seed(contract)
    seeded["components"]["parameters"]["Limit"]["schema"]["default"] = 500
    brand = seeded["components"]["schemas"]["BrandCreate"]["properties"]
    brand["state"] = {"type": "string", "enum": ["DRAFT", "READY"], "default": "RETIRED"}
    assert find_invalid_defaults(seeded) == [
        f"#/components/{place}/default is invalid by its own schema: {reason}"
        for place, reason in (
            ("parameters/Limit/schema", "500 is greater than the maximum of 100"),
            ("schemas/BrandCreate/properties/state", "'RETIRED' is not one of ['DRAFT', 'READY']"),
        )
    ]


def find_defaults_that_clients_misread(contract: Node) -> list[str]:
    """Return the defaults that make generators of clients leave out operations or write wrong types.

    They can give a default to a plain type, a list and a referenced enumeration, and to nothing else.
    """
    return [
        pointer
        for pointer, node in list_nodes(contract)
        if "default" in node and not pointer.endswith(("/properties", "/responses"))
        for merged in [merge_composed(contract, node)]
        if isinstance(node["default"], dict) or ("enum" not in merged and {"allOf", "anyOf"} & node.keys())
    ]


def test_generators_of_clients_can_read_each_default(contract: Node) -> None:
    assert_no_findings(
        find_defaults_that_clients_misread(contract),
        "say in the description what an absent value means, and name no default",
    )
    seeded = seed(contract)
    schemas = seeded["components"]["schemas"]
    schemas["Flag"] = {"type": "boolean"}
    null = {"type": "null"}
    schemas["BrandCreate"]["properties"] |= {
        "flag": {"anyOf": [{"$ref": "#/components/schemas/Flag"}, null], "default": True},
        "state": {"anyOf": [{"$ref": "#/components/schemas/ProductStateInput"}, null], "default": "DRAFT"},
        "labels": {"allOf": [{"$ref": "#/components/schemas/MetadataCreate"}], "default": {}},
    }
    place = "#/components/schemas/BrandCreate/properties"
    assert find_defaults_that_clients_misread(seeded) == [f"{place}/flag", f"{place}/labels"]


def find_looser_requests(contract: Node) -> list[str]:
    """Return the bounds of `XCreate` and `XUpdate` that allow values which `X` does not allow.

    The server would store such a value and then fail to return it.
    """
    schemas, found = contract["components"]["schemas"], []
    for name, schema in schemas.items():
        for suffix in ("Create", "Update"):
            read = schemas.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
            for field in set(schema.get("properties", {})) & set((read or {}).get("properties", {})):
                pair = schema["properties"][field], read["properties"][field]
                found += [
                    f"{name}/properties/{field}{text} in {name.removesuffix(suffix)}"
                    for text in compare_bounds(contract, *pair)
                ]
    return found


def compare_bounds(contract: Node, request: Node, response: Node) -> Iterator[str]:
    """Yield what a request allows beyond a response."""
    sent, read = (merge_composed(contract, schema) for schema in (request, response))
    if "readOnly" in sent or "writeOnly" in sent:
        return
    if "data:image/" in sent.get("pattern", ""):
        # The image is stored as a file, and the response has the URL of the file.
        return
    for word in (*UPPER_BOUNDS, *LOWER_BOUNDS):
        limit, own = read.get(word), sent.get(word)
        if limit is None or "enum" in sent or sent.get("format") not in (None, read.get("format")):
            continue
        if own is None or (own > limit if word in UPPER_BOUNDS else own < limit):
            yield f": {word} is {'not set' if own is None else own}, set it to {limit} as"
    possible = list_values(read)
    if possible and (more := [one for one in sent.get("enum", []) if one not in (*possible, None)]):
        yield f": the enum has {more}, remove them or add them"
    if "items" in sent and "items" in read:
        yield from (f"/items{text}" for text in compare_bounds(contract, sent["items"], read["items"]))


def list_values(schema: Node) -> list[Any]:
    """Return the known values of a schema of responses; none without an enumeration."""
    values: list[Any] = schema.get("enum") or schema.get("x-extensible-enum", [])
    return values


def merge_composed(contract: Node, schema: Node) -> Node:
    """Return a schema merged with those of `allOf`, and of `anyOf` if only one of them is not null."""
    schema = resolve(contract, schema)
    branches = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    parts = [*schema.get("allOf", []), *(branches if len(branches) == 1 else [])]
    merged: Node = {}
    for part in parts:
        merged |= merge_composed(contract, part)
    return merged | {key: value for key, value in schema.items() if key not in ("allOf", "anyOf")}


def test_requests_allow_only_values_that_responses_allow(contract: Node) -> None:
    assert_no_findings(find_looser_requests(contract))
    seeded = seed(contract)
    seeded["components"]["schemas"]["ProductCreate"]["properties"]["name"]["maxLength"] = 240
    assert [one for one in find_looser_requests(seeded) if "/name" in one] == [
        "ProductCreate/properties/name: maxLength is 240, set it to 120 as in Product"
    ]


def find_impossible_filters(contract: Node) -> list[str]:
    """Return the values of filters that no row of the list can have."""
    found = []
    for operation in list_operations(contract):
        response = resolve(contract, operation.node["responses"].get("200", {}))
        page = resolve(contract, response.get("content", {}).get("application/json", {}).get("schema", {}))
        rows = resolve(contract, page.get("properties", {}).get("data", {})).get("items", {})
        properties: dict[str, Any] = resolve(contract, rows).get("properties", {})
        for parameter in list_parameters(contract, operation):
            name = parameter["name"]
            possible = list_values(merge_composed(contract, properties.get(name, {})))
            values = merge_composed(contract, parameter["schema"]).get("enum", [])
            if parameter["in"] == "query" and possible:
                found += [
                    f"{operation.id} query {name}: no row can be `{value}`: remove it from the filter"
                    for value in values
                    if value not in possible
                ]
    return found


def find_missing_filters(contract: Node) -> list[str]:
    """Return the filters that lists lack beside another one: `created_before`, and lists of values."""
    found = []
    for operation in list_operations(contract):
        queries = [one for one in list_parameters(contract, operation) if one["in"] == "query"]
        names = {one["name"] for one in queries}
        if not {"limit", "skip"} <= names:
            continue
        wanted = {f"{name}_before" for name in ("created", "updated") if f"{name}_after" in names}
        wanted |= {
            f"{one['name']}_in" for one in queries if "enum" in one["schema"] and one["name"] != "sort"
        }
        found += [f"{operation.id} has no query {name}" for name in sorted(wanted - names)]
    return found


def test_lists_have_equal_filters(contract: Node) -> None:
    assert_no_findings(
        find_missing_filters(contract), "add it: every list has it, see Names of the style guide"
    )
    seeded = seed(contract)
    parameters = seeded["paths"]["/products/"]["get"]["parameters"]
    dropped = ("state_in", "updated_before")
    parameters[:] = [one for one in parameters if resolve(contract, one)["name"] not in dropped]
    assert find_missing_filters(seeded) == [f"list_products has no query {name}" for name in dropped]


def test_a_filter_has_only_values_that_rows_can_have(contract: Node) -> None:
    assert_no_findings(find_impossible_filters(contract))
    seeded = seed(contract)
    parameters = seeded["paths"]["/products/"]["get"]["parameters"]
    state = next(one for one in parameters if one.get("name") == "state")
    state["schema"] = {"type": "string", "enum": ["DRAFT", "RETIRED"]}
    assert find_impossible_filters(seeded) == [
        "list_products query state: no row can be `RETIRED`: remove it from the filter"
    ]


def test_a_list_of_exceptions_that_differs_says_what_to_do() -> None:
    with pytest.raises(AssertionError) as failure:
        compare_lists({"get_brand", ("put_upload", "key")}, {"login"}, "require authentication")
    assert [line for line in str(failure.value).splitlines() if ": " in line] == [
        "get_brand: require authentication",
        "login: is listed in the rule and not in the contract, remove it",
        "put_upload key: require authentication",
    ]


def find_unknown_codes_in_texts(contract: Node) -> list[str]:
    """Return the descriptions that name a problem that `x-problem-codes` does not have: 409 `in_use`."""
    return [
        f"{pointer} names {status} `{code}`: list it in openapi/problem-codes.yaml, or change the description"
        for pointer, node in list_nodes(contract)
        if isinstance(node.get("description"), str)
        for status, code in re.findall(r"\b([45]\d\d) `([a-z_]+)`", node["description"])
        if contract["x-problem-codes"].get(code) != int(status)
    ]


def test_descriptions_name_only_problem_codes_that_are_listed(contract: Node) -> None:
    assert_no_findings(find_unknown_codes_in_texts(contract))
    seeded = {
        "x-problem-codes": {"in_use": 423},
        "get": {"description": "Returns 409 `in_use` or 404 `gone`."},
    }
    assert [one.split(":")[0] for one in find_unknown_codes_in_texts(seeded)] == [
        "#/get names 409 `in_use`",
        "#/get names 404 `gone`",
    ]


def find_unknown_codes(contract: Node) -> list[str]:
    """Return the examples of problems whose code is not in `x-problem-codes`, or has another status there."""
    codes, found = contract["x-problem-codes"], []
    for pointer, node in list_nodes(contract):
        media = node.get("content", {}).get("application/problem+json", {})
        named = [resolve(contract, example).get("value") for example in media.get("examples", {}).values()]
        for example in (one for one in [media.get("example"), *named] if one):
            if codes.get(example["code"]) != example["status"]:
                code = f"`{example['code']}` with {example['status']}"
                found.append(f"{pointer} has the code {code}: list it in openapi/problem-codes.yaml")
    return found


def test_problems_in_examples_have_codes_that_are_listed(contract: Node) -> None:
    assert_no_findings(find_unknown_codes(contract))
    seeded = seed(contract)
    seeded["x-problem-codes"]["still_used"] = seeded["x-problem-codes"].pop("in_use")
    assert find_unknown_codes(seeded)
    assert {one.split(" has ")[1] for one in find_unknown_codes(seeded)} == {
        "the code `in_use` with 409: list it in openapi/problem-codes.yaml"
    }


def test_a_429_can_name_each_limit(contract: Node) -> None:
    policies = QuotaPolicies.from_settings(Settings())
    names = {getattr(policies, field.name).name for field in fields(policies)}
    listed = set(contract["components"]["schemas"]["LimitName"]["x-extensible-enum"])
    assert listed == names | {TooManyConcurrentRequests().policy}


def find_unexplained_patterns(contract: Node) -> list[str]:
    """Return the patterns of requests without a message, and the messages without a pattern."""
    roots = request_roots(contract) + parameter_roots(contract)
    used = {
        one["pattern"]: name
        for name, schema in list_schemas(contract, roots)
        for one in (schema, schema.get("propertyNames", {}))
        if "pattern" in one
    }
    messages = contract["x-pattern-messages"]
    missing = [f"{used[pattern]}: `{pattern}` has no message" for pattern in sorted(used.keys() - messages)]
    return [*missing, *(f"no request has `{pattern}`" for pattern in sorted(messages.keys() - used))]


def test_each_pattern_of_requests_has_a_message(contract: Node) -> None:
    remedy = "edit openapi/patterns.yaml: a regular expression says nothing to most people"
    assert_no_findings(find_unexplained_patterns(contract), remedy)
    seeded = seed(contract)
    seeded["x-pattern-messages"]["^new$"] = seeded["x-pattern-messages"].pop("^msg_[0-9a-f]{32}$")
    assert [one.partition(": ")[2] or one for one in find_unexplained_patterns(seeded)] == [
        "`^msg_[0-9a-f]{32}$` has no message",
        "no request has `^new$`",
    ]
