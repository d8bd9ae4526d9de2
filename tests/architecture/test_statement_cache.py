"""Cached statements have constant loader options: others would fill the cache with one entry per request."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.sources import Module

OPTIONS_ARGUMENT = 3
"""The position of the loader options in the signatures of CACHED_FUNCTIONS."""
CACHED_FUNCTIONS = {"get_visible", "get_for_update", "precheck_update"}


def find_option_arguments(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the loader options that are passed to functions with a cached statement."""
    for call in ast.walk(tree):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in CACHED_FUNCTIONS
        ):
            yield from (keyword.value for keyword in call.keywords if keyword.arg == "options")
            yield from call.args[OPTIONS_ARGUMENT : OPTIONS_ARGUMENT + 1]


def find_rebuilt_options(tree: ast.Module) -> list[int]:
    """Return the lines that build the options anew with each call."""
    return [
        options.lineno
        for options in find_option_arguments(tree)
        if not (isinstance(options, ast.Name) and (options.id.isupper() or options.id == "options"))
    ]


def test_loader_options_of_cached_statements_are_constants(modules: list[Module]) -> None:
    arguments = [options for module in modules for options in find_option_arguments(module.tree)]
    assert len(arguments) > 20
    assert [f"{module.name}:{line}" for module in modules for line in find_rebuilt_options(module.tree)] == []


@pytest.mark.parametrize(
    "call",
    [
        "get_visible(Brand, brand_id, options=[joinedload(Brand.logo_media)])",
        "get_for_update(Brand, brand_id, BrandSchema, [*LOGO_OPTIONS])",
        "precheck_update(Brand, 'brand_id', BrandSchema, logo_options())",
    ],
)
def test_options_that_are_built_with_each_call_are_noticed(call: str) -> None:
    assert find_rebuilt_options(ast.parse(call)) == [1]
