"""The profile of a request: its table names what there is, and time goes to who is worked for."""

from __future__ import annotations

import sys
from time import perf_counter
from types import FrameType, FunctionType

import pytest

from tests.tools.bench.profiler import CallStack, RequestProfile
from tests.tools.bench.stages import STAGES, find_stage, resolve_name


def test_each_name_is_of_one_stage() -> None:
    names = [name for names in STAGES.values() for name in names]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("name", [name for names in STAGES.values() for name in names])
def test_what_a_stage_names_is_there(name: str) -> None:
    """What got another name would be counted for whoever calls it."""
    assert resolve_name(name) is not None


def test_a_name_that_is_gone_is_noticed() -> None:
    with pytest.raises(LookupError, match="has no turn"):
        resolve_name("handlers.common.pagination.turn")
    with pytest.raises(LookupError, match="there is no handler"):
        resolve_name("handler.paging")


def test_the_longest_name_decides_and_names_end_at_dots() -> None:
    assert find_stage("handlers.pipeline.endpoint", "Endpoint._serve") == "endpoint"
    assert find_stage("handlers.pipeline.endpoint", "Endpoint._validate_response") == "check of the answer"
    assert find_stage("handlers.pipeline.endpoint", "Endpoint._validate_responses") == "endpoint"
    assert find_stage("psycopg_pool.pool", "ConnectionPool.wait") is None


def current_frame() -> FrameType:
    """Return the frame of this call."""
    return sys._getframe()


def test_time_of_functions_without_a_stage_counts_for_their_caller() -> None:
    spent = RequestProfile()
    stack = CallStack(spent)

    def enter(module: str, function: str) -> None:
        named = current_frame.__code__.replace(co_name=function, co_qualname=function)
        stack(FunctionType(named, {"__name__": module, "sys": sys})(), "call", None)

    began = perf_counter()
    enter("handlers.common.pagination", "page")
    enter("urllib.parse", "urlencode")
    stack(sys._getframe(), "return", None)
    enter("marshmallow.schema", "dump")
    stack(sys._getframe(), "return", None)
    stack(sys._getframe(), "return", None)
    stack(sys._getframe(), "return", None)
    whole = 1e9 * (perf_counter() - began)
    assert dict(spent.calls) == {"handler": 2, "serialisation of rows": 1}
    assert set(spent.nanoseconds) == {"handler", "serialisation of rows"}
    assert 0 < sum(spent.nanoseconds.values()) < whole
