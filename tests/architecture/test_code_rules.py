"""The rules of the house that can be read off the source: sizes, nesting, tenancy, reasons for exceptions."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

import db.models
from db.base import Base, Owned
from tests.architecture.sources import Module, format_findings

MAX_MODULE_LINES = 400
MAX_HANDLER_LINES = 15
MAX_NESTING = 2
for _module in pkgutil.iter_modules(db.models.__path__):
    importlib.import_module(f"db.models.{_module.name}")


IMAGE_DECODER_MODULE = "studio/media/inspection.py"


def test_a_module_has_at_most_400_lines(all_modules: list[Module]) -> None:
    """The history of the database is exempt: its steps are written once and never read as a whole."""
    counts = {m.name: len(m.text.splitlines()) for m in all_modules if m.path.parent.name != "versions"}
    too_long = [f"{name}: {count} lines" for name, count in counts.items() if count > MAX_MODULE_LINES]
    assert not too_long, format_findings(too_long)


def test_a_module_with_code_says_what_it_is_for(all_modules: list[Module]) -> None:
    silent = [m.name for m in all_modules if m.tree.body and not ast.get_docstring(m.tree)]
    assert not silent, format_findings(silent)


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its signature, which the contract dictates, and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return sum((statement.end_lineno or 0) - statement.lineno + 1 for statement in body)


def test_a_handler_has_at_most_15_lines(modules: list[Module], contract: dict) -> None:
    operation_ids = {
        operation["operationId"]
        for item in contract["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict) and "operationId" in operation
    }
    too_long = [
        f"{module.name}:{function.lineno} {function.name}: {code_lines(function)} lines"
        for module in modules
        if module.path.parent.name == "handlers"
        for function in module.functions()
        if function.name in operation_ids and code_lines(function) > MAX_HANDLER_LINES
    ]
    assert not too_long, format_findings(too_long)


def adds_nesting(node: ast.AST) -> bool:
    """Tell whether a statement makes its inside harder to follow; a guard that only leaves does not."""
    if isinstance(node, ast.If) and not node.orelse and len(node.body) == 1:
        return not isinstance(node.body[0], ast.Continue | ast.Break | ast.Return | ast.Raise)
    return isinstance(node, ast.If | ast.For | ast.AsyncFor | ast.While | ast.Match)


def find_deep_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    """Yield the lines of branches and loops deeper than allowed; an elif is no deeper than its if."""

    def walk(node: ast.AST, depth: int, is_elif: bool = False) -> Iterator[int]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            return
        if isinstance(node, ast.stmt) and adds_nesting(node):
            depth += not is_elif
            if depth > MAX_NESTING:
                yield node.lineno
        for field, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            is_else_if = field == "orelse" and len(children) == 1 and isinstance(node, ast.If)
            for child in (child for child in children if isinstance(child, ast.AST)):
                yield from walk(child, depth, is_elif=is_else_if and isinstance(child, ast.If))

    for statement in function.body:
        yield from walk(statement, 0)


def test_a_function_is_nested_two_levels_deep_at_most_or_says_why(modules: list[Module]) -> None:
    deep = [
        f"{module.name}:{line} in {function.name}"
        for module in modules
        for function in module.functions()
        for line in find_deep_lines(function)
        if not has_reason(module, line - 1, line, "nested")
    ]
    assert not deep, format_findings(deep)


def has_reason(module: Module, first: int, last: int, word: str) -> bool:
    """Tell whether a comment `# word: reason` stands on one of the lines, or in the block just above."""
    while first - 1 in module.comments and module.text.splitlines()[first - 2].lstrip().startswith("#"):
        first -= 1
    pattern = re.compile(rf"# {word}: \S+ \S+")
    return any(pattern.search(module.comments.get(line, "")) for line in range(first, last + 1))


def list_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, int, int]]:
    """Yield every call with the first and last line of its statement (of itself, in the head of a block)."""
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.stmt):
            continue
        is_block = hasattr(statement, "body") or isinstance(statement, ast.Match)
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                continue
            for call in (node for node in ast.walk(child) if isinstance(node, ast.Call)):
                lines = call if is_block else statement
                yield call, lines.lineno, lines.end_lineno or lines.lineno


def bypasses_tenancy(call: ast.Call, owned_names: set[str]) -> bool:
    """Tell whether a call reads or changes rows of an owned model without `db.tenancy`."""
    target, name = ast.unparse(call.func).rpartition(".")[::2]
    if "session" in target:
        return name in ("get", "get_one", "merge")
    starts = name in ("select", "update", "delete") and target in ("", "sa", "sqlalchemy")
    if not (starts or name == "select_from"):
        return False
    named = {part.id for argument in call.args for part in ast.walk(argument) if isinstance(part, ast.Name)}
    return bool(named & owned_names)


def find_unscoped_reads(module: Module, owned_names: set[str]) -> Iterator[int]:
    """Yield the lines of statements that read rows of tenants past db/tenancy.py and do not say why."""
    for call, first, last in list_calls(module.tree):
        if bypasses_tenancy(call, owned_names) and not has_reason(module, first, last, "unscoped"):
            yield call.lineno


def test_rows_of_tenants_are_read_through_tenancy_or_the_line_says_why(modules: list[Module]) -> None:
    def descendants(model: type) -> Iterator[type]:
        for child in model.__subclasses__():
            yield child
            yield from descendants(child)

    owned_names = {model.__name__ for model in descendants(Owned)}
    assert {"Brand", "Shot"} <= owned_names
    found = [
        f"{module.name}:{line}"
        for module in modules
        if module.name != "db/tenancy.py" and not module.name.startswith(("db/models/", "db/migrations/"))
        for line in find_unscoped_reads(module, owned_names)
    ]
    assert not found, format_findings(found)


def test_a_scope_is_made_by_tenancy_only(modules: list[Module]) -> None:
    """A handler that made one could list the rows of everybody."""
    makers = {"Scope", "ScopeKind", "in_scope"}
    found = [
        module.name
        for module in modules
        if module.name != "handlers/common/pagination.py"
        and any(
            makers & {one.name for one in node.names}
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ImportFrom) and node.module == "db.tenancy"
        )
    ]
    assert not found, format_findings(found)


@pytest.mark.parametrize(
    "source",
    [
        "session.get(Brand, brand_id)",
        "session().get(Brand, brand_id)",
        "select(Brand).where(Brand.id == 1)",
        "select(func.count(Brand.id))",
        "delete(Brand)",
        "select(func.count()).select_from(Brand)",
        "select(Brand)  # unscoped:",
    ],
)
def test_the_tenancy_lint_sees_a_read_without_a_reason(source: str, tmp_path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(source + "\n")
    assert list(find_unscoped_reads(Module(path), {"Brand"})), source


@pytest.mark.parametrize(
    "source",
    [
        "owned(Brand).where(Brand.id == 1)",
        "settings.get('Brand')",
        "session().delete(get_for_change(Brand, brand_id))",
        "# unscoped: nobody's rows\nstatement = (\n    delete(Brand)\n    .returning(Brand.id)\n)",
        "select(Other)",
        "select(  # unscoped: the worker acts for nobody\n    Brand\n)",
        "# unscoped: the worker acts for nobody\nselect(Brand)",
    ],
)
def test_the_tenancy_lint_lets_scoped_and_explained_reads_pass(source: str, tmp_path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(source + "\n")
    assert list(find_unscoped_reads(Module(path), {"Brand"})) == []


def test_relationships_never_load_behind_ones_back() -> None:
    lazy = [
        f"{mapper.class_.__name__}.{relationship.key}"
        for mapper in Base.registry.mappers
        for relationship in mapper.relationships
        if relationship.lazy not in ("raise", "write_only")
    ]
    assert not lazy, format_findings(lazy)


def test_an_exception_from_a_check_carries_its_reason_on_its_line(all_modules: list[Module]) -> None:
    silent = [
        f"{module.name}:{line} {comment}"
        for module in all_modules
        for line, comment in module.comments.items()
        if re.search(r"#\s*(noqa|type:\s*ignore)", comment)
        and not re.search(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\]) +(- |# )?\S+( \S+)+", comment)
    ]
    assert not silent, format_findings(silent)


def test_a_skipped_test_says_why(all_modules: list[Module]) -> None:
    silent = []
    for module in all_modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "pytest.mark.skip",
                "pytest.mark.skipif",
                "pytest.mark.xfail",
            ):
                silent.append((module, node))
    without = [
        f"{module.name}:{node.lineno}"
        for module, node in silent
        if not any(
            isinstance(call, ast.Call) and call.func is node and any(k.arg == "reason" for k in call.keywords)
            for call in ast.walk(module.tree)
        )
    ]
    assert not without, format_findings(without)


def test_pictures_are_opened_in_one_place_which_names_the_decoders(modules: list[Module]) -> None:
    """Pillow tries fifty decoders on a file unless it is told which ones are meant."""
    elsewhere = [
        f"{module.name}:{number}"
        for module in modules
        for number, line in enumerate(module.text.splitlines(), 1)
        if "Image.open(" in line and (module.name != IMAGE_DECODER_MODULE or "formats=" not in line)
    ]
    assert not elsewhere, format_findings(elsewhere)
