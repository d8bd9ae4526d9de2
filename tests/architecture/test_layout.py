"""The layout of this project: each rule holds, and each rule notices a seeded violation."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import grimp
import pytest
from grimp import ImportGraph

from tests.architecture.bundle import list_operations
from tests.architecture.layout import (
    SHARED_SERVICES,
    Act,
    build_act,
    find_import_cycle,
    find_impure_imports,
    find_misleading_names,
    find_misnamed_services,
    find_misplaced_handlers,
    find_policies,
    find_unmentioned_operations,
    list_acts,
)
from tests.architecture.sources import PACKAGES, Module, format_findings


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    """All imports of this project, those within functions and for type checkers included."""
    return grimp.build_graph(*PACKAGES, cache_dir=None)


@pytest.fixture(scope="module")
def acts(contract: dict[str, Any], modules: list[Module]) -> list[Act]:
    return list_acts(contract, modules)


def build_graph(*imports: tuple[str, str]) -> ImportGraph:
    """Return a graph of these imports."""
    graph = ImportGraph()
    for importer, imported in imports:
        graph.add_import(importer=importer, imported=imported)
    return graph


# Rule 1


def test_the_modules_of_handlers_are_the_tags_of_the_contract(root: Path, contract: dict[str, Any]) -> None:
    tags = {tag for operation in list_operations(contract) for tag in operation.node["tags"]}
    names = {path.stem for path in (root / "handlers").glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (root / "handlers").glob("*/__init__.py")}
    assert not (found := find_misplaced_handlers(names, packages, tags)), format_findings(found)


def test_a_misplaced_handler_is_noticed() -> None:
    packages = {"common", "contract", "pages", "pipeline", "schemas", "helpers"}
    assert find_misplaced_handlers(
        {"app", "__main__", "brands", "paging"}, packages, {"brands", "shot-types"}
    ) == [
        "handlers/paging.py is not a tag of the contract",
        "handlers/shot_types.py is missing",
        "handlers/helpers/ is not a known package",
        "handlers/server/ is missing",
    ]


# Rule 2


def test_the_contract_compiler_is_pure(graph: ImportGraph) -> None:
    assert not (found := find_impure_imports(graph)), format_findings(found)


@pytest.mark.parametrize(
    "imported", ["db.session", "studio.infrastructure.settings", "handlers.brands", "handlers.common.context"]
)
def test_an_impure_import_is_noticed(imported: str) -> None:
    graph = build_graph(
        ("handlers.contract.router", imported), ("handlers.contract.router", "handlers.contract.errors")
    )
    assert find_impure_imports(graph) == [f"handlers.contract.router imports {imported}"]


def test_the_contract_compiler_names_no_policy(modules: list[Module]) -> None:
    assert not (found := find_policies(modules)), format_findings(found)


def test_a_named_policy_is_noticed(root: Path) -> None:
    module = Module(root / "handlers" / "contract" / "operations.py")
    vars(module)["text"] = (
        'a = raw.get("x-max-items")\nb = raw.get("x-guest-access")\nAPI_KEY_SCHEME = "ApiKey"\n'
    )
    place = "handlers/contract/operations.py"
    assert find_policies([module]) == [
        f"{place}:2 names x-guest-access",
        f"{place}:3 names API_KEY",
        f"{place}:3 names ApiKey",
    ]


# Rule 3


def test_the_packages_of_studio_import_each_other_without_a_cycle(graph: ImportGraph) -> None:
    assert not (found := find_import_cycle(graph)), format_findings(found)


def test_an_import_cycle_is_noticed() -> None:
    graph = build_graph(
        ("studio.jobs.maintenance", "studio.media.uploads"),
        ("studio.media.uploads", "studio.billing.usage"),
        ("studio.billing.usage", "studio.jobs.periodic"),
        ("studio.billing.usage", "studio.state_machines"),
        ("studio.media.uploads", "studio.media.images"),
    )
    assert sorted(find_import_cycle(graph)) == [
        "studio.billing.usage imports studio.jobs.periodic",
        "studio.jobs.maintenance imports studio.media.uploads",
        "studio.media.uploads imports studio.billing.usage",
    ]


def test_imports_within_a_package_are_no_cycle() -> None:
    assert not find_import_cycle(
        build_graph(("studio.media.s3", "studio.media.files"), ("studio.media.files", "studio.media.s3"))
    )


# Rule 4


def test_a_service_has_the_name_of_its_operation(acts: list[Act]) -> None:
    assert not (found := find_misnamed_services(acts, SHARED_SERVICES)), format_findings(found)


def test_only_the_service_of_an_operation_has_its_name(acts: list[Act], modules: list[Module]) -> None:
    services = [
        f"{module.name.removeprefix('studio/').removesuffix('.py').replace('/', '.')}.{node.name}"
        for module in modules
        if module.name.startswith("studio/")
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef)
    ]
    assert not (found := find_misleading_names(services, acts, SHARED_SERVICES)), format_findings(found)


def test_shared_services_are_called(acts: list[Act]) -> None:
    called = {service for act in acts for service in act.services}
    assert sorted(SHARED_SERVICES.keys() - called) == []


def test_every_operation_is_named_in_a_test(root: Path, contract: dict[str, Any]) -> None:
    texts = [
        path.read_text(encoding="utf-8")
        for folder in ("api", "contract")
        for path in (root / "tests" / folder).rglob("*.py")
    ]
    ids = [operation.id for operation in list_operations(contract)]
    found = [
        f"{name}: name it in tests/api or tests/contract" for name in find_unmentioned_operations(ids, texts)
    ]
    assert not found, format_findings(found)


HANDLERS = """
from studio.billing import billing
from studio.accounts import organizations as studio
from studio.catalog.brands import delete_brand as studio_delete_brand
from studio.catalog.slugs import insert_with_slug

def delete_organization(id): _load(id)
def _load(id): studio.remove_row(id)
def create_brand(): insert_with_slug()
def renew_subscription(): billing.renew_subscription(billing.Charge)
def delete_brand(): studio_delete_brand()
"""


def test_a_service_with_another_name_is_noticed() -> None:
    tree = ast.parse(HANDLERS)
    names = ("delete_organization", "create_brand", "renew_subscription", "delete_brand")
    acts = [build_act(name, tree) for name in names]
    assert [act.services for act in acts] == [
        {"accounts.organizations.remove_row"},
        {"catalog.slugs.insert_with_slug"},
        {"billing.billing.renew_subscription"},
        {"catalog.brands.delete_brand"},
    ]
    assert find_misnamed_services(acts, {"catalog.slugs.insert_with_slug": "shared"}) == [
        "delete_organization: rename studio.accounts.organizations.remove_row, or list it in SHARED_SERVICES",
        "delete_brand: call catalog.brands.delete_brand through its module",
    ]


def test_a_function_with_the_name_of_an_operation_that_does_not_call_it_is_noticed() -> None:
    acts = [Act("delete_brand", {"catalog.brands.delete_brand"})]
    services = [
        "catalog.brands.delete_brand",
        "infrastructure.storage.delete_brand",
        "infrastructure.storage.delete_file",
    ]
    assert find_misleading_names(services, acts, {}) == [
        "studio.infrastructure.storage.delete_brand is not called by the handler of delete_brand"
    ]


def test_an_operation_without_a_test_is_noticed() -> None:
    texts = ["def test_list_brands_is_sorted():", "call('get_brand')"]
    assert find_unmentioned_operations(["get_brand", "list_brands", "create_brand"], texts) == [
        "create_brand",
        "list_brands",
    ]
