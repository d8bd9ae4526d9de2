"""Every list in each sort order and with each filter has the right count and uses an index.

The tables of tests are small, so the planner is configured to avoid sequential scans and sorts: a sort that
remains has no index. `make bench-lists` measures the plans with a million rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import psycopg
import pytest
from sqlalchemy import Connection, Engine, event

from db.base import Base
from db.libpq.pipeline import Command
from db.rls.session_role import bypass_rls
from db.row_counts.queries import COUNTED
from handlers.app import Application
from tests.contract.operations import OPERATIONS, Operation, resolve
from tests.contract.tenant import Tenant, make_more_rows
from tests.contract.test_every_operation import LISTS
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, describe_response, send_request

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
    "list_subscription_usage": "credit_movements", "list_account_exports": "account_exports",
    "list_organization_api_usage": "api_usage",
}  # fmt: skip
"""The tables of operations whose name does not contain it."""
GLOBAL_LISTS = {"list_users", "list_api_usage", "list_generation_models", "list_identities"}
"""Lists that are read completely: by superusers only, or short, as the ten identities of an account."""
PARENT_PARAMETERS = {
    "shot_id",
    "shooting_id",
    "look_id",
    "generation_id",
    "product_id",
    "sku",
    "external_id",
    "ids",
    "metadata",
}
"""Filters by one parent or product, or by ids: the rows are few and are sorted."""
RANGES = {"created_after", "updated_after", "created_before", "updated_before"}
"""Filters that no cached count covers."""
UNBOUNDED_TABLES = {model.__tablename__ for model in COUNTED}
UNWANTED = ("seqscan", "sort", "incremental_sort", "hashjoin", "mergejoin")
"""Plan nodes that PostgreSQL shall use only if no index serves the query."""


def get_table(operation: Operation) -> str:
    """Return the table that an operation lists."""
    name = operation.operation_id
    table = TABLES.get(name, name.removeprefix("list_"))
    if table not in Base.metadata.tables:
        pytest.fail(
            f"There is no table `{table}`: add the table that `{name}` reads to TABLES in "
            "tests/contract/test_lists.py.",
            pytrace=False,
        )
    return table


def list_queries(operation: Operation, tenant: Tenant, rare: bool = False) -> Iterator[dict[str, Any]]:
    """Yield queries of a list: no filter, and each filter alone with a matching value.

    With `rare` the value is less common among the rows: an index is useless if all rows have the same value.
    """
    yield {}
    for parameter in operation.parameters:
        if parameter["in"] == "query" and parameter["name"] not in PAGINATION_PARAMETERS:
            schema = parameter["schema"]
            if schema["type"] == "array":
                items = resolve(schema["items"])
                schema = {"type": items["type"], "enum": items.get("enum") or schema["example"]}
            if parameter["name"] == "sku":
                schema = {"enum": [tenant.rows["product"].sku]}
            values = schema.get("enum") or ["true" if schema["type"] == "boolean" else schema["example"]]
            yield {parameter["name"]: tenant.replace_seed_ids(values[-1 if rare else 0])}


def list_sort_orders(operation: Operation) -> list[str]:
    """Return every sort order of a list."""
    (sort,) = [parameter for parameter in operation.parameters if parameter["name"] == "sort"]
    return list(sort["schema"]["enum"])


@dataclass
class QueryPlans:
    """The SELECT statements of one request, with PostgreSQL's plan of each."""

    plans: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def record(self, connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        """Record the plan of a statement before it runs, with the same role and parameters."""
        if statement.startswith("SELECT") and "set_config" not in statement:
            driver: Any = connection.connection.driver_connection
            explain = f"EXPLAIN (FORMAT JSON) {statement}"
            if isinstance(parameters, Command):
                types = parameters.statement.types
                result = driver.pgconn.exec_params(explain.encode(), parameters.parameters, types)
                plan = result.get_value(0, 0)
            else:
                with psycopg.ClientCursor(driver) as cursor:
                    cursor.execute(explain, parameters)
                    (plan,) = cursor.fetchone() or ()
            plan = plan if isinstance(plan, list) else orjson.loads(plan)
            self.plans.append((statement, plan[0]["Plan"]))

    def page_plan(self, table: str) -> dict[str, Any]:
        """Return the plan of the statement that reads a page of a table, without the parts that count."""
        plan = self._statement_plan(table)
        return {**plan, "Plans": [part for part in plan["Plans"] if part not in self.count_plans(table)]}

    def count_plans(self, table: str) -> list[dict[str, Any]]:
        """Return the parts of that statement that count; PostgreSQL runs them once per statement."""
        parts = [part for part in self._statement_plan(table)["Plans"] if is_uncorrelated(part)]
        return [part for part in parts if {table, "row_counts"} & relations(part)]

    def _statement_plan(self, table: str) -> dict[str, Any]:
        found = [
            plan
            for statement, plan in self.plans
            if f"FROM {table} " in statement and " ORDER BY " in statement and "LIMIT" in statement
        ]
        # Those after the first one read the collections of its rows.
        assert found, f"no statement reads a page of `{table}`: is TABLES right?"
        return found[0]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan and all of its nodes."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def is_uncorrelated(plan: dict[str, Any]) -> bool:
    """Return whether a part of a plan depends on no row."""
    return plan.get("Parent Relationship") == "InitPlan"


def relations(plan: dict[str, Any]) -> set[str]:
    """Return the tables that a plan reads."""
    return {name_table(node) for node in nodes(plan) if "Relation Name" in node}


def name_table(node: dict[str, Any]) -> str | None:
    """Return the table that a node reads; for a partition, the table that it belongs to."""
    name = node.get("Relation Name")
    return "audit_events" if name and name.startswith("audit_events_") else name


def index_condition(plan: dict[str, Any], table: str) -> str:
    """Return the index conditions of a plan for a table; empty if it reads the whole table."""
    scans = [node for node in nodes(plan) if name_table(node) == table]
    bitmaps = [node for scan in scans for node in nodes(scan) if node["Node Type"] == "Bitmap Index Scan"]
    return " AND ".join(node["Index Cond"] for node in (*scans, *bitmaps) if "Index Cond" in node)


@pytest.fixture
def query_plans(database_engine: Engine) -> Iterator[QueryPlans]:
    """Yield the plans of the last request."""
    recorder = QueryPlans()
    event.listen(database_engine, "before_cursor_execute", recorder.record)
    yield recorder
    event.remove(database_engine, "before_cursor_execute", recorder.record)


def test_a_list_that_the_suite_does_not_know_fails_with_what_to_add(tenant: Tenant) -> None:
    unknown = replace(OPERATIONS["list_brands"], operation_id="list_product_shootings")
    with pytest.raises(
        pytest.fail.Exception, match="`list_product_shootings` reads to TABLES in tests/contract"
    ):
        get_table(unknown)
    with pytest.raises(pytest.fail.Exception, match="creates one row to MORE_ROWS in tests/contract/tenant"):
        make_more_rows(tenant, unknown.operation_id, 3)


def test_a_missing_index_is_named_with_its_columns() -> None:
    plan = {"Node Type": "Seq Scan", "Relation Name": "shootings"}
    assert describe_missing_index("list_shootings", "shootings", {"state": "DRAFT"}, "-name", plan) == (
        "list_shootings?state=DRAFT&sort=-name reads `shootings` without an index: add one on the columns of "
        "the tenant, then state, name, id (`sort_indexes` or `tenant_indexes` of db/base.py, "
        "and a migration). The plan is Seq Scan on shootings."
    )


@pytest.mark.parametrize(
    ("query", "way_out"),
    [
        ("state=DRAFT&state=READY", "; send several values as `state_in=A,B`"),
        ("state_in=DRAFT&state_in=READY", "; send several values as `state_in=A,B`"),
        ("limit=1&limit=2", ""),
    ],
)
def test_a_repeated_filter_names_its_list(query: str, way_out: str, app: Application, tenant: Tenant) -> None:
    request = tenant.request_for("list_products")
    response = send_request(app, "GET", f"{request.target}&{query}", auth_headers(app, tenant.owner))
    (violation,) = response.json()["detail"]
    assert (violation["type"], violation["msg"]) == ("repeated", f"Must be sent only once{way_out}")


@pytest.mark.parametrize("name", LISTS)
def test_a_count_is_the_number_of_rows_with_each_filter(name: str, app: Application, tenant: Tenant) -> None:
    operation = OPERATIONS[name]
    make_more_rows(tenant, name, 3)
    request, headers = tenant.request_for(name), auth_headers(app, tenant.caller_for(operation))
    for query in list_queries(operation, tenant):
        response = request.replace(query={**request.query, **query, "limit": 100}).send(app, headers)
        assert response.status == 200, describe_response(response)
        page = response.json()
        assert (page["count"], page["count_exact"]) == (len(page["data"]), True), query
    everything = request.replace(query={**request.query, "limit": 100}).send(app, headers).json()
    assert everything["count"] >= 3


@pytest.mark.parametrize("name", [name for name in LISTS if name not in GLOBAL_LISTS])
@pytest.mark.slow("it analyses the plans of all lists")
def test_a_list_is_read_by_an_index(
    name: str, app: Application, tenant: Tenant, query_plans: QueryPlans
) -> None:
    operation, table = OPERATIONS[name], get_table(OPERATIONS[name])
    for _ in range(4):
        make_more_rows(tenant, name, 3)
    request, headers = tenant.request_for(name), auth_headers(app, tenant.caller_for(operation))
    configure_planner(app, table)

    def send(**query: Any) -> ClientResponse:
        query_plans.plans.clear()
        response = request.replace(query={**request.query, **query}).send(app, headers)
        assert response.status == 200, describe_response(response)
        return response

    for query in list_queries(operation, tenant, rare=True):
        for order in list_sort_orders(operation):
            cursor = send(**query, sort=order, limit=1).json()["next_cursor"]
            assert_read_by_index(query_plans, name, table, query, order)
            assert_counted_by_index(query_plans, name, table, query, order)
            if cursor and table in UNBOUNDED_TABLES and not query.keys() & PARENT_PARAMETERS:
                send(**query, sort=order, limit=1, cursor=cursor)
                assert "ROW(" in index_condition(query_plans.page_plan(table), table), order


def configure_planner(app: Application, table: str) -> None:
    """Update the statistics of a table, and disable unwanted plan nodes for the rest of the test."""
    with app.database.transaction(write=False) as session:
        connection = session.connection()
        bypass_rls(connection)
        connection.exec_driver_sql(f"ANALYZE {table}")
        # Reading a row in vain costs more than anything else.
        connection.exec_driver_sql("SET LOCAL cpu_tuple_cost = 1000")
        for node_type in (*UNWANTED, *(["bitmapscan"] if table in UNBOUNDED_TABLES else [])):
            connection.exec_driver_sql(f"SET LOCAL enable_{node_type} = off")


def describe_missing_index(
    name: str, table: str, query: dict[str, Any], order: str, plan: dict[str, Any]
) -> str:
    """Return which index a list needs, and how PostgreSQL reads it without one."""
    url = "&".join([*(f"{key}={value}" for key, value in query.items()), f"sort={order}"])
    columns = ", ".join([*sorted(query.keys() - RANGES), order.removeprefix("-"), "id"])
    steps = " > ".join(
        node["Node Type"] + (f" on {node['Relation Name']}" if "Relation Name" in node else "")
        for node in nodes(plan)
    )
    return (
        f"{name}?{url} reads `{table}` without an index: add one on the columns of the tenant, "
        f"then {columns} (`sort_indexes` or `tenant_indexes` of db/base.py, and a migration). "
        f"The plan is {steps}."
    )


def assert_read_by_index(
    query_plans: QueryPlans, name: str, table: str, query: dict[str, Any], order: str
) -> None:
    """Check that a page uses an index, and on a growing table an index in the requested order."""
    plan = query_plans.page_plan(table)
    missing = describe_missing_index(name, table, query, order, plan)
    condition = index_condition(plan, table)
    assert condition, missing
    if table in UNBOUNDED_TABLES and not query.keys() & PARENT_PARAMETERS:
        assert [node["Node Type"] for node in nodes(plan) if "Sort" in node["Node Type"]] == [], missing
        for name_of_filter in query.keys() - RANGES:
            assert name_of_filter.removesuffix("_in") in condition, missing


def is_counted_by_reading(query: dict[str, Any]) -> bool:
    """Return whether no cached count covers the filters of a query."""
    return bool(query.keys() & (PARENT_PARAMETERS | RANGES)) or any(name.endswith("_in") for name in query)


def assert_counted_by_index(
    query_plans: QueryPlans, name: str, table: str, query: dict[str, Any], order: str
) -> None:
    """Check that cached counts are used where there are any, and that every other count uses an index."""
    count_plans = query_plans.count_plans(table)
    assert count_plans, f"{name} reads a page of `{table}` without its count"
    for plan in count_plans:
        if table in UNBOUNDED_TABLES and not is_counted_by_reading(query):
            uncached = f"{name} counts `{table}` with {list(query)}: add a counter to db/row_counts"
            assert relations(plan) == {"row_counts"}, uncached
            assert "scope_id" in index_condition(plan, "row_counts"), uncached
        else:
            assert index_condition(plan, table), describe_missing_index(name, table, query, order, plan)
