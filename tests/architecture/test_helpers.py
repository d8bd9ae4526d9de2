"""A helper of the tests is written once: a copy that is changed alone tests something else."""

from __future__ import annotations

import ast
import copy
from collections import defaultdict
from collections.abc import Iterable

from tests.architecture.sources import ROOT, Module, format_findings


def find_repeated_helpers(modules: Iterable[Module]) -> list[str]:
    """Return the functions and classes that several modules define, apart from docstrings and annotations."""
    by_name: dict[str, list[tuple[Module, ast.FunctionDef | ast.ClassDef]]] = defaultdict(list)
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                by_name[node.name].append((module, node))
    findings = []
    # Most names are unique, and need no comparison.
    for name, definitions in by_name.items():
        places: dict[str, list[str]] = defaultdict(list)
        for module, node in definitions if len(definitions) > 1 else ():
            places[_normalize(node)].append(f"{module.name}: {name}")
        findings += [f"{', '.join(found)}: define it once" for found in places.values() if len(found) > 1]
    return findings


def _normalize(node: ast.FunctionDef | ast.ClassDef) -> str:
    node = copy.deepcopy(node)
    if ast.get_docstring(node) is not None:
        node.body = node.body[1:] or [ast.Pass()]
    for child in ast.walk(node):
        if isinstance(child, ast.arg):
            child.annotation = None
        elif isinstance(child, ast.FunctionDef):
            child.returns = None
    return ast.unparse(node)


def test_a_helper_of_the_tests_is_defined_once(all_modules: list[Module]) -> None:
    found = find_repeated_helpers(module for module in all_modules if module.name.startswith("tests/"))
    assert not found, format_findings(found)


def test_a_copy_of_a_helper_is_noticed() -> None:
    texts = (
        'def get_code(response: dict) -> str:\n    """Return the code."""\n    return response["code"]\n',
        'def get_code(response):\n    return response["code"]\n',
        'def get_code(response):\n    return response["status"]\n',
    )
    modules = [Module(ROOT / "tests" / f"test_{number}.py") for number, _ in enumerate(texts)]
    for module, text in zip(modules, texts, strict=True):
        vars(module)["text"] = text
    assert find_repeated_helpers(modules) == [
        "tests/test_0.py: get_code, tests/test_1.py: get_code: define it once"
    ]
