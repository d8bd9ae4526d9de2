"""Rules about the source code: docstrings, nesting, tenancy, reasons for exceptions from checks."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import db.models
from db.base import Base, Owned
from tests.architecture.lengths import find_long_handlers, find_long_modules
from tests.architecture.sources import ROOT, Module, format_findings

MAX_NESTING = 2
# The second one is also a program that imports nothing of the project.
IMAGE_DECODER_MODULES = {"studio/media/inspection.py", "studio/media/conversion.py"}

for _module in pkgutil.iter_modules(db.models.__path__):
    importlib.import_module(f"db.models.{_module.name}")


def test_a_module_with_code_has_a_docstring(all_modules: list[Module]) -> None:
    silent = [m.name for m in all_modules if m.tree.body and not ast.get_docstring(m.tree)]
    assert not silent, format_findings(silent)


def build_module(text: str) -> Module:
    """Return a module of handlers with this text."""
    module = Module(ROOT / "handlers" / "brands.py")
    vars(module)["text"] = text
    return module


def test_long_modules_and_long_handlers_are_listed() -> None:
    """`python -m tests.architecture.lengths` prints them; length is not a failure."""
    handler = 'def list_brands():\n    """Return brands."""\n'
    short, long = (build_module(handler + "    pass\n" * lines) for lines in (15, 16))
    assert list(find_long_handlers([short], {"list_brands"})) == []
    assert list(find_long_handlers([long], {"list_brands"})) == ["handlers/brands.py:1 list_brands: 16 lines"]
    assert list(find_long_modules([build_module("\n" * 400)])) == []
    assert list(find_long_modules([build_module("\n" * 401)])) == ["handlers/brands.py: 401 lines"]


def adds_nesting(node: ast.AST) -> bool:
    """Return whether a statement adds a level of nesting; a guard that only leaves the block does not."""
    if isinstance(node, ast.If) and not node.orelse and len(node.body) == 1:
        return not isinstance(node.body[0], ast.Continue | ast.Break | ast.Return | ast.Raise)
    return isinstance(node, ast.If | ast.For | ast.AsyncFor | ast.While | ast.Match)


def find_deep_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    """Yield the lines of branches and loops that are nested too deep; `elif` is as deep as its `if`."""

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


BRITISH = re.compile(
    r"colour|grey|centre|centring|catalogue|behaviour|honour|neighbour|favour|licence|misspelt|refus"
    r"|(label|model|travel|cancel)l(ed|ing)"
    r"|(normal|recogn|serial|initial|organ|capital)is(?=[aei])(?!m)",
    re.IGNORECASE,
)
STORED_WORDS = re.compile(
    r"refused_count|honoured_inputs|REFUSED|ShotRefusal|RecipientsRefused|connrefused|colou\?r|light grey"
    r"|[\"'`](refused|colour|behaviour|cancelled)[\"'`]|(- |example: |outcome: )refused\b|[.!]cancelled\("
)
"""Names that are stored, published, or of a library. The conformance kit has published parts of its own."""
PROSE = {"docs": ".md", "openapi": ".yaml"}
"""The folders whose files people read, and what these end with."""


def find_british_spelling(text: str) -> list[str]:
    """Return the British spellings, and the word "refuse" for "reject"."""
    return [match[0] for match in BRITISH.finditer(STORED_WORDS.sub("", text))]


def has_one_spelling(name: str) -> bool:
    """Return whether a file of this name must have the American spelling."""
    if name.startswith(("db/migrations/", "tools/conformance/")):
        return False
    folder, suffix = name.partition("/")[0], name[name.rfind(".") :]
    is_code = folder in ("db", "studio", "handlers", "tools", "clients") and suffix == ".py"
    return is_code or PROSE.get(folder) == suffix


def test_spelling_is_american(tracked_files: list[Path]) -> None:
    names = [name for path in tracked_files if has_one_spelling(name := path.relative_to(ROOT).as_posix())]
    found = [
        f"{name}:{number}: {word}"
        for name in names
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        for word in find_british_spelling(line)
    ]
    assert not found, format_findings(found)


def test_a_british_spelling_is_noticed() -> None:
    assert find_british_spelling("def normalise(colours): ...  # refuse") == ["normalis", "colour", "refus"]
    assert find_british_spelling("requests are refused - refused") == ["refus"]
    assert not find_british_spelling('organism, normal, "refused", refused_count, serial')
    checked = [
        "studio/seed/rows.py",
        "docs/guides/images.md",
        "openapi/paths/shots.yaml",
        "clients/python/a.py",
    ]
    assert all(map(has_one_spelling, checked))
    kept = [
        "db/migrations/versions/0001.py",
        "tools/conformance/a.py",
        "openapi/released/0.2.0.json",
        "LICENSE",
    ]
    assert not any(map(has_one_spelling, kept))


def test_a_function_has_at_most_two_levels_of_nesting_or_a_reason(modules: list[Module]) -> None:
    deep = [
        f"{module.name}:{line} in {function.name}"
        for module in modules
        for function in module.functions()
        for line in find_deep_lines(function)
        if not has_reason(module, line - 1, line, "nested")
    ]
    assert not deep, format_findings(deep)


def has_reason(module: Module, first: int, last: int, word: str) -> bool:
    """Return whether one of the lines, or the comment just above them, has a comment `# word: reason`."""
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
    """Return whether a call reads or changes rows of an owned model without `db.tenancy`."""
    target, name = ast.unparse(call.func).rpartition(".")[::2]
    if "session" in target:
        return name in ("get", "get_one", "merge")
    starts = name in ("select", "update", "delete") and target in ("", "sa", "sqlalchemy")
    if not (starts or name == "select_from"):
        return False
    named = {part.id for argument in call.args for part in ast.walk(argument) if isinstance(part, ast.Name)}
    return bool(named & owned_names)


def find_unscoped_reads(module: Module, owned_names: set[str]) -> Iterator[int]:
    """Yield the lines of statements that read rows of tenants without `db.tenancy` and without a reason."""
    for call, first, last in list_calls(module.tree):
        if bypasses_tenancy(call, owned_names) and not has_reason(module, first, last, "unscoped"):
            yield call.lineno


def test_rows_of_tenants_are_read_through_db_tenancy_or_with_a_reason(modules: list[Module]) -> None:
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


def test_only_db_tenancy_creates_row_filters(modules: list[Module]) -> None:
    """A handler with a row filter of its own could list the rows of other tenants."""
    makers = {"RowFilter", "RowFilterKind", "row_filter"}
    lists = {"handlers/common/pagination.py", "handlers/common/list_statements.py"}
    found = [
        module.name
        for module in modules
        if module.name not in lists
        and any(
            makers & {alias.name for alias in node.names}
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ImportFrom) and node.module == "db.tenancy"
        )
    ]
    assert not found, format_findings(found)


@pytest.mark.parametrize(
    "source",
    [
        "session.get(Brand, brand_id)",
        "current_session().get(Brand, brand_id)",
        "select(Brand).where(Brand.id == 1)",
        "select(func.count(Brand.id))",
        "delete(Brand)",
        "select(func.count()).select_from(Brand)",
        "select(Brand)  # unscoped:",
    ],
)
def test_a_read_without_a_reason_is_noticed(source: str, tmp_path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(source + "\n")
    assert list(find_unscoped_reads(Module(path), {"Brand"})), source


@pytest.mark.parametrize(
    "source",
    [
        "select_visible(Brand).where(Brand.id == 1)",
        "settings.get('Brand')",
        "current_session().delete(get_for_update(Brand, brand_id))",
        "# unscoped: rows of all tenants\nstatement = (\n    delete(Brand)\n    .returning(Brand.id)\n)",
        "select(Other)",
        "select(  # unscoped: the worker runs as the system\n    Brand\n)",
        "# unscoped: the worker runs as the system\nselect(Brand)",
    ],
)
def test_filtered_reads_and_reads_with_a_reason_pass(source: str, tmp_path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(source + "\n")
    assert list(find_unscoped_reads(Module(path), {"Brand"})) == []


def test_relationships_never_load_lazily() -> None:
    lazy = [
        f"{mapper.class_.__name__}.{relationship.key}"
        for mapper in Base.registry.mappers
        for relationship in mapper.relationships
        if relationship.lazy not in ("raise", "write_only")
    ]
    assert not lazy, format_findings(lazy)


def test_an_exception_from_a_check_has_a_reason_on_its_line(all_modules: list[Module]) -> None:
    silent = [
        f"{module.name}:{line} {comment}"
        for module in all_modules
        for line, comment in module.comments.items()
        if re.search(r"#\s*(noqa|type:\s*ignore)", comment)
        and not re.search(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\]) +(- |# )?\S+( \S+)+", comment)
    ]
    assert not silent, format_findings(silent)


def test_a_skipped_test_has_a_reason(all_modules: list[Module]) -> None:
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


def test_images_are_opened_in_two_modules_that_name_the_decoders(modules: list[Module]) -> None:
    """Without names, Pillow tries fifty decoders on a file."""
    elsewhere = [
        f"{module.name}:{number}"
        for module in modules
        for number, line in enumerate(module.text.splitlines(), 1)
        if "Image.open(" in line and (module.name not in IMAGE_DECODER_MODULES or "formats=" not in line)
    ]
    assert not elsewhere, format_findings(elsewhere)
