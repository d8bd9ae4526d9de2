"""`sartiq-conformance diff`: the comparison of any two OpenAPI documents, as customers run it."""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tools.review.seeded_changes import (
    BREAKING_CHANGES,
    EDITS,
    HARMLESS_CHANGES,
    Edit,
)
from tests.tools.review.test_edits import pack
from tools.conformance.sartiq_conformance.diff.changes import find_changes, list_changes
from tools.conformance.sartiq_conformance.diff.documents import DocumentError, normalize
from tools.conformance.sartiq_conformance.diff.reading import load_document
from tools.review.tools import BUNDLE, ROOT, read_bundle

Document = dict[str, Any]
OWN_EDITS = {"the required permission changes", "a role loses its permission"}
"""Edits of what only this project's contract has."""
OWN_CHANGES = (
    *("The problem code ", "The status of the problem code ", "The webhook event ", "The permission "),
    *("API keys ", "Guests ", "The audit log ", "The body must now be signed", "The signature of the body "),
    *(
        "The maximum size ",
        "The maximum number ",
        "The operation has no rate limit",
        "The operation now has a",
    ),
    *("`list_invitations` needs ", "`list_destinations` is no longer allowed "),
)
"""What the gate says about the extensions and lists that only this project's contract has."""


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command, and returns its exit status and what it printed."""
    monkeypatch.syspath_prepend(ROOT / "tools" / "conformance")
    command = importlib.import_module("sartiq_conformance.command")

    def run_command(old: Document | str, new: Document | str, *options: str) -> tuple[int, str, str]:
        names = []
        for name, document in (("old", old), ("new", new)):
            path = tmp_path / f"{name}.json"
            text = document if isinstance(document, str) else json.dumps(document)
            path.write_text(text, encoding="utf-8")
            names.append(str(path))
        try:
            status = command.main(["diff", *names, *options])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_command


def build(**operation: Any) -> Document:
    """Return a document with one operation and one schema."""
    pet = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "maxLength": 20}, "tag": {"type": "string"}},
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pets", "version": "1.0.0"},
        "paths": {
            "/pets/{id}": {
                "get": {
                    "parameters": [
                        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
                        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 50}},
                    ],
                    "responses": {"200": {"description": "A pet.", "content": content}},
                    **operation,
                }
            }
        },
        "components": {"schemas": {"Pet": pet}},
    }


def change(document: Document, *steps: str | int, **values: Any) -> Document:
    """Return a copy in which members of the object at these steps have other values; None removes them."""
    changed = copy.deepcopy(document)
    node: Any = changed
    for step in steps:
        node = node[step]
    node.update(values)
    for name in (name for name, value in values.items() if value is None):
        del node[name]
    return changed


def list_texts(old: Document, new: Document) -> set[str]:
    return {f"{one.impact}: {one.text}" for one in list_changes(old, new)}


def is_about(operation_id: str, entry: Document) -> bool:
    """Return whether an entry of the report is about an operation. A renamed one has its new operationId."""
    return operation_id in entry["operations"] or f"`{operation_id}`" in entry["text"]


def test_the_seeded_edits_have_the_verdicts_of_the_gate(
    run: Callable[..., tuple[int, str, str]], contract: Callable[[], Document], tmp_path: Path
) -> None:
    broken, compatible, report = contract(), contract(), tmp_path / "report.json"
    edits = [edit for edit in BREAKING_CHANGES if edit.name not in OWN_EDITS]
    for edit in edits:
        edit.make(broken)
    status, _, errors = run(contract(), broken, "--json", str(report))
    assert (status, errors) == (1, "")
    found = [one for one in json.loads(report.read_text())["changes"] if one["impact"] == "breaking"]
    assert [
        edit.name
        for edit in edits
        if not any(is_about(edit.operation, one) and edit.words in one["text"] for one in found)
    ] == []
    assert [one["text"] for one in found if not any(is_about(edit.operation, one) for edit in edits)] == []
    for harmless in HARMLESS_CHANGES:
        harmless.make(compatible)
    status, _, errors = run(contract(), compatible, "--json", str(report))
    assert (status, errors) == (0, "")
    assert json.loads(report.read_text())["counts"]["breaking"] == 0


@pytest.mark.slow("it compares the contract with twenty edited ones; the test above does it with two")
def test_every_edit_is_reported_as_by_the_gate(contract: Callable[[], Document]) -> None:
    def find_differences(group: list[Edit]) -> list[str]:
        edited = contract()
        for edit in group:
            edit.make(edited)
        reported = list_texts(contract(), edited)
        listed = [
            text
            for edit in group
            for text in edit.changes
            if not text.partition(": ")[2].startswith(OWN_CHANGES)
        ]
        missing = [text for text in listed if not any(one.startswith(text) for one in reported)]
        return missing + [one for one in reported if not one.startswith(tuple(listed) or ("-",))]

    assert [one for group in pack(EDITS, contract) for one in find_differences(group)] == []


def test_the_3_0_form_of_the_contract_is_the_same_contract() -> None:
    """What 3.0 cannot say is the only difference: `propertyNames`, and null as one branch of several."""
    documents = [read_bundle(ROOT / "openapi" / name) for name in ("openapi.json", "openapi-3.0.json")]
    found = [one for pair in (documents, documents[::-1]) for one in list_changes(*pair)]
    important = {one.text for one in found if one.impact in ("breaking", "security", "deprecated", "added")}
    assert {text for text in important if "propertyNames" not in text} == {
        "`ShotBatchResult.body`: a condition no longer applies.",
        "`ShotBatchResult.body`: another condition applies.",
    }


def test_a_released_contract_is_compared_with_the_present_one() -> None:
    released = read_bundle(ROOT / "openapi" / "released" / "0.2.0.json")
    assert any(one.impact == "added" for one in list_changes(released, read_bundle(BUNDLE)))
    assert list_changes(released, released) == []


def test_keywords_of_3_0_are_those_of_3_1() -> None:
    def build_with(version: str, components: Document, **schema: Any) -> Document:
        body = {"content": {"application/json": {"schema": {"type": "object", "properties": schema}}}}
        document = build(requestBody=body) | {"openapi": version}
        document["components"]["schemas"] |= components
        return document

    old = build_with(
        "3.0.3",
        {"NullableKind": {"type": "string", "enum": ["cat", None], "nullable": True}},
        name={"type": "string", "nullable": True},
        age={"type": "integer", "minimum": 0, "exclusiveMinimum": True, "exclusiveMaximum": False},
        kind={"allOf": [{"$ref": "#/components/schemas/NullableKind"}], "description": "Kind."},
        owner={"allOf": [{"$ref": "#/components/schemas/Pet"}], "nullable": True},
    )
    new = build_with(
        "3.1.0",
        {"Kind": {"type": "string", "enum": ["cat"]}},
        name={"type": ["string", "null"]},
        age={"type": "integer", "exclusiveMinimum": 0},
        kind={"anyOf": [{"$ref": "#/components/schemas/Kind"}, {"type": "null"}], "description": "Kind."},
        owner={"anyOf": [{"$ref": "#/components/schemas/Pet"}, {"type": "null"}]},
    )
    assert list_texts(old, new) == {
        "changed: The document: openapi is `3.1.0`, was `3.0.3`.",
        "imports: The schema `NullableKind` is named `Kind` now.",
    }
    del new["paths"]["/pets/{id}"]["get"]["requestBody"]["content"]["application/json"]["schema"][
        "properties"
    ]["name"]["type"][1]
    assert "breaking: The request body as `application/json`: `name` can no longer be null." in list_texts(
        old, new
    )


PATH = ("paths", "/pets/{id}")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            build(),
            change(build(), "paths", **{"/pets/{id}": None, "/animals/{id}": build()["paths"]["/pets/{id}"]}),
            {
                "breaking: `GET /pets/{id}` was removed.",
                "added: `GET /animals/{id}` is new.",
                "security: `GET /animals/{id}` can be called by everybody, without authentication.",
            },
            id="operations without an operationId have the names of their paths",
        ),
        pytest.param(
            build(),
            change(build(), *PATH, "get", "parameters", 1, "schema", maximum=10),
            {"breaking: The query parameter `limit`: maximum is `10`, was `50`."},
            id="a parameter accepts fewer values",
        ),
        pytest.param(
            build(),
            change(build(), *PATH, get=None, **{"$ref": "#/components/pathItems/Pets"})
            | {"components": build()["components"] | {"pathItems": {"Pets": build()["paths"]["/pets/{id}"]}}},
            set(),
            id="a path item becomes a component",
        ),
        pytest.param(
            build(),
            change(
                build(),
                "components",
                "schemas",
                "Pet",
                "properties",
                name={"$ref": "#/components/schemas/Name"},
            )
            | {
                "components": {
                    "schemas": {
                        "Name": {"type": "string", "maxLength": 20},
                        "Pet": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {
                                "name": {"$ref": "#/components/schemas/Name"},
                                "tag": {"type": "string"},
                            },
                        },
                    }
                }
            },
            set(),
            id="a schema becomes a component",
        ),
        pytest.param(
            build(),
            change(build(), "components", "schemas", "Pet", "properties", tag=True),
            {"breaking: `Pet.tag`: type is not set, was `string`."},
            id="a property may be anything",
        ),
        pytest.param(
            build(
                callbacks={"done": {"{$url}": {"post": {"requestBody": {"content": {}}, "responses": {}}}}}
            ),
            build(
                callbacks={
                    "done": {
                        "{$url}": {
                            "post": {"requestBody": {"required": True, "content": {}}, "responses": {}}
                        }
                    }
                }
            ),
            {"changed: The callback `done`: the request body can no longer be missing."},
            id="the server sends the request of a callback",
        ),
        pytest.param(
            build(security=[{"a": [], "b": []}]),
            build(security=[{"b": []}]),
            {"security: `GET /pets/{id}` also accepts `b`."},
            id="one of two credentials is enough",
        ),
        pytest.param(
            build(security=[{"a": ["read"]}]),
            build(security=[{"a": ["read", "write"]}]),
            {"breaking: Security requirement `a` needs more scopes: `write`."},
            id="a credential needs another scope",
        ),
        pytest.param(
            build(),
            build(security=[{"a": []}]),
            {"breaking: Authentication became required."},
            id="authentication becomes required",
        ),
    ],
)
def test_documents_of_others_are_compared(old: Document, new: Document, expected: set[str]) -> None:
    assert list_texts(old, new) == expected


def test_the_exit_status_is_that_of_the_worst_change(run: Callable[..., tuple[int, str, str]]) -> None:
    old = build()
    added = change(old, "components", "schemas", "Pet", "properties", color={"type": "string"})
    assert run(old, old)[0] == 0
    status, printed, _ = run(old, added)
    assert status == 0
    assert "    GET /pets/{id}\n      `Pet.color` is new.\n" in printed
    assert printed.splitlines()[-1].startswith("1 added from ")
    assert run(old, added, "--fail-on", "any")[0] == 1
    assert run(old, old, "--fail-on", "any")[0] == 0
    assert run(added, old)[0] == 1
    assert run(added, old, "--fail-on", "none")[0] == 2
    assert run(added, old, "--markdown", str(ROOT))[0] == 2


def test_the_reports_have_every_change(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    reports = [tmp_path / "reports" / name for name in ("diff.md", "diff.json")]
    new = change(build(), *PATH, "get", "parameters", 1, "schema", maximum=10) | {
        "info": {"title": "Pets", "version": "1.1.0"}
    }
    assert run(build(), new, "--markdown", str(reports[0]), "--json", str(reports[1]))[0] == 1
    text = "The query parameter `limit`: maximum is `10`, was `50`."
    assert f"### Breaking\n\n- `GET /pets/{{id}}`\n  - {text} For example: `11`.\n" in reports[0].read_text()
    written = json.loads(reports[1].read_text())
    assert written["changes"] == [
        {
            "impact": "breaking",
            "text": text,
            "operations": ["GET /pets/{id}"],
            "pointers": ["#/paths/~1pets~1{id}/get/parameters/1/schema/maximum"],
            "example": "11",
            "accepted": None,
        }
    ]
    del written["changes"]
    counts = dict.fromkeys(written["counts"], 0) | {"breaking": 1}
    assert written == {
        "format": 1,
        "status": 1,
        "old": {"version": "1.0.0"},
        "new": {"version": "1.1.0"},
        "counts": counts,
        "stale_entries": [],
    }


def test_an_accepted_change_does_not_fail_until_its_day(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    old = build()
    new = change(old, "components", "schemas", "Pet", "properties", tag=None)
    path = tmp_path / "accepted.yaml"
    entry = "- change: '`Pet.tag` was removed.'\n  reason: Our client does not read it.\n  until: {}\n"
    path.write_text(entry.format("2999-12-31"))
    status, printed, _ = run(old, new, "--ignore", str(path))
    assert status == 0
    assert "Allowed: Our client does not read it." in printed
    path.write_text(entry.format("2020-12-31"))
    status, printed, _ = run(old, new, "--ignore", str(path))
    assert status == 1
    assert f"{path} allows this change until 2020-12-31 only: `Pet.tag` was removed." in printed
    status, printed, _ = run(old, old, "--ignore", str(path))
    assert status == 0
    assert f"{path} allows a change that was not made, remove it: `Pet.tag` was removed." in printed


def test_the_printed_entry_accepts_the_change(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    old = build()
    new = change(old, "paths", "/pets/{id}", get=None)
    _, printed, _ = run(old, new)
    lines = printed.partition("--ignore:\n")[2].splitlines()
    path = tmp_path / "accepted.yaml"
    path.write_text("\n".join(lines).replace("reason:", "reason: We do not call it."))
    assert run(old, new, "--ignore", str(path))[0] == 0


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("a: b", "is not a list of entries"),
        ("- text", "has a wrong entry 1: it needs a `change`"),
        ("- {change: a, reason: b, until: 2027-01-01, to: c}", "has an entry 1 with `to`"),
        ("- {change: a, reason: ' ', until: 2027-01-01}", "has no `reason` in entry 1"),
        ("- {change: a, reason: b, until: 2027-02-30}", "write a day such as 2027-03-31"),
        ("- {change: a, reason: b, until: 2027-01-01, operations: some}", "has a wrong entry 1"),
        ("- {change: [", ":2 is no YAML: "),
    ],
)
def test_a_wrong_ignore_file_is_one_sentence(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, entries: str, message: str
) -> None:
    path = tmp_path / "accepted.yaml"
    path.write_text(entries)
    status, _, errors = run(build(), build(), "--ignore", str(path))
    assert status == 2
    assert errors.startswith(f"sartiq-conformance diff: {path}")
    assert message in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "openapi": "3.1.0",\n}', ":3 is no JSON: "),
        ("openapi: 3.1.0\npaths:\n  a: b: c\n", ":3 is no YAML: mapping values are not allowed"),
        ("- openapi", " is no OpenAPI document: it is not an object"),
        ("info: {}", " is no OpenAPI document: it has no `openapi`"),
        ("swagger: '2.0'", " is a Swagger 2.0 document: convert it to OpenAPI 3 first"),
        ("openapi: 3.2.0", " is OpenAPI 3.2.0: only 3.0 and 3.1 are compared"),
        ("openapi: 3.1.0\npaths: []", " #/paths is not an object"),
        ("openapi: 3.1.0\npaths: {/a: {get: {parameters: {}}}}", " #/paths/~1a/get/parameters is not a list"),
        (
            "openapi: 3.1.0\npaths: {/a: {$ref: 'a.yaml#/a'}}",
            " #/paths/~1a refers to another file, a.yaml#/a: bundle the files to one document first",
        ),
        (
            "openapi: 3.1.0\ncomponents: {schemas: {A: {$ref: '#/components/schemas/B'}}}",
            " #/components/schemas/A refers to #/components/schemas/B, which does not exist",
        ),
        (
            "openapi: 3.1.0\ncomponents: {schemas: {A: {$ref: '#/components/schemas/A'}}}",
            " #/components/schemas/A refers to #/components/schemas/A, which refers to itself",
        ),
        (
            "openapi: 3.1.0\ncomponents: {schemas: {A: {$ref: '#A'}}}",
            " #/components/schemas/A refers to #A, which is no JSON pointer to the place of a Schema",
        ),
        ("[" * 5000, " is no YAML: exceeded maximum nesting depth"),
    ],
)
def test_a_document_that_cannot_be_compared_is_one_sentence(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / ("document.json" if text.startswith("{") else "document.yaml")
    path.write_text(text)
    with pytest.raises(DocumentError):
        load_document(path)
    for documents in ((text, build()), (build(), text)):
        status, printed, errors = run(*documents)
        assert (status, printed) == (2, "")
        assert message in errors
        assert len(errors.splitlines()) == 1


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "document.yaml"
    path.write_bytes(b"openapi: \xff")
    with pytest.raises(DocumentError, match="cannot be read: it is not UTF-8"):
        load_document(path)
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        load_document(tmp_path / "missing.yaml")


def test_yaml_is_read_as_its_json(tmp_path: Path) -> None:
    path = tmp_path / "document.yaml"
    path.write_text(
        "openapi: 3.1.0\ninfo: {title: Pets, version: 2027-01-01}\n"
        "paths:\n  /pets:\n    get:\n      description:\n      responses:\n        200: {description: yes}\n"
    )
    document = load_document(path)
    assert document["info"]["version"] == "2027-01-01"
    assert document["paths"]["/pets"]["get"]["responses"] == {"200": {"description": "yes"}}


def test_the_package_can_be_executed() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tools" / "conformance")}
    outcome = subprocess.run(
        [sys.executable, "-m", "sartiq_conformance", "diff", str(BUNDLE), str(BUNDLE)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.startswith("no changes from ")


NAMES = st.sampled_from(["a", "b", "anyOf", "$ref", "properties", "x-c", "schema", "example"])
VALUES = st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "a", "b"])
REFERENCES = st.sampled_from(["A", "B", "C"]).map(lambda name: {"$ref": f"#/components/schemas/{name}"})


def build_schemas(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(schemas, min_size=1, max_size=3)
    maps = st.dictionaries(NAMES, schemas, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "object", "array", ["integer", "null"], "number"]),
            "nullable": st.booleans(),
            "enum": st.lists(VALUES | st.just({"a": 1}), min_size=1, max_size=3),
            "const": VALUES,
            "default": VALUES | st.just({"a": 1}) | st.just([[1]]),
            "example": st.just({"$ref": "no reference", "schema": 1}) | VALUES,
            "minimum": st.integers(0, 3),
            "exclusiveMinimum": st.integers(0, 3),
            "maxLength": st.integers(0, 3),
            "pattern": st.sampled_from(["^a", "[", r"\x00", "(?<=a)b"]),
            "required": st.lists(NAMES, max_size=2),
            "readOnly": st.booleans(),
            "x-extensible-enum": st.lists(VALUES, max_size=2) | st.just(True),
            "properties": maps,
            "patternProperties": st.dictionaries(st.just("^a"), schemas, max_size=1),
            "items": schemas,
            "additionalProperties": schemas,
            "prefixItems": lists,
            "allOf": lists,
            "anyOf": lists,
            "oneOf": lists,
            "not": schemas,
            "$defs": maps,
            "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2), max_size=1),
            "discriminator": st.just({"propertyName": "a", "mapping": {"a": "A"}}),
        },
    ) | st.builds(lambda reference, text: {**reference, "description": text}, REFERENCES, st.just("a"))


SCHEMAS = st.recursive(st.booleans() | REFERENCES | st.just({}), build_schemas, max_leaves=6)
MEDIA = st.dictionaries(
    st.sampled_from(["application/json", "text/plain"]),
    st.fixed_dictionaries({}, optional={"schema": SCHEMAS}),
    max_size=2,
)
PARAMETERS = st.lists(
    st.builds(
        lambda name, place, schema: {
            "name": name,
            "in": place,
            "required": place == "path",
            "schema": schema,
        },
        NAMES,
        st.sampled_from(["query", "path", "header"]),
        SCHEMAS,
    ),
    max_size=3,
    unique_by=lambda one: (one["in"], one["name"]),
)
OPERATIONS = st.fixed_dictionaries(
    {
        "responses": st.dictionaries(
            st.sampled_from(["200", "201", "default", "x-note"]),
            st.builds(lambda content: {"description": "a", "content": content}, MEDIA),
            max_size=2,
        )
    },
    optional={
        "operationId": st.sampled_from(["one", "two"]),
        "tags": st.lists(st.sampled_from(["a", "b"]), max_size=2),
        "parameters": PARAMETERS,
        "requestBody": st.builds(lambda content: {"content": content}, MEDIA),
        "security": st.lists(st.sampled_from([{}, {"key": []}, {"key": ["a"]}]), max_size=2),
        "callbacks": st.just({"done": {"{$url}": {"post": {"responses": {}}}}}),
    },
)
ITEMS = st.fixed_dictionaries({}, optional={"get": OPERATIONS, "post": OPERATIONS, "parameters": PARAMETERS})
DOCUMENTS = st.builds(
    lambda version, paths, webhooks, schemas: {
        "openapi": version,
        "info": {"title": "a", "version": "1"},
        "paths": paths,
        "webhooks": webhooks,
        "components": {"schemas": schemas},
    },
    st.sampled_from(["3.0.3", "3.1.0"]),
    st.dictionaries(st.sampled_from(["/", "/a/{b}", "/a/{c}", "/b"]), ITEMS, max_size=2),
    st.dictionaries(st.sampled_from(["a", "b"]), ITEMS, max_size=1),
    st.fixed_dictionaries({"A": SCHEMAS, "B": SCHEMAS, "C": SCHEMAS}),
)


def is_comparable(document: Document) -> bool:
    """Return whether no component refers to itself at once."""
    try:
        normalize(document)
    except DocumentError:
        return False
    return True


@given(DOCUMENTS.filter(is_comparable), DOCUMENTS.filter(is_comparable))
@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),  # how long whole documents take to draw is not the subject
)
def test_any_two_documents_are_compared(old: Document, new: Document) -> None:
    originals = copy.deepcopy([old, new])
    assert list(find_changes(old, old)) == []
    for one in list_changes(old, new):
        assert one.text
        assert one.pointer.startswith("#")
    assert [old, new] == originals


def test_the_order_of_members_and_parameters_is_no_change() -> None:
    def reverse(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: reverse(child) for key, child in reversed(node.items())}
        return [reverse(child) for child in node] if isinstance(node, list) else node

    new = reverse(build())
    new["paths"]["/pets/{id}"]["get"]["parameters"].reverse()
    assert list_changes(build(), new) == []


def test_a_schema_that_refers_to_itself_is_compared() -> None:
    old = build()
    old["components"]["schemas"]["Pet"]["properties"]["children"] = {
        "type": "array",
        "items": {"allOf": [{"$ref": "#/components/schemas/Pets"}]},
    }
    old["components"]["schemas"]["Pets"] = {
        "type": "array",
        "items": {"anyOf": [{"$ref": "#/components/schemas/Pets"}, {"type": "null"}]},
    }
    new = change(old, "components", "schemas", "Pets", maxItems=3)
    assert list_changes(old, old) == []
    assert {one.impact for one in list_changes(old, new)} == {"changed"}
