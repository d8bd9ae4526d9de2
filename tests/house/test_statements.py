"""Statements that are kept are kept for good reasons only."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.sources import Module

OPTIONS = 3
"""The place of the loader options among the arguments of all of these."""
VERBS = {"get_owned", "get_for_change", "may_change"}


def passing_options(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield what is given as loader options to the verbs that keep a statement for them."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in VERBS:
            yield from (keyword.value for keyword in call.keywords if keyword.arg == "options")
            yield from call.args[OPTIONS : OPTIONS + 1]


def made_anew(tree: ast.Module) -> list[int]:
    """Return the lines where options are made with each call: a statement would be kept for each request."""
    return [
        given.lineno
        for given in passing_options(tree)
        if not (isinstance(given, ast.Name) and (given.id.isupper() or given.id == "options"))
    ]


def test_loader_options_of_kept_statements_are_constants(modules: list[Module]) -> None:
    given = [options for module in modules for options in passing_options(module.tree)]
    assert len(given) > 20
    assert [f"{module.name}:{line}" for module in modules for line in made_anew(module.tree)] == []


@pytest.mark.parametrize(
    "call",
    [
        "get_owned(Brand, brand_id, options=[joinedload(Brand.logo_media)])",
        "get_for_change(Brand, brand_id, BrandSchema, [*WITH_LOGO])",
        "may_change(Brand, 'brand_id', BrandSchema, with_logo())",
    ],
)
def test_options_that_are_made_with_each_call_are_found(call: str) -> None:
    assert made_anew(ast.parse(call)) == [1]
