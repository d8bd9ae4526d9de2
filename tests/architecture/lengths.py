"""Print the modules over 400 lines and the handlers over 15.

Size is a smell, not a law: split one of them only where the parts have names of their own. Run it with
`python -m tests.architecture.lengths`.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator

from tests.architecture.sources import ROOT, Module

MAX_MODULE_LINES = 400
MAX_HANDLER_LINES = 15
HEADING = "Long modules and handlers. These are no errors:"


def count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return sum((statement.end_lineno or 0) - statement.lineno + 1 for statement in body)


def find_long_modules(modules: Iterable[Module]) -> Iterator[str]:
    """Yield the modules that are too long. Migrations are exempt: they are written once."""
    for module in modules:
        lines = len(module.text.splitlines())
        if lines > MAX_MODULE_LINES and module.path.parent.name != "versions":
            yield f"{module.name}: {lines} lines"


def find_long_handlers(modules: Iterable[Module], operation_ids: set[str]) -> Iterator[str]:
    """Yield the handlers that are too long."""
    for module in modules:
        if module.path.parent.name != "handlers":
            continue
        for function in module.functions():
            if function.name in operation_ids and (lines := count_lines(function)) > MAX_HANDLER_LINES:
                yield f"{module.name}:{function.lineno} {function.name}: {lines} lines"


def main() -> int:
    """Print the list; the status is always 0."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    modules = [Module(path) for name in tracked.split("\0") if name and (path := ROOT / name).is_file()]
    contract = json.loads((ROOT / "openapi" / "openapi.json").read_text(encoding="utf-8"))
    operation_ids = {
        operation["operationId"]
        for item in contract["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict) and "operationId" in operation
    }
    found = [*find_long_modules(modules), *find_long_handlers(modules, operation_ids)]
    if found:
        print(HEADING, *found, sep="\n  ")  # noqa: T201 - the output of a command
    return 0


if __name__ == "__main__":
    sys.exit(main())
