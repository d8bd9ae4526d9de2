"""Errors of a contract that stock Connexion finds at the first request, or never, are found at start."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from handlers.contract.errors import ContractError
from tests.contract.mini.server import create_mini_app, load_mini_document
from tests.contract.mini.widgets import list_widgets

Change = Callable[[dict[str, Any]], None]


def start_error(change: Change) -> str:
    """Return the error message for a changed contract."""
    document = load_mini_document()
    change(document)
    with pytest.raises(ContractError) as error:
        create_mini_app(document)
    return str(error.value)


def widgets(document: dict[str, Any]) -> dict[str, Any]:
    return document["paths"]["/widgets/"]["get"]


def test_a_missing_handler_is_named() -> None:
    assert "has no function list_gadgets" in start_error(
        lambda d: widgets(d).update(operationId="list_gadgets")
    )


def test_an_unknown_tag_is_named() -> None:
    assert "the tag gad-gets needs a module tests.contract.mini.gad_gets" in start_error(
        lambda d: widgets(d).update(tags=["gad-gets"])
    )


def test_two_tags_or_none_are_rejected() -> None:
    assert "list_widgets needs one tag" in start_error(
        lambda d: widgets(d).update(tags=["widgets", "open-things"])
    )
    assert "list_widgets needs one tag" in start_error(lambda d: widgets(d).pop("tags"))


def test_a_missing_or_repeated_operation_id_is_rejected() -> None:
    assert "needs a unique operationId" in start_error(lambda d: widgets(d).pop("operationId"))
    assert "needs a unique operationId" in start_error(lambda d: widgets(d).update(operationId="get_widget"))


def test_arguments_that_differ_from_the_contract_are_named() -> None:
    def rename(document: dict[str, Any]) -> None:
        document["paths"]["/widgets/"]["post"]["parameters"][0]["name"] = "modus"

    message = start_error(rename)
    assert "create_widget has the argument mode, which the contract does not have" in message
    assert "create_widget lacks the argument modus, which the contract has" in message


def test_a_missing_body_argument_is_named() -> None:
    def add_body(document: dict[str, Any]) -> None:
        operation = document["paths"]["/file"]["get"]
        operation["requestBody"] = {"content": {"application/json": {"schema": {}}}}
        operation["responses"] |= {"413": {"description": "large"}, "415": {"description": "other"}}

    assert "get_file lacks the argument body" in start_error(add_body)


@pytest.mark.parametrize(
    ("permission", "message"),
    [
        ("brands:write", "list_widgets requires brands:read, the contract says brands:write"),
        (None, "list_widgets requires brands:read, the contract says None"),
        ("castles:build", "castles:build, which is not a permission"),
    ],
)
def test_a_permission_that_differs_is_named(permission: str | None, message: str) -> None:
    assert message in start_error(lambda d: widgets(d).update({"x-permission": permission}))


def test_only_public_operations_authenticate_requests_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_widgets, "__authenticates_itself__", True, raising=False)
    with pytest.raises(ContractError, match="list_widgets authenticates requests itself"):
        create_mini_app(load_mini_document())


def test_all_errors_are_reported_together() -> None:
    def break_two(document: dict[str, Any]) -> None:
        widgets(document)["operationId"] = "list_gadgets"
        document["paths"]["/file"]["get"]["operationId"] = "get_folder"

    message = start_error(break_two)
    assert "list_gadgets" in message
    assert "get_folder" in message


def test_a_broken_reference_is_rejected() -> None:
    assert "#/components/schemas/Nothing" in start_error(
        lambda d: widgets(d)["responses"].update({"200": {"$ref": "#/components/schemas/Nothing"}})
    )


@pytest.mark.parametrize("schema", [{"type": "text"}, {"type": "string", "pattern": "("}, {"minimum": "1"}])
def test_a_schema_that_does_not_compile_is_rejected(schema: dict[str, Any]) -> None:
    def break_schema(document: dict[str, Any]) -> None:
        document["components"]["schemas"]["WidgetCreate"]["properties"]["name"] = schema

    assert "does not compile" in start_error(break_schema)


@pytest.mark.parametrize(
    "parameter",
    [
        {"name": "x", "in": "query", "schema": {"anyOf": [{"type": "string"}]}},
        {"name": "x", "in": "query", "schema": {"type": "object"}},
        {"name": "X-N", "in": "header", "schema": {"type": "integer"}},
        {"name": "n", "in": "cookie", "schema": {"type": "string"}},
        {"name": "x", "in": "query", "style": "pipeDelimited", "schema": {"type": "array"}},
        {"name": "x", "in": "path", "required": True, "schema": {"type": "string"}},
    ],
)
def test_a_parameter_that_would_fail_at_request_time_is_rejected(parameter: dict[str, Any]) -> None:
    assert "list_widgets" in start_error(lambda d: widgets(d)["parameters"].append(parameter))


def test_an_undeclared_path_parameter_is_rejected() -> None:
    assert "differ" in start_error(lambda d: d["paths"].update({"/x/{y}": d["paths"].pop("/file")}))


def test_an_undeclared_status_of_the_framework_is_rejected() -> None:
    assert "list_widgets does not declare 401" in start_error(lambda d: widgets(d)["responses"].pop("401"))
    assert "create_widget does not declare 415" in start_error(
        lambda d: d["paths"]["/widgets/"]["post"]["responses"].pop("415")
    )


@pytest.mark.parametrize("version", ["3.0.3", "3.2.0", None])
def test_other_versions_of_openapi_are_rejected(version: str | None) -> None:
    assert "must be OpenAPI 3.1" in start_error(lambda document: document.update(openapi=version))


def test_the_middleware_stack_is_built_before_the_first_request() -> None:
    assert create_mini_app().middleware.middleware_stack is not None


def test_a_part_of_the_contract_can_be_served() -> None:
    from tests.contract.mini.server import RecordingDatabase, build_caller, create_app

    app = create_app(
        create_mini_app().settings,
        bundle=load_mini_document(),
        package="tests.contract.mini",
        database=RecordingDatabase(),
        load_caller=build_caller,
        tags=["open-things"],
    )
    tag_of = {
        operation["operationId"]: operation["tags"][0]
        for item in load_mini_document()["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert {tag_of[name] for name in app.endpoints} == {"open-things"}


def test_the_document_is_freed_after_compilation() -> None:
    class Document(dict[str, Any]):
        """A dict that supports weak references."""

    document = Document(load_mini_document())
    reference = weakref.ref(document)
    app = create_mini_app(document)
    del document
    gc.collect()
    assert app.endpoints
    assert reference() is None
