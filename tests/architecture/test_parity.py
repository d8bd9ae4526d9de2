"""Facts that two places need are equal: permissions, argument names, settings, problem codes."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from handlers.common.permissions import API_KEYS, EVERY_KEY, Permission
from studio.rendering.model import PredictionWarning
from tests.architecture.bundle import Node, list_operations
from tests.architecture.sources import Module, format_findings
from tests.generators.page import render_generators
from tools.permission_matrix import TEXT, render_markdown
from tools.project import list_mismatches
from tools.reference import PAGES as REFERENCE_PAGES

PAGES = {**REFERENCE_PAGES, "reference/generators": render_generators}


def test_each_operation_has_a_handler_with_its_permission_and_arguments(contract: dict) -> None:
    """The server compares them at each start."""
    assert not (found := list_mismatches(contract)), format_findings(found)


def test_s03_an_operation_accepts_api_keys_if_keys_can_have_its_permission(contract: dict) -> None:
    """The scopes of API keys are permissions."""
    users, both = [{"OAuth2PasswordBearer": []}], [{"OAuth2PasswordBearer": []}, {"ApiKey": []}]
    found = []
    for operation in list_operations(contract):
        security = operation.node.get("security", contract["security"])
        expected = both if operation.node.get("x-permission") in API_KEYS | EVERY_KEY else users
        if security and security != expected:
            found.append(f"{operation.id}: {security}")
    assert not found, format_findings(found)


def test_every_permission_is_required_by_an_operation(contract: dict) -> None:
    required = {operation.node.get("x-permission") for operation in list_operations(contract)} - {None}
    assert required == {str(permission) for permission in Permission}


def test_the_contract_grants_each_permission(contract: dict) -> None:
    assert contract["x-permissions"].keys() == {str(permission) for permission in Permission}


def test_s03_the_matrix_has_a_row_for_every_operation(contract: dict) -> None:
    """A change of permissions shows in the diff of one file."""
    text = TEXT.read_text(encoding="utf-8")
    listed = re.findall(r"^\| `\S+ \S+` \| (\w+) \|", text, re.MULTILINE)
    assert listed
    assert sorted(listed) == sorted(operation.id for operation in list_operations(contract))
    assert text == render_markdown(contract), "Stale: run `make openapi`, and read what has changed."


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_reference_page_is_fresh(root: Path, page: str) -> None:
    written = (root / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert written == PAGES[page](), "Stale: run `make docs-reference`."


def test_only_the_settings_read_environment_variables(modules: list[Module]) -> None:
    found = [
        f"{module.name}:{node.lineno}"
        for module in modules
        if module.name != "studio/infrastructure/settings.py"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) in ("os.environ", "os.getenv")
    ]
    assert not found, format_findings(found)


def test_the_mock_has_the_version_of_the_contract(root: Path, contract: Node) -> None:
    mock = yaml.safe_load((root / "openapi" / "mock.yaml").read_text(encoding="utf-8"))
    assert mock["info"]["version"] == contract["info"]["version"]


def test_the_contract_names_every_problem_code(root: Path, modules: list[Module]) -> None:
    """Clients depend on problem codes, so each code that can be raised is documented."""
    names = ("openapi.json", "mock.yaml")
    contract = "".join((root / "openapi" / name).read_text(encoding="utf-8") for name in names)
    classes = [node for module in modules for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    unnamed = [
        f"{node.name}: {code}"
        for node in classes
        if node.name not in bases and (code := find_code(node))
        if not re.search(rf"\b{code}\b", contract)
    ]
    assert not unnamed, format_findings(unnamed)


def test_the_contract_names_every_warning_of_predictions(contract: dict) -> None:
    """A response with another value is rejected, and with it the list that the prediction is in."""
    assert contract["components"]["schemas"]["PredictionWarning"]["x-extensible-enum"] == [
        *get_args(PredictionWarning)
    ]


def find_code(node: ast.ClassDef) -> str | None:
    """Return the problem code that an exception class sets."""
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            target, value = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value:
            target, value = statement.target, statement.value
        else:
            continue
        if ast.unparse(target) == "code" and isinstance(value, ast.Constant):
            return str(value.value)
    return None
