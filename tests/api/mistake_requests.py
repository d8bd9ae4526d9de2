"""The requests of `test_honest_mistakes` that need rows or several steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx

from tests.api.mistake_client import JSON, Request, World
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.factories.api_keys import api_key_headers


def form(target: str, parts: Mapping[str, str | bytes]) -> Request:
    """Return a multipart request; parts of bytes are files."""
    files = {name: ("a.jpg", value) for name, value in parts.items() if isinstance(value, bytes)}
    data = {name: value for name, value in parts.items() if isinstance(value, str)}
    encoded = httpx.Request("POST", "http://localhost", files=files, data=data)
    return Request("POST", target, encoded.read(), {"content-type": encoded.headers["content-type"]})


def photo_form(**parts: str | bytes) -> Callable[[World], Request]:
    return lambda world: form(f"/api/v1/products/{world.rows.product.id}/images", parts)


def raw_brand(body: bytes, content_type: str = JSON) -> Callable[[World], Request]:
    return lambda world: world.request("POST", "/brands/", body, content_type=content_type)


def look_with(count: int, repeated: int = 1) -> Callable[[World], Request]:
    """Return a new look with a number of different shot types, each of them several times."""

    def send(world: World) -> Request:
        types = [str(factories.make_shot_type(**world.rows.ownership).id) for _ in range(count)]
        body = {"main_product_id": str(world.rows.product.id), "shot_type_ids": types * repeated}
        return world.request("POST", f"/shootings/{world.rows.shooting.id}/looks", body)

    return send


def shot_action(action: str, body: Any = None) -> Callable[[World], Request]:
    return lambda world: world.request("POST", f"/shots/{world.rows.shot.id}/{action}", body)


def product_patch(body: Any, **headers: str) -> Callable[[World], Request]:
    return lambda world: world.request("PATCH", f"/products/{world.rows.product.id}", body, **headers)


def product_with_personal_brand(world: World) -> Request:
    brand = world.send(Request("POST", "/api/v1/brands/", {"name": "Mine"})).json()
    assert brand["organization_id"] is None
    return world.request("POST", "/products/", {"name": "Coat", "brand_id": brand["id"]})


def whole_representation(world: World) -> Request:
    path = f"/products/{world.rows.product.id}"
    return world.request("PATCH", path, world.call("GET", path) | {"name": "Coat"})


def brand_in_use(world: World) -> Request:
    brand = factories.make_brand(**world.rows.ownership)
    factories.make_product(brand_id=brand.id, **world.rows.ownership)
    return world.request("DELETE", f"/brands/{brand.id}")


def product_in_use(world: World) -> Request:
    product = factories.make_product(**world.rows.ownership)
    body = {"main_product_id": str(product.id), "shot_type_ids": [str(world.rows.shot_type.id)]}
    world.call("POST", f"/shootings/{world.rows.shooting.id}/looks", body)
    return world.request("DELETE", f"/products/{product.id}")


def second_generation(world: World) -> Request:
    request = shot_action("generate", {"seed": 7})(world)
    assert world.send(request).status == 202
    return request


def approval_of_one_of_two(world: World) -> Request:
    world.call("POST", f"/shots/{world.rows.shot.id}/generate", {"seed": 7, "num_predictions": 2})
    world.run_worker()
    return shot_action("approve", {})(world)


def repeated_key(world: World) -> Request:
    request = world.request("POST", "/brands/", {"name": "One"}, idempotency_key=str(uuid4()))
    assert world.send(request).status == 201
    return replace(request, body={"name": "Two"})


def with_etag(change: Callable[[str], str]) -> Callable[[World], Request]:
    def send(world: World) -> Request:
        request = product_patch({"name": "Coat"})(world)
        etag = world.send(replace(request, method="GET", body=None)).headers["etag"]
        return request.with_headers(if_match=change(etag))

    return send


def stale_etag(world: World) -> Request:
    request = with_etag(str)(world)
    world.call("PATCH", f"/products/{world.rows.product.id}", {"color": "red"})
    return request


def cursor_without_sort(world: World) -> Request:
    for name in ("A", "B"):
        world.call("POST", "/brands/", {"name": name})
    first = world.request("GET", "/brands/").with_query(sort="name", limit="1")
    return first.with_query(sort=None, cursor=world.send(first).json()["next_cursor"])


def file_url_before_the_upload(world: World) -> Request:
    body = {"filename": "a.jpg", "content_type": "image/jpeg"}
    upload = world.call("POST", "/uploads/presigned-url", body)
    product = {"name": "Coat", "cover_image": upload["file_url"]}
    return world.request("POST", "/products/", product, x_upload_url=upload["upload_url"])


def generation_with(**body: Any) -> Callable[[World], Request]:
    def send(world: World) -> Request:
        small = factories.make_generation_model(max_size_pixels=100 * 100)
        own = {"shot_id": str(world.rows.shot.id), "model_id": str(small.id)}
        return world.request("POST", "/generations/", own | {"width": 96, "height": 96} | body)

    return send


def with_key(path: str, *scopes: str) -> Callable[[World], Request]:
    def send(world: World) -> Request:
        return world.request("GET", path).with_headers(
            **api_key_headers(world.app, world.rows.organization, list(scopes))
        )

    return send


def brand_list(**headers: str) -> Callable[[World], Request]:
    return lambda world: world.request("GET", "/brands/", **headers)


def new(path: str, **body: Any) -> Callable[[World], Request]:
    return lambda world: world.request("POST", path, body)


def listed(path: str, **query: str) -> Callable[[World], Request]:
    return lambda world: world.request("GET", path).with_query(**query)


def at(target: str) -> Callable[[World], Request]:
    return lambda world: replace(brand_list()(world), target=target)


def altered_token(world: World) -> Request:
    return brand_list(authorization=f"{world.headers['authorization'][:-3]}abc")(world)


def expired_token(world: World) -> Request:
    return brand_list(**auth_headers(world.app, world.rows.owner, age=7200))(world)


def token_without_scheme(world: World) -> Request:
    return brand_list(authorization=world.headers["authorization"].split()[1])(world)


def token_in_the_query(world: World) -> Request:
    token = world.headers["authorization"].split()[1]
    return brand_list(authorization="")(world).with_query(access_token=token)


def brand_with_final_slash(world: World) -> Request:
    brand = world.call("POST", "/brands/", {"name": "Atelier"})
    return Request("GET", f"/api/v1/brands/{brand['id']}/")
