"""The text search of lists: an index finds the rows that the conditions on the columns find."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.base import new_id, utc_now
from db.models import Product
from db.rls.session_role import APPLICATION_ROLE, SYSTEM, SessionRole
from db.session import switch_role
from handlers.common import pagination
from handlers.common.list_statements import escape_like, like_pattern
from tests.support import factories
from tests.support.factories.catalog import Customer

SEARCH = text("SELECT total, ids FROM sartiq_search_products(:scope, :public, :text, :pattern, :most)")
TABLES = text("SELECT tablename FROM pg_indexes WHERE indexname = 'ix_' || tablename || '_search'")
OTHER_INDEXES = text("""
SELECT indexrelid::regclass FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE relname = ANY (:tables) AND NOT indisunique AND indexrelid::regclass::text NOT LIKE '%search'
""")
# Few characters, so that many texts contain others.
TEXTS = st.text(alphabet="aAbÉéßİıΣσς %_\\-'\"1🙂Я布\u0301\u0001", min_size=1, max_size=8)


def search(session: Session, scope: Any, searched: str, public: bool = False, most: int = 10_001) -> Any:
    """Return the count and the ids that the function returns to the role of the transaction."""
    pattern = like_pattern(searched) if len(searched) > 2 else escape_like(searched) + "%"
    values = {"scope": scope, "public": public, "text": searched, "pattern": pattern, "most": most}
    total, ids = session.execute(SEARCH, values).one()
    return total, ids and set(filter(None, ids.strip("{}").split(",")))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example has its own organization
)
@given(names=st.lists(st.tuples(TEXTS, st.none() | TEXTS), min_size=1, max_size=8), data=st.data())
def test_the_index_finds_what_the_conditions_find(
    session: Session, customer: Customer, names: list[tuple[str, str | None]], data: st.DataObject
) -> None:
    switch_role(SYSTEM)
    organization = factories.make_organization(customer.owner)
    seen = set()
    for name, sku in names:
        factories.make_product(
            organization=organization, name=name, sku=None if sku in seen else sku, custom_metadata={}
        )
        seen.add(sku)
    session.flush()
    part = data.draw(st.sampled_from([each for pair in names for each in pair if each]))
    start = data.draw(st.integers(0, len(part) - 1))
    searched = data.draw(st.sampled_from([part[start:], part[start:].swapcase()]) | TEXTS)
    rows = select(Product.id).where(Product.organization_id == organization.id)
    if len(searched) > 2:
        pattern = like_pattern(searched)
        rows = rows.where(Product.name.ilike(pattern) | Product.sku.ilike(pattern))
    else:
        rows = rows.where(Product.name.ilike(escape_like(searched) + "%"))
    expected = set(map(str, session.scalars(rows)))
    switch_role(SessionRole(APPLICATION_ROLE, new_id(), (organization.id,)))
    found = search(session, organization.id, searched)
    switch_role(SYSTEM)
    # The index knows no text of rare punctuation and control characters only: the list is read instead.
    assert found == ((None, None) if set(searched) <= set("%'\"\x01") else (len(expected), expected))


def test_s01_only_tenants_of_the_caller_are_searched(session: Session, customer: Customer) -> None:
    own = factories.make_product(organization=customer.organization, name="Linen dress")
    personal = factories.make_product(owner=customer.owner, name="Linen dress")
    other = factories.make_product(name="Linen dress")
    public = factories.make_product(name="Linen dress", public=True)
    session.flush()
    scopes = customer.organization.id, customer.owner.id, other.organization_id or other.owner_id
    switch_role(SessionRole(APPLICATION_ROLE, customer.owner.id, (customer.organization.id,)))
    assert search(session, scopes[0], "INEN") == (1, {str(own.id)})
    assert search(session, scopes[1], "INEN") == (1, {str(personal.id)})
    assert search(session, scopes[0], "INEN", public=True) == (2, {str(own.id), str(public.id)})
    for scope in (scopes[2], None):
        assert search(session, scope, "INEN") == (None, None)
        assert search(session, scope, "INEN", public=True) == (None, None)
    # A guest, and a transaction without a caller.
    for role in (SessionRole(APPLICATION_ROLE, shooting_id=new_id()), SessionRole(APPLICATION_ROLE)):
        switch_role(role)
        assert [search(session, scope, "INEN") for scope in scopes] == [(None, None)] * 3
    switch_role(SYSTEM)


def test_a_frequent_text_has_a_count_and_no_ids(session: Session, customer: Customer) -> None:
    for number in range(3):
        factories.make_product(organization=customer.organization, name=f"Linen dress {number}")
    session.flush()
    switch_role(SessionRole(APPLICATION_ROLE, customer.owner.id, (customer.organization.id,)))
    assert search(session, customer.organization.id, "linen", most=3) == (3, None)
    switch_role(SYSTEM)


@pytest.mark.parametrize("changes", [False, True])
def test_pages_of_a_search_follow_each_other_in_every_order(
    customer: Customer, monkeypatch: pytest.MonkeyPatch, changes: bool
) -> None:
    start = utc_now() - timedelta(days=1)
    # Created in another order than the ids, two at a time.
    for number in (3, 0, 4, 1, 6, 2, 5):
        created_at = start + timedelta(hours=number // 2)
        values = {"name": f"Linen dress {number * 5 % 7}", "category": f"c{number % 2}"}
        factories.make_product(organization=customer.organization, created_at=created_at, **values)
    factories.make_product(organization=customer.organization, name="Coat")
    if changes:
        # As if a row of each page had been deleted after the index was searched.
        slice_ids = pagination._slice_ids
        monkeypatch.setattr(
            pagination, "_slice_ids", lambda *part: re.sub(r"^{[^,}]+", f"{{{new_id()}", slice_ids(*part))
        )
    path = f"/products/{customer.organization_query}"
    for sort in ("-created_at", "created_at", "-name"):
        for more in ("", "&category=c0"):
            listed = customer.client("GET", f"{path}&sort={sort}{more}").json()["data"]
            expected = [row for row in listed if row["name"] != "Coat"]
            search = f"{path}&sort={sort}&q=inen{more}"
            pages = [customer.client("GET", f"{search}&limit=2").json()]
            while cursor := pages[-1]["next_cursor"]:
                pages.append(customer.client("GET", f"{search}&limit=2&cursor={quote(cursor)}").json())
            assert [row for page in pages for row in page["data"]] == expected
            for skip in range(len(expected) + 2):
                page = customer.client("GET", f"{search}&limit=3&skip={skip}").json()
                assert (page["data"], page["count"]) == (expected[skip : skip + 3], len(expected))


def test_the_system_role_uses_the_indexes(session: Session) -> None:
    tables = session.scalars(TABLES).all()
    assert len(tables) == 9
    session.execute(text("SET LOCAL enable_seqscan = off"))
    # With few rows, PostgreSQL would read another index completely.
    session.execute(text("SET LOCAL ROLE NONE"))
    for index in session.scalars(OTHER_INDEXES, {"tables": list(tables)}).all():
        session.execute(text(f"DROP INDEX {index}"))
    switch_role(SYSTEM)
    for table in tables:
        condition = "sartiq_search_text(name) LIKE '%abc%'"
        if table == "products":
            condition = "sartiq_search_text(name || ' ' || coalesce(sku, '')) LIKE '%abc%'"
        plan = "\n".join(session.scalars(text(f"EXPLAIN SELECT id FROM {table} WHERE {condition}")))  # noqa: S608 - names come from the catalog
        assert f"Bitmap Index Scan on ix_{table}_search" in plan, plan


@pytest.mark.parametrize(
    ("q", "names"),
    [
        ("l", ["Linen dress", "LIDO"]),
        ("li", ["Linen dress", "LIDO"]),
        ("in", []),
        ("%", ["% off"]),
        ("nen", ["Linen dress"]),
        ("k-7", ["LIDO"]),
        ("---", ["a---b"]),
        ("ß 🙂", ["groß 🙂"]),
    ],
)
def test_short_texts_find_the_start_of_the_name(customer: Customer, q: str, names: list[str]) -> None:
    for name in ("Linen dress", "LIDO", "% off", "a---b", "groß 🙂"):
        sku = "lK-7" if name == "LIDO" else None
        factories.make_product(organization=customer.organization, name=name, sku=sku)
    for options in ("", "&state=READY", "&include_public=true", "&limit=1&skip=0"):
        path = f"/products/{customer.organization_query}&sort=created_at&q={quote(q)}{options}"
        body = customer.client("GET", path).json()
        limit = 1 if "limit" in options else 100
        assert ([row["name"] for row in body["data"]], body["count"]) == (names[:limit], len(names)), options
