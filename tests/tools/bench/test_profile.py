"""The profile of a request: its table names existing functions, and time counts for the right stage."""

from __future__ import annotations

import sys
from time import perf_counter
from types import FrameType, FunctionType

import pytest

from tools.bench.profiler import CallStack, RequestProfile
from tools.bench.stages import STAGES, find_stage, resolve_name


def test_each_name_belongs_to_one_stage() -> None:
    names = [name for names in STAGES.values() for name in names]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("name", [name for names in STAGES.values() for name in names])
def test_the_name_of_a_stage_exists(name: str) -> None:
    """Time of a renamed function would count for its caller."""
    assert resolve_name(name) is not None


def test_a_name_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(LookupError, match="has no turn"):
        resolve_name("handlers.common.pagination.turn")
    with pytest.raises(LookupError, match="there is no handler"):
        resolve_name("handler.paging")


def test_the_longest_name_decides_and_matches_whole_parts() -> None:
    assert find_stage("handlers.pipeline.endpoint", "Endpoint._serve") == "endpoint"
    assert find_stage("handlers.pipeline.responding", "validate_response") == "response validation"
    assert find_stage("handlers.pipeline.responding", "validate_responses") == "endpoint"
    assert find_stage("psycopg_pool.pool", "ConnectionPool.wait") is None


def current_frame() -> FrameType:
    """Return the frame of this call."""
    return sys._getframe()


def test_time_of_functions_without_a_stage_counts_for_the_caller() -> None:
    profile = RequestProfile()
    stack = CallStack(profile)

    def enter(module: str, function: str) -> None:
        code = current_frame.__code__.replace(co_name=function, co_qualname=function)
        stack(FunctionType(code, {"__name__": module, "sys": sys})(), "call", None)

    started_at = perf_counter()
    enter("handlers.common.pagination", "page")
    enter("urllib.parse", "urlencode")
    stack(sys._getframe(), "return", None)
    enter("marshmallow.schema", "dump")
    stack(sys._getframe(), "return", None)
    stack(sys._getframe(), "return", None)
    stack(sys._getframe(), "return", None)
    elapsed = 1e9 * (perf_counter() - started_at)
    assert dict(profile.calls) == {"handler": 2, "serialization of rows": 1}
    assert set(profile.nanoseconds) == {"handler", "serialization of rows"}
    assert 0 < sum(profile.nanoseconds.values()) < elapsed
