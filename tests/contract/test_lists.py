"""Every list of the contract in each order and with each filter: its count is right, its plans use an index.

The tables of tests are small, so the planner is told to read no whole table and to sort nothing where it has
any other way: what it still sorts has no index. `make bench-lists` sees what it does with a million rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
import pytest
from sqlalchemy import Connection, Engine, event

from db.rls.session_role import bypass_rls
from db.row_counts.queries import COUNTED
from handlers.app import Application
from tests.contract.operations import OPERATIONS, Operation
from tests.contract.tenant import Tenant
from tests.contract.test_every_operation import LISTS, create_more_rows, describe_response
from tests.support.app import auth_headers
from tests.support.client import ClientResponse
from tests.support.databases import on_postgresql

PAGINATION_PARAMETERS = {
    "skip",
    "limit",
    "cursor",
    "sort",
    "q",
    "search",
    "organization_id",
    "include_public",
}
TABLES = {
    "list_sessions": "token_families", "list_members": "memberships", "list_own_audit_events": "audit_events",
    "list_subscription_usage": "credit_movements",
}  # fmt: skip
"""Where the name of the operation does not say it."""
GLOBAL_LISTS = {"list_users", "list_generation_models"}
"""Read whole, by those who run the system, or because it is short."""
PARENT_PARAMETERS = {"shot_id", "shooting_id", "look_id", "generation_id"}
"""Rows of one parent are few and are sorted."""
RANGES = {"created_after", "updated_after"}
"""What no total answers."""
UNBOUNDED_TABLES = {model.__tablename__ for model in COUNTED}
UNWANTED = ("seqscan", "sort", "incremental_sort", "hashjoin", "mergejoin")
"""What PostgreSQL is to do only where an index leaves it no other way."""


def get_table(operation: Operation) -> str:
    """The table that an operation lists."""
    name = operation.operation_id
    return TABLES.get(name, name.removeprefix("list_"))


def list_queries(operation: Operation, tenant: Tenant, rare: bool = False) -> Iterator[dict[str, Any]]:
    """What can be asked of a list: nothing, and each filter alone with a value that fits.

    A rare one is less common among the rows: where all have the same value, no index of it is of use.
    """
    yield {}
    for parameter in operation.parameters:
        if parameter["in"] == "query" and parameter["name"] not in PAGINATION_PARAMETERS:
            schema = parameter["schema"]
            fitting = schema.get("enum") or ["true" if schema["type"] == "boolean" else schema["example"]]
            yield {parameter["name"]: tenant.replace_seed_ids(fitting[-1 if rare else 0])}


def list_sort_orders(operation: Operation) -> list[str]:
    """Every order of a list."""
    (sort,) = [parameter for parameter in operation.parameters if parameter["name"] == "sort"]
    return list(sort["schema"]["enum"])


@dataclass
class QueryPlans:
    """The statements of one request that read a table, and PostgreSQL's plan of each."""

    plans: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def record(self, connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        """Ask for the plan of a statement that is about to run, as whom and with what it will."""
        if statement.startswith("SELECT") and "set_config" not in statement:
            driver: Any = connection.connection.driver_connection
            with psycopg.ClientCursor(driver) as cursor:
                cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
                (plan,) = cursor.fetchone() or ()
            plan = plan if isinstance(plan, list) else orjson.loads(plan)
            self.plans.append((statement, plan[0]["Plan"]))

    def page_plan(self, table: str) -> dict[str, Any]:
        """The plan of the statement that reads a page of a table, without what counts."""
        plan = self._statement_plan(table)
        return {**plan, "Plans": [part for part in plan["Plans"] if part not in self.count_plans(table)]}

    def count_plans(self, table: str) -> list[dict[str, Any]]:
        """What counts in that statement: PostgreSQL does it once, whatever the number of rows."""
        parts = [part for part in self._statement_plan(table)["Plans"] if is_uncorrelated(part)]
        return [part for part in parts if {table, "row_counts"} & relations(part)]

    def _statement_plan(self, table: str) -> dict[str, Any]:
        (plan,) = [
            plan
            for told, plan in self.plans
            if f"FROM {table} " in told and " ORDER BY " in told and "LIMIT" in told
        ]
        return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan and all that it consists of."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def is_uncorrelated(plan: dict[str, Any]) -> bool:
    """Whether a part of a plan depends on no row."""
    return plan.get("Parent Relationship") == "InitPlan"


def relations(plan: dict[str, Any]) -> set[str]:
    """The tables that a plan reads."""
    return {node["Relation Name"] for node in nodes(plan) if "Relation Name" in node}


def index_condition(plan: dict[str, Any], table: str) -> str:
    """By what a plan looks into indexes of a table; empty where it reads all of it."""
    scans = [node for node in nodes(plan) if node.get("Relation Name") == table]
    bitmaps = [node for scan in scans for node in nodes(scan) if node["Node Type"] == "Bitmap Index Scan"]
    return " AND ".join(node["Index Cond"] for node in (*scans, *bitmaps) if "Index Cond" in node)


@pytest.fixture
def query_plans(database_engine: Engine) -> Iterator[QueryPlans]:
    """The plans of the last request."""
    seen = QueryPlans()
    event.listen(database_engine, "before_cursor_execute", seen.record)
    yield seen
    event.remove(database_engine, "before_cursor_execute", seen.record)


@pytest.mark.parametrize("name", LISTS)
def test_a_count_is_the_number_of_rows_with_each_filter(name: str, app: Application, tenant: Tenant) -> None:
    operation = OPERATIONS[name]
    create_more_rows(tenant, name)
    request, headers = tenant.request_for(name), auth_headers(app, tenant.caller_for(operation))
    for query in list_queries(operation, tenant):
        reply = request.replace(query={**request.query, **query, "limit": 100}).send(app, headers)
        assert reply.status == 200, describe_response(reply)
        page = reply.json()
        assert (page["count"], page["count_exact"]) == (len(page["data"]), True), query
    everything = request.replace(query={**request.query, "limit": 100}).send(app, headers).json()
    assert everything["count"] >= 3


@on_postgresql
@pytest.mark.parametrize("name", [name for name in LISTS if name not in GLOBAL_LISTS])
def test_a_list_is_read_by_an_index(
    name: str, app: Application, tenant: Tenant, query_plans: QueryPlans
) -> None:
    operation, table = OPERATIONS[name], get_table(OPERATIONS[name])
    for _ in range(4):
        create_more_rows(tenant, name)
    request, headers = tenant.request_for(name), auth_headers(app, tenant.caller_for(operation))
    configure_planner(app, table)

    def ask(**query: Any) -> ClientResponse:
        query_plans.plans.clear()
        reply = request.replace(query={**request.query, **query}).send(app, headers)
        assert reply.status == 200, describe_response(reply)
        return reply

    for query in list_queries(operation, tenant, rare=True):
        for order in list_sort_orders(operation):
            cursor = ask(**query, sort=order, limit=1).json()["next_cursor"]
            assert_read_by_index(query_plans, table, query, order)
            assert_counted_by_index(query_plans, table, query)
            if cursor and table in UNBOUNDED_TABLES and not query.keys() & PARENT_PARAMETERS:
                ask(sort=order, limit=1, cursor=cursor)
                assert "ROW(" in index_condition(query_plans.page_plan(table), table), order


def configure_planner(app: Application, table: str) -> None:
    """Let PostgreSQL know the table, and for the rest of the test shun what it can do without."""
    with app.database.transaction(write=False) as session:
        connection = session.connection()
        bypass_rls(connection)
        connection.exec_driver_sql(f"ANALYZE {table}")
        # Each row that is read in vain weighs more than anything else.
        connection.exec_driver_sql("SET LOCAL cpu_tuple_cost = 1000")
        for way in (*UNWANTED, *(["bitmapscan"] if table in UNBOUNDED_TABLES else [])):
            connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")


def assert_read_by_index(query_plans: QueryPlans, table: str, query: dict[str, Any], order: str) -> None:
    """A page is found by an index; where rows may be many, it is walked in the order that is asked for."""
    plan = query_plans.page_plan(table)
    found = index_condition(plan, table)
    assert found, (table, query, order, plan)
    if table in UNBOUNDED_TABLES and not query.keys() & PARENT_PARAMETERS:
        assert [node["Node Type"] for node in nodes(plan) if "Sort" in node["Node Type"]] == [], (
            query,
            order,
        )
        for column in query.keys() - RANGES:
            assert column in found, (query, order, found)


def assert_counted_by_index(query_plans: QueryPlans, table: str, query: dict[str, Any]) -> None:
    """What is kept is not counted, and nothing is counted by reading a whole table."""
    counting = query_plans.count_plans(table)
    assert counting
    for plan in counting:
        if table in UNBOUNDED_TABLES and not query.keys() & (PARENT_PARAMETERS | RANGES):
            assert relations(plan) == {"row_counts"}, (query, plan)
            assert "scope_id" in index_condition(plan, "row_counts")
        else:
            assert index_condition(plan, table), (query, plan)
