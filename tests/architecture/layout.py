"""The first four layout rules of docs/architecture.md, as functions from facts to findings.

`test_layout.py` applies each to this project and to a seeded violation. Imports inside functions and for type
checkers count as well: a reader has to follow them in the same way.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any

from grimp import ImportGraph

from tests.architecture.sources import PACKAGES, Module

HANDLER_MODULES = {"app", "__main__"}
HANDLER_PACKAGES = {"common", "contract", "pages", "pipeline", "schemas", "server"}
ENGINE = "handlers.contract"
ENGINE_EXTENSIONS = frozenset(
    {
        "x-deprecated-at",
        "x-documented",
        "x-event-data",
        "x-extensible-enum",
        "x-ignores-unknown-parameters",
        "x-max-body-bytes",
        "x-max-items",
        "x-pattern-messages",
        "x-replacement",
        "x-sunset",
    }
)
"""The extensions of OpenAPI that `handlers.contract` gives a meaning. Others are policies of the server."""
_EXTENSION = re.compile(r"""["'`](x-[a-z-]+)["'`]""")
_POLICY = re.compile(
    r"permission|superuser|guest|audit|api.?key|rate.?limit|probe|idempotency|is_signed|[\"']utils",
    re.IGNORECASE,
)

SHARED_SERVICES = {
    # Checks, which write nothing.
    "catalog.image_limits.require_image_capacity": "limits the images of products and of subjects",
    "catalog.visibility.check_may_publish": "guards every resource that can be public",
    "webhooks.endpoints.require_capacity": "limits endpoints; the handler creates the row",
    # Values, which write nothing.
    "mail.mailer.find_mailer": "sends mail for several operations",
    "mail.mailer.get_mailer": "sends mail for several operations",
    "generations.inputs.resolve": "reads the inputs of a generation; create_generation writes it",
    "generations.inputs.sharing_rows": "loads rows once for several shots; nothing is stored",
    "generations.snapshot.freeze": "copies the inputs of a generation; create_generation writes it",
    "media.signing.sign_share": "signs a URL; nothing is stored",
    "infrastructure.storage.export_folder": "the key of an export's files, which the handler deletes",
    "providers.config.merge_secrets": "keeps masked secrets; the handler replaces the row",
    "webhooks.events.preload_products": "loads rows once for the events of a batch; nothing is stored",
    "webhooks.signing.generate_salt": "a new secret; the handler creates the row",
    # Steps of writes that several operations have, or that handlers complete.
    "accounts.identity.email_changes.request_email_change": "one part of update_current_user",
    "accounts.organizations.require_second_factor": "one part of update_organization",
    "accounts.identity.sessions.revoke_access_token": "one of two kinds of token that revoke_token takes",
    "accounts.identity.sessions.revoke_refresh_token": "one of two kinds of token that revoke_token takes",
    "catalog.slugs.insert_with_slug": "inserts every resource that has a slug",
    "catalog.visibility.sync_media_visibility": "follows every write of a resource that can be public",
    "cutouts.requests.request_cutout": "queues the cut-out of each new photo",
    "products.product_images.add_product_image": "add_product_image and add_product_image_from_url",
    "products.products.create_product_unless_taken": "one of two outcomes of put_product_by_external_id",
    "products.products.lock_new_products": "a lock that batches and imports share; nothing is stored",
    "products.products.update_product": "update_product and put_product_by_external_id",
    "shootings.shootings.change_phase": "one part of update_shooting",
    "shootings.shootings.change_shot_types": "create_look and update_look",
    "shootings.shootings.touch": "create_look and update_look",
    "products.transfers.transfer": "moves products, brands, styles, subjects and guidelines",
    "webhooks.endpoints.update_webhook_endpoint": "create_webhook_endpoint fills a new row with it",
}
"""Functions of studio (without `studio.`) that handlers of writes call and that have another name."""


def find_misplaced_handlers(names: Iterable[str], packages: Iterable[str], tags: Iterable[str]) -> list[str]:
    """Return the differences between the modules of `handlers` and the tags of the contract (rule 1).

    Args:
        names: The modules directly in `handlers`, without `__init__`.
        packages: The packages directly in `handlers`.
        tags: The tags that operations of the contract have.
    """
    expected = {tag.replace("-", "_") for tag in tags} | HANDLER_MODULES
    modules, folders = set(names), set(packages)
    return [
        *(f"handlers/{name}.py is not a tag of the contract" for name in sorted(modules - expected)),
        *(f"handlers/{name}.py is missing" for name in sorted(expected - modules)),
        *(f"handlers/{name}/ is not a known package" for name in sorted(folders - HANDLER_PACKAGES)),
        *(f"handlers/{name}/ is missing" for name in sorted(HANDLER_PACKAGES - folders)),
    ]


def find_impure_imports(graph: ImportGraph) -> list[str]:
    """Return the imports with which the contract engine leaves itself (rule 2)."""
    return [
        f"{importer} imports {imported}"
        for importer in sorted(graph.modules)
        if is_within(importer, ENGINE)
        for imported in sorted(graph.find_modules_directly_imported_by(importer))
        if imported.partition(".")[0] in PACKAGES and not is_within(imported, ENGINE)
    ]


def find_policies(modules: Iterable[Module]) -> list[str]:
    """Return the places at which the contract engine names a policy of the server (rule 2)."""
    return [
        f"{module.name}:{number} names {word}"
        for module in modules
        if module.name.startswith("handlers/contract/")
        for number, line in enumerate(module.text.splitlines(), 1)
        for word in [
            *(name for name in _EXTENSION.findall(line) if name not in ENGINE_EXTENSIONS),
            *_POLICY.findall(_EXTENSION.sub("", line)),
        ]
    ]


def find_import_cycle(graph: ImportGraph) -> list[str]:
    """Return the imports of one cycle between the packages and modules of `studio`, or nothing (rule 3)."""
    imports: dict[str, dict[str, str]] = {}
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            source, target = find_child(importer), find_child(imported)
            if source and target and source != target:
                imports.setdefault(source, {}).setdefault(target, f"{importer} imports {imported}")
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        # Each name in the list is imported by the next one.
        cycle: list[str] = error.args[1]
        return [imports[importer][imported] for imported, importer in pairwise(cycle)]
    return []


def is_within(module: str, package: str) -> bool:
    """Return whether a module is the package or inside it."""
    return module == package or module.startswith(package + ".")


def find_child(module: str) -> str | None:
    """Return the package or module directly in `studio` that a module belongs to."""
    return ".".join(module.split(".")[:2]) if module.startswith("studio.") else None


@dataclass
class Act:
    """An operation that writes, and the functions of studio that its handler calls, without `studio.`."""

    operation_id: str
    services: set[str] = field(default_factory=set)
    imported_names: set[str] = field(default_factory=set)
    """The services that are imported by name instead of called through their module."""


def list_acts(contract: Mapping[str, Any], modules: Iterable[Module]) -> list[Act]:
    """Return the writes of the contract and what their handlers call, directly or within their module."""
    by_name = {module.name: module for module in modules}
    acts = []
    for item in contract["paths"].values():
        for method in item.keys() & {"post", "put", "patch", "delete"}:
            operation = item[method]
            module = by_name[f"handlers/{operation['tags'][0].replace('-', '_')}.py"]
            acts.append(build_act(operation["operationId"], module.tree))
    return acts


def build_act(operation_id: str, tree: ast.Module) -> Act:
    """Return one write from the syntax tree of its handler's module."""
    imports = {
        alias.asname or alias.name: f"{node.module}.{alias.name}".removeprefix("studio").removeprefix(".")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "studio"
        for alias in node.names
    }
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    act, seen, pending = Act(operation_id), set(), [operation_id]
    while pending:
        name = pending.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Name):
                pending.append(node.id)
                if node.id in imports and node.id.islower() and not is_module(imports[node.id]):
                    act.services.add(imports[node.id])
                    act.imported_names.add(imports[node.id])
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.attr.islower()
                and is_module(imports.get(node.value.id, ""))
            ):
                act.services.add(f"{imports[node.value.id]}.{node.attr}")
    return act


