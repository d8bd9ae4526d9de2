"""Lists by product, by several values, by ids and by time; sort orders by SKU and due date."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support import factories
from tests.support.factories.catalog import Customer

LISTS = ("looks", "shots", "generations", "predictions", "exports")


class Work(NamedTuple):
    """A product with one row of each list."""

    product: Any
    shooting: Any
    ids: dict[str, str]


def make_work(customer: Customer, **values: Any) -> Work:
    organization = customer.organization
    product = factories.make_product(organization=organization, **values)
    shooting = factories.make_shooting(organization=organization)
    shot_type = factories.make_shot_type(organization=organization)
    look = factories.make_look(shooting, main_product_id=product.id, shot_type_ids=[shot_type.id])
    shot = factories.make_shot(look, shot_type_id=shot_type.id, status="approved")
    generation = factories.make_generation(shot, product_id=product.id, status="completed")
    prediction = factories.make_prediction(generation, status="approved")
    export = factories.make_export(shooting, prediction)
    rows = dict(zip(LISTS, (look, shot, generation, prediction, export), strict=True))
    return Work(product, shooting, {name: str(row.id) for name, row in rows.items()})


def list_ids(customer: Customer, work: Work, name: str, query: str) -> list[str]:
    path = (
        f"/shootings/{work.shooting.id}/looks?"
        if name == "looks"
        else f"/{name}/{customer.organization_query}&"
    )
    response = customer.client("GET", f"{path}{query}")
    assert response.status == 200, response.body
    page = response.json()
    assert page["count"] == len(page["data"])
    return [row["id"] for row in page["data"]]


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_filtered_by_product(customer: Customer, name: str) -> None:
    work = make_work(customer, sku="AN-1", external_id="shop-1")
    make_work(customer, sku="AN-2", external_id="shop-2")
    expected = [work.ids[name]]
    for query in (
        f"product_id={work.product.id}",
        "sku=AN-1",
        "external_id=shop-1",
        "sku=AN-1&external_id=shop-1",
    ):
        assert list_ids(customer, work, name, query) == expected, query
    for query in ("sku=AN-1&external_id=shop-2", "sku=unknown", "external_id=SHOP-1"):
        assert list_ids(customer, work, name, query) == [], query


@pytest.mark.parametrize("name", LISTS[1:])
def test_a_product_determines_the_tenant_and_that_of_another_one_is_not_found(
    customer: Customer, name: str
) -> None:
    work = make_work(customer)
    response = customer.client("GET", f"/{name}/?product_id={work.product.id}")
    assert [row["id"] for row in response.json()["data"]] == [work.ids[name]]
    foreign = factories.make_product()
    response = customer.client("GET", f"/{name}/{customer.organization_query}&product_id={foreign.id}")
    assert (response.status, response.json()["parameter"]) == (404, "product_id")


def test_the_sku_of_another_tenant_finds_nothing(customer: Customer) -> None:
    foreign = factories.make_product(sku="AN-1")
    work = make_work(customer, sku="AN-1")
    factories.make_generation(factories.make_shot(), product_id=foreign.id)
    assert list_ids(customer, work, "generations", "sku=AN-1") == [work.ids["generations"]]


def test_a_public_product_of_another_tenant_can_be_named(customer: Customer) -> None:
    public = factories.make_product(sku="AN-1", public=True)
    work = make_work(customer)
    shot_type = factories.make_shot_type(organization=customer.organization)
    look = factories.make_look(work.shooting, main_product_id=public.id, shot_type_ids=[shot_type.id])
    shot = factories.make_shot(look, shot_type_id=shot_type.id)
    assert list_ids(customer, work, "shots", "sku=AN-1") == [str(shot.id)]
    assert list_ids(customer, work, "looks", f"product_id={public.id}") == [str(look.id)]


@pytest.mark.parametrize("query", ["sku=AN-1", "external_id=shop-1", "sku=AN-1&state=READY"])
def test_products_are_found_by_their_keys(customer: Customer, query: str) -> None:
    product = customer.create("/products/", {"name": "Dress", "sku": "AN-1", "external_id": "shop-1"})
    customer.create("/products/", {"name": "Coat", "sku": "AN-2", "external_id": "shop-2"})
    response = customer.client("GET", f"/products/{customer.organization_query}&{query}")
    assert response.json()["data"] == [product]


@pytest.mark.parametrize(
    ("name", "parameter", "values"),
    [
        ("products", "state", ("DRAFT", "READY", "ARCHIVED")),
        ("shootings", "phase", ("BRIEF", "AGREEMENT", "CLOSED")),
        ("shots", "status", ("pending", "approved", "exported")),
        ("generations", "status", ("running", "completed", "failed")),
    ],
)
def test_an_array_of_values_widens_a_filter_and_the_single_one_narrows_it(
    customer: Customer, name: str, parameter: str, values: tuple[str, ...]
) -> None:
    for value in values:
        row = {parameter: value}
        match name:
            case "products":
                factories.make_product(organization=customer.organization, **row)
            case "shootings":
                factories.make_shooting(organization=customer.organization, **row)
            case "shots":
                factories.make_shot(
                    factories.make_look(factories.make_shooting(organization=customer.organization)), **row
                )
            case _:
                shooting = factories.make_shooting(organization=customer.organization)
                factories.make_generation(factories.make_shot(factories.make_look(shooting)), **row)

    def found(query: str) -> set[str]:
        page = customer.client("GET", f"/{name}/{customer.organization_query}&{query}").json()
        assert (page["count"], page["count_exact"]) == (len(page["data"]), True)
        return {row[parameter] for row in page["data"]}

    first, second, third = values
    assert found(f"{parameter}_in={first},{second}") == {first, second}
    assert found(f"{parameter}_in={first},{second}&{parameter}={second}") == {second}
    assert found(f"{parameter}_in={first},{second}&{parameter}={third}") == set()
    response = customer.client("GET", f"/{name}/{customer.organization_query}&{parameter}_in={first},unknown")
    assert response.error_types.keys() == {("query", f"{parameter}_in", 1)}


def test_a_list_is_filtered_by_ids(customer: Customer) -> None:
    rows = [customer.create("/products/", {"name": name}) for name in "abc"]
    foreign = factories.make_product()
    ids = ",".join([rows[2]["id"], rows[0]["id"], str(foreign.id)])
    path = f"/products/{customer.organization_query}"
    page = customer.client("GET", f"{path}&ids={ids}&sort=name").json()
    assert (page["data"], page["count"]) == ([rows[0], rows[2]], 2)
    too_many = ",".join([rows[0]["id"]] * 101)
    assert customer.client("GET", f"{path}&ids={too_many}").error_types.keys() == {("query", "ids")}
    assert customer.client("GET", f"{path}&ids=x").error_types.keys() == {("query", "ids", 0)}


def test_a_list_is_filtered_by_a_time_before(customer: Customer) -> None:
    first, second = (customer.create("/products/", {"name": name}) for name in "ab")
    path = f"/products/{customer.organization_query}"
    assert customer.client("GET", f"{path}&created_before={second['created_at']}").json()["data"] == [first]
    customer.client("PATCH", f"/products/{first['id']}", {"name": "c"})
    assert customer.client("GET", f"{path}&updated_before={second['updated_at']}").json()["count"] == 0
    window = f"created_after={first['created_at']}&created_before=2100-01-01T00:00:00Z"
    assert customer.client("GET", f"{path}&{window}").json()["data"] == [second]


def read_pages(customer: Customer, path: str, limit: int) -> Iterator[dict[str, Any]]:
    cursor = ""
    while cursor is not None:
        page = customer.client("GET", f"{path}&limit={limit}{cursor}").json()
        yield from page["data"]
        cursor = f"&cursor={page['next_cursor']}" if page["next_cursor"] else None


def test_products_are_sorted_by_sku_and_those_without_one_come_first(customer: Customer) -> None:
    for sku in ("b", None, "a", None, "c"):
        customer.create("/products/", {"name": "Dress", "sku": sku})
    path = f"/products/{customer.organization_query}"
    for limit in (1, 2, 5):
        ascending = list(read_pages(customer, f"{path}&sort=sku", limit))
        assert [row["sku"] for row in ascending] == [None, None, "a", "b", "c"]
        assert list(read_pages(customer, f"{path}&sort=-sku", limit)) == ascending[::-1]


def test_shootings_are_sorted_by_due_date(customer: Customer) -> None:
    days = ("2027-03-01", "2027-01-01", "2027-02-01")
    for day in days:
        customer.create("/shootings/", {"name": day, "due_date": f"{day}T00:00:00Z"})
    path = f"/shootings/{customer.organization_query}"
    for limit in (1, 3):
        assert [row["name"] for row in read_pages(customer, f"{path}&sort=due_date", limit)] == sorted(days)
        assert [row["name"] for row in read_pages(customer, f"{path}&sort=-due_date", limit)] == sorted(days)[
            ::-1
        ]
