"""`openapi/standard.yaml`: what bundling adds to operations, and its errors with file and line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.bundle import Node, assert_no_findings
from tools import standard_parts
from tools.preview.sources import SourceError, Sources
from tools.review.source_map import SourceMap
from tools.standard_parts import CONDITIONS, StandardPartsError, add_standard_parts

STANDARD = """\
every operation:
  parameters: [RequestId]
  headers:
    X-Request-Id: RequestId
  responses:
    '400': Malformed
    '500': Defect
with a credential:
  responses:
    '401': Unauthenticated
with a reference to a resource:
  responses:
    '404': NotFound
with content:
  responses:
    '406': NotAcceptable
with the parameter Idempotency-Key:
  headers:
    Idempotency-Replayed: Replayed
  responses:
    '404': NotFoundWithKey
"""
NAMES: dict[str, tuple[str, ...]] = {
    "headers": ("RequestId", "Replayed", "Unused"),
    "responses": (
        *("Malformed", "Defect", "Unauthenticated", "NotFound", "NotFoundWithKey", "NotAcceptable"),
    ),
}


def make_contract(operation: Node) -> Node:
    """Return a contract with one operation at `/things/{thing_id}`, as the bundler returns it."""
    parameters = {
        "RequestId": {"name": "X-Request-Id", "in": "header"},
        "Key": {"name": "Idempotency-Key", "in": "header"},
    }
    item = {"parameters": [{"name": "thing_id", "in": "path"}], "post": operation}
    components: Node = {kind: {name: {"name": name} for name in names} for kind, names in NAMES.items()}
    return {
        "security": [{"Token": []}],
        "paths": {"/things/{thing_id}": item},
        "components": {"securitySchemes": {"Token": {}}, "parameters": parameters, **components},
    }


def bundle(folder: Path, operation: Node, standard: str = STANDARD) -> Node:
    """Return the contract with this operation and its standard parts."""
    source = {"paths": {"/things/{thing_id}": {"post": operation}}}
    (folder / "openapi.yaml").write_text(yaml.safe_dump(source, sort_keys=False), encoding="utf-8")
    (folder / "standard.yaml").write_text(standard, encoding="utf-8")
    contract = make_contract(copy.deepcopy(operation))
    add_standard_parts(contract, folder)
    return contract


def reference(kind: str, name: str) -> Node:
    return {"$ref": f"#/components/{kind}/{name}"}


def test_an_operation_gets_the_parts_of_each_condition_that_it_meets(tmp_path: Path) -> None:
    operation: Node = {
        "operationId": "name_thing",
        "parameters": [reference("parameters", "Key")],
        "requestBody": {"content": {}},
        "responses": {
            "200": {"description": "The thing.", "headers": {"ETag": {}}, "content": {"text/plain": {}}},
            "500": {"description": "Its own."},
        },
    }
    contract = bundle(tmp_path, operation)
    headers = {
        "X-Request-Id": reference("headers", "RequestId"),
        "Idempotency-Replayed": reference("headers", "Replayed"),
    }
    result = contract["paths"]["/things/{thing_id}"]["post"]
    assert result == {
        "operationId": "name_thing",
        "parameters": [reference("parameters", "RequestId"), reference("parameters", "Key")],
        "requestBody": {"content": {}},
        "responses": {
            "200": {
                "description": "The thing.",
                "headers": headers | {"ETag": {}},
                "content": {"text/plain": {}},
            },
            "400": reference("responses", "Malformed"),
            "401": reference("responses", "Unauthenticated"),
            "404": reference("responses", "NotFoundWithKey"),
            "406": reference("responses", "NotAcceptable"),
            "500": {"description": "Its own.", "headers": headers},
        },
    }
    assert list(result) == ["operationId", "parameters", "requestBody", "responses"]
    assert list(result["responses"]) == sorted(result["responses"])
    assert list(result["responses"]["200"]) == ["description", "headers", "content"]
    used = {kind: set(components) for kind, components in contract["components"].items()}
    assert used == {
        "securitySchemes": {"Token"},
        "parameters": {"RequestId", "Key"},
        "headers": {"RequestId", "Replayed"},
        "responses": {"Malformed", "Unauthenticated", "NotFoundWithKey", "NotAcceptable"},
    }


def test_an_operation_can_omit_a_response_with_a_reason(tmp_path: Path) -> None:
    operation: Node = {
        "security": [],
        "x-standard-responses": {"omit": ["404"], "reason": "Things cannot be hidden."},
        "responses": {"204": {"description": "Done."}},
    }
    result = bundle(tmp_path, operation)["paths"]["/things/{thing_id}"]["post"]
    assert list(result["responses"]) == ["204", "400", "500"]
    assert standard_parts.EXTENSION not in result


@pytest.mark.parametrize(
    ("exception", "message"),
    [
        ({"omit": ["404"]}, "must have `omit` (a list of statuses) and `reason`"),
        ({"omit": ["404"], "reason": ""}, "must have `omit` (a list of statuses) and `reason`"),
        ({"omit": ["409"], "reason": "No."}, "409 is not a standard response of this operation"),
    ],
)
def test_a_wrong_exception_is_reported_with_its_place(tmp_path: Path, exception: Node, message: str) -> None:
    operation = {"responses": {}, "x-standard-responses": exception}
    with pytest.raises(StandardPartsError) as caught:
        bundle(tmp_path, operation)
    assert caught.value.place == f"{tmp_path.name}/openapi.yaml:5"
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (
            "with content:",
            "with contents:",
            14,
            "there is no condition `with contents`, only: every operation",
        ),
        ("'500': Defect", "'500': Defects", 7, "components/responses.yaml has no `Defects`"),
        ("[RequestId]", "[RequestID]", 2, "components/parameters.yaml has no `RequestID`"),
        ("  headers:\n    X-", "  header:\n    X-", 1, "`header` is none of: parameters, headers, responses"),
    ],
)
def test_a_wrong_rule_is_reported_with_its_place(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    with pytest.raises(StandardPartsError) as caught:
        bundle(tmp_path, {"responses": {}}, STANDARD.replace(old, new))
    assert caught.value.place == f"{tmp_path.name}/standard.yaml:{line}"
    assert message in caught.value.message


def test_the_preview_reports_the_same_errors(root: Path, tmp_path: Path) -> None:
    edited = (root / "openapi" / "standard.yaml").read_text(encoding="utf-8").replace("Defect", "Defects")
    lines = edited.splitlines()
    folder = tmp_path / "openapi"
    _copy_yaml(root / "openapi", folder)
    (folder / "standard.yaml").write_text(edited, encoding="utf-8")
    with pytest.raises(SourceError) as caught:
        Sources(folder).bundle()
    assert caught.value.file == "openapi/standard.yaml"
    assert lines[caught.value.line - 1] == "    '500': Defects"
    assert caught.value.message == "components/responses.yaml has no `Defects`"


def _copy_yaml(source: Path, target: Path) -> None:
    for path in source.rglob("*.yaml"):
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())


def load_paths(root: Path) -> dict[str, tuple[str, Node]]:
    """Return the file and the YAML of each operation, by its operationId."""
    operations = {}
    for path in sorted((root / "openapi" / "paths").glob("*.yaml")):
        document: dict[str, Node] = yaml.load(path.read_bytes(), yaml.CSafeLoader)
        for item in document.values():
            for node in item.values():
                if isinstance(node, dict) and "operationId" in node:
                    operations[node["operationId"]] = path.name, node
    return operations


def find_repeated_parts(operations: dict[str, tuple[str, Node]], contract: Node, root: Path) -> list[str]:
    """Return the standard parts that operations write themselves."""
    files = {kind: root / "openapi" / "components" / f"{kind}.yaml" for kind in standard_parts.KINDS}
    components = {kind: yaml.safe_load(path.read_bytes()) for kind, path in files.items()}
    rules = standard_parts.load_rules({"components": components}, SourceMap(root / "openapi"))
    found = []
    for subject in standard_parts.list_subjects(contract):
        parts = standard_parts.find_parts(subject, rules)
        name, node = operations[subject.node["operationId"]]
        own: dict[str, Any] = {
            "responses": node["responses"],
            "parameters": {
                one["$ref"].rsplit("/", 1)[-1]: one for one in node.get("parameters", []) if "$ref" in one
            },
        }
        for status, response in node["responses"].items():
            own |= {f"headers of {status}": response.get("headers", {})}
        for kind, repeated in own.items():
            standard = parts[kind.split()[0]]
            found += [
                f"openapi/paths/{name} {node['operationId']}: {kind} {key}"
                for key, value in repeated.items()
                if key in standard
                and value.get("$ref", "").rsplit("/", 1)[-1] == standard[key]["$ref"].rsplit("/", 1)[-1]
            ]
    return found


def test_no_operation_repeats_a_standard_part(root: Path, contract: Node) -> None:
    operations = load_paths(root)
    found = find_repeated_parts(operations, contract, root)
    assert_no_findings([f"{one} is added by openapi/standard.yaml: remove it" for one in found])
    node = operations["create_brand"][1]
    node["parameters"] += [{"$ref": "../components/parameters.yaml#/RequestId"}]
    node["responses"]["409"] = {"$ref": "../components/responses.yaml#/ConflictWithKey"}
    node["responses"]["201"]["headers"]["RateLimit"] = {"$ref": "../components/headers.yaml#/RateLimit"}
    assert find_repeated_parts(operations, contract, root) == [
        "openapi/paths/brands.yaml create_brand: responses 409",
        "openapi/paths/brands.yaml create_brand: parameters RequestId",
        "openapi/paths/brands.yaml create_brand: headers of 201 RateLimit",
    ]


def test_standard_yaml_uses_every_condition(root: Path) -> None:
    text = (root / "openapi" / "standard.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load(text)) == list(CONDITIONS)


def test_no_line_of_the_sources_is_longer_than_120_characters(root: Path) -> None:
    folder = root / "openapi"
    assert_no_findings(
        [
            f"{path.relative_to(root)}:{number} has {len(line)} characters: at most 120"
            for path in sorted(folder.rglob("*.yaml"))
            if path.name != "allowed-breaks.yaml"  # it quotes changes
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if len(line) > 120
        ]
    )
