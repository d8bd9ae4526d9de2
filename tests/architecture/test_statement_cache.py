"""Statements that are kept are kept for good reasons only."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.sources import Module

OPTIONS_ARGUMENT = 3
"""The place of the loader options among the arguments of all of these."""
CACHED_FUNCTIONS = {"get_owned", "get_for_change", "may_change"}


def find_option_arguments(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield what is given as loader options to the verbs that keep a statement for them."""
    for call in ast.walk(tree):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in CACHED_FUNCTIONS
        ):
            yield from (keyword.value for keyword in call.keywords if keyword.arg == "options")
            yield from call.args[OPTIONS_ARGUMENT : OPTIONS_ARGUMENT + 1]


def find_rebuilt_options(tree: ast.Module) -> list[int]:
    """Return the lines where options are made with each call: a statement would be kept for each request."""
    return [
        given.lineno
        for given in find_option_arguments(tree)
        if not (isinstance(given, ast.Name) and (given.id.isupper() or given.id == "options"))
    ]


def test_loader_options_of_kept_statements_are_constants(modules: list[Module]) -> None:
    given = [options for module in modules for options in find_option_arguments(module.tree)]
    assert len(given) > 20
    assert [f"{module.name}:{line}" for module in modules for line in find_rebuilt_options(module.tree)] == []


@pytest.mark.parametrize(
    "call",
    [
        "get_owned(Brand, brand_id, options=[joinedload(Brand.logo_media)])",
        "get_for_change(Brand, brand_id, BrandSchema, [*WITH_LOGO])",
        "may_change(Brand, 'brand_id', BrandSchema, with_logo())",
    ],
)
def test_options_that_are_made_with_each_call_are_found(call: str) -> None:
    assert find_rebuilt_options(ast.parse(call)) == [1]