def is_module(name: str) -> bool:
    """Return whether a dotted name below studio is a module or package."""
    path = Path("studio", *name.split("."))
    return bool(name) and (path.is_dir() or path.with_suffix(".py").is_file())


def find_misnamed_services(acts: Iterable[Act], shared: Mapping[str, str]) -> list[str]:
    """Return the writes whose service does not have the operationId as its name (rule 4).

    A write follows the rule if its handler calls a function with its name, or only shared functions. Services
    are called through their module, because the handler has the same name.
    """
    findings = []
    for act in acts:
        named = {service for service in act.services if service.rpartition(".")[2] == act.operation_id}
        findings += [
            f"{act.operation_id}: call {service} through its module" for service in named & act.imported_names
        ]
        if not named:
            findings += [
                f"{act.operation_id}: rename studio.{service}, or list it in SHARED_SERVICES"
                for service in sorted(act.services - shared.keys())
            ]
    return findings


def find_misleading_names(
    services: Iterable[str], acts: Iterable[Act], shared: Mapping[str, str]
) -> list[str]:
    """Return the functions of studio with the name of a write whose handler does not call them (rule 4)."""
    by_id = {act.operation_id: act.services for act in acts}
    return [
        f"studio.{service} is not called by the handler of {name}"
        for service in sorted(services)
        if (name := service.rpartition(".")[2]) in by_id and service not in by_id[name] | shared.keys()
    ]


def find_unmentioned_operations(operation_ids: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Return the operationIds that no test names (rule 4)."""
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    return sorted(set(operation_ids) - words)
