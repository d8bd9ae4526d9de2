"""The mistakes of integrators: each is mended from the response alone, and the mended request succeeds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

import httpx
import pytest

from db.session import Database
from handlers.app import Application
from studio.media.storage import LocalDisk
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, send_request
from tests.support.factories.api_keys import api_key_headers
from tests.support.sample_media import build_orientation_image, encode_image
from tests.support.scenarios import PhotographedProduct, run_pending_generations

PHOTO = encode_image(build_orientation_image(120, 80), "JPEG")
TIFF = b"II*\0\x08\0\0\0" + b"\0" * 50
UNKNOWN = "01990000-5eed-7000-8000-00000000dead"
JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """One request. The target is a whole path with its query."""

    method: str
    target: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def as_sent(self) -> dict[str, Any]:
        """The body as arguments of `send_request`: bytes are sent as they are, other values as JSON."""
        return {"body": self.body} if isinstance(self.body, bytes) else {"as_json": self.body}

    def with_headers(self, **headers: str) -> Request:
        """Return the request with further headers; underscores become hyphens."""
        return replace(
            self,
            headers={**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}},
        )

    def with_query(self, **values: str | None) -> Request:
        """Return the request with other query parameters; None leaves one out."""
        parts = urlsplit(self.target)
        query = dict(parse_qsl(parts.query)) | values
        kept = {name: value for name, value in query.items() if value is not None}
        return replace(self, target=f"{parts.path}?{urlencode(kept)}")


@dataclass(frozen=True)
class World:
    """A customer who makes the mistakes."""

    app: Application
    headers: dict[str, str]
    rows: PhotographedProduct
    run_worker: Callable[[], int]

    def send(self, request: Request) -> ClientResponse:
        """Send a request, signed in unless it has an Authorization header; an empty one is not sent."""
        headers = {
            name: value for name, value in {**self.headers, **request.headers}.items() if value or name == ""
        }
        return send_request(self.app, request.method, request.target, headers, **request.as_sent)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request that must succeed, and return its JSON. The path gets the organization."""
        response = self.send(self.request(method, path, body))
        assert response.status < 300, response.body
        return response.json() if response.body else None

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Request:
        """Return a request for a path below `/api/v1`; a path that ends with "/" gets the organization."""
        query = f"?organization_id={self.rows.organization.id}" if path.endswith("/") else ""
        return Request(method, f"/api/v1{path}{query}", body).with_headers(**headers)


Answer = Callable[[World, Request, ClientResponse], Request]


@dataclass(frozen=True)
class Mistake:
    """A mistake of the record: what is sent, what the response says, and how a client mends it with that."""

    number: str
    send: Callable[[World], Request]
    status: int
    says: Any
    """What the response must contain: members of the problem, or of one of its violations."""
    mend: Answer


def problem(response: ClientResponse) -> dict[str, Any]:
    document: dict[str, Any] = response.json()
    return document


def violations(response: ClientResponse) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = problem(response)["detail"]
    return listed


def names_of(response: ClientResponse) -> list[str]:
    """Return the properties or parameters that the violations point at."""
    return [violation["pointer"].removeprefix("/") for violation in violations(response)]


# What a client does with a response. None of them knows the mistake.


def send_the_named_media_type(_: World, request: Request, response: ClientResponse) -> Request:
    media_type = problem(response)["detail"].removeprefix("Send ")
    assert media_type == JSON
    body = request.body
    return replace(
        request,
        body=json.loads(body) if body.startswith(b"{") else dict(parse_qsl(body.decode())),
        headers={},
    )


def follow_location(_: World, request: Request, response: ClientResponse) -> Request:
    return replace(request, target=response.headers["location"])


def follow_suggested_path(_: World, request: Request, response: ClientResponse) -> Request:
    return replace(request, target=problem(response)["did_you_mean"])


def follow_related_link(_: World, request: Request, response: ClientResponse) -> Request:
    target = re.fullmatch(r'<([^>]+)>; rel="related"', response.headers["link"])
    assert target is not None
    return replace(request, target=target[1])


def leave_out_the_named(_: World, request: Request, response: ClientResponse) -> Request:
    names = names_of(response)
    if violations(response)[0]["loc"][0] == "query":
        return request.with_query(**dict.fromkeys(names))
    return replace(request, body={name: value for name, value in request.body.items() if name not in names})


def rename_as_suggested(_: World, request: Request, response: ClientResponse) -> Request:
    renamed = {
        name: violation["ctx"]["did_you_mean"]
        for name, violation in zip(names_of(response), violations(response), strict=True)
    }
    return replace(request, body={renamed.get(name, name): value for name, value in request.body.items()})


def choose_an_expected_value(_: World, request: Request, response: ClientResponse) -> Request:
    (violation,) = violations(response)
    value = violation["ctx"]["expected"][0]
    name = violation["pointer"].removeprefix("/")
    if violation["loc"][0] == "query":
        return request.with_query(**{name: value})
    return replace(request, body={**request.body, name: value})


def choose_an_allowed_value(_: World, request: Request, response: ClientResponse) -> Request:
    name = problem(response)["pointer"].removeprefix("/")
    return replace(request, body={**request.body, name: problem(response)["allowed_values"][0]})


def send_instead(value: Any) -> Answer:
    """Return an answer that replaces what the response points at with a value that the reader knows."""

    def mend(world: World, request: Request, response: ClientResponse) -> Request:
        document = problem(response)
        new = value(world, response) if callable(value) else value
        if "parameter" in document:
            return request.with_query(**{document["parameter"]: new})
        is_list = isinstance(document["detail"], list)
        place = violations(response)[0] if is_list else document
        if is_list and place["loc"][0] == "query":
            return request.with_query(**{place["loc"][1]: new})
        if is_list and place["loc"][0] == "path":
            return replace(request, target=request.target.replace(place["input"], new))
        if place["pointer"] == "":
            return replace(request, body=new)
        return replace(request, body={**request.body, place["pointer"].removeprefix("/"): new})

    return mend


def own_organization(world: World, _: ClientResponse) -> str:
    return str(world.rows.organization.id)


def own_product(world: World, _: ClientResponse) -> str:
    return str(world.rows.product.id)


def brand_of_the_organization(world: World, _: ClientResponse) -> str:
    return str(world.call("POST", "/brands/", {"name": "Ours"})["id"])


def sign_in_again(world: World, request: Request, response: ClientResponse) -> Request:
    assert 'error="invalid_token"' in response.headers["www-authenticate"]
    return replace(request, headers=auth_headers(world.app, world.rows.owner))


def use_the_named_scheme(world: World, request: Request, response: ClientResponse) -> Request:
    scheme = response.headers["www-authenticate"]
    token = world.headers["authorization"].split()[1]
    return request.with_query(access_token=None).with_headers(authorization=f"{scheme} {token}")


def send_a_photo(_: World, request: Request, response: ClientResponse) -> Request:
    detail = problem(response)["detail"]
    assert "JPEG" in detail if isinstance(detail, str) else detail[0]["pointer"] == "/file"
    return form(request.target, {"file": PHOTO, "type": "primary"})


def rename_the_part(_: World, request: Request, response: ClientResponse) -> Request:
    missing, unknown = violations(response)
    assert (missing["type"], unknown["type"]) == ("missing", "extra_forbidden")
    return form(request.target, {missing["loc"][1]: PHOTO, "type": "primary"})


def choose_the_type_of_the_photo(world: World, request: Request, response: ClientResponse) -> Request:
    """Send any value for the missing part: the next response lists the allowed ones."""
    (missing,) = violations(response)
    rejected = world.send(form(request.target, {"file": PHOTO, missing["loc"][1]: "?"}))
    (wrong,) = violations(rejected)
    return form(request.target, {"file": PHOTO, wrong["loc"][1]: wrong["ctx"]["expected"][0]})


def shorten_the_list(_: World, request: Request, response: ClientResponse) -> Request:
    (violation,) = violations(response)
    name = violation["pointer"].removeprefix("/")
    shortened = request.body[name][: violation["ctx"]["max_length"]]
    return replace(request, body={**request.body, name: shortened})


def remove_the_duplicates(_: World, request: Request, response: ClientResponse) -> Request:
    (name,) = names_of(response)
    return replace(request, body={**request.body, name: list(dict.fromkeys(request.body[name]))})


def delete_what_refers_to_it(world: World, request: Request, response: ClientResponse) -> Request:
    (conflict,) = problem(response)["conflicts_with"]
    assert (conflict["resource_type"], conflict["count"]) == ("look", 1)
    look = conflict["ids"][0]
    shots = world.send(world.request("GET", "/shots/").with_query(look_id=look)).json()["data"]
    world.call("DELETE", f"/shootings/{shots[0]['shooting_id']}/looks/{look}")
    return request


def read_the_products(world: World, request: Request, _: ClientResponse) -> Request:
    """Mend nothing: deleting a brand clears `brand_id` of its products, as the operation says."""
    products = world.request("GET", "/products/")
    assert {product["brand_id"] for product in world.send(products).json()["data"]} == {None}
    return products


def cancel_the_named_generation(world: World, request: Request, response: ClientResponse) -> Request:
    (conflict,) = problem(response)["conflicts_with"]
    assert (conflict["resource_type"], conflict["count"]) == ("generation", 1)
    world.call("POST", f"/generations/{conflict['ids'][0]}/cancel")
    return request


def do_the_allowed_action(_: World, request: Request, response: ClientResponse) -> Request:
    (action,) = problem(response)["allowed_transitions"]
    return replace(request, target=f"{request.target.rpartition('/')[0]}/{action}")


def use_an_allowed_transition(_: World, request: Request, response: ClientResponse) -> Request:
    name = problem(response)["pointer"].removeprefix("/")
    return replace(request, body={name: problem(response)["allowed_transitions"][0]})


def use_a_new_key(_: World, request: Request, response: ClientResponse) -> Request:
    (violation,) = violations(response)
    assert violation["loc"][0] == "header"
    return request.with_headers(**{violation["loc"][1].lower(): str(uuid4())})


def read_the_new_etag(world: World, request: Request, _: ClientResponse) -> Request:
    etag = world.send(replace(request, method="GET", body=None, headers={})).headers["etag"]
    return request.with_headers(if_match=etag)


def remove_the_weak_mark(_: World, request: Request, response: ClientResponse) -> Request:
    assert "without W/" in problem(response)["detail"]
    return request.with_headers(if_match=request.headers["if-match"].removeprefix("W/"))


def add_the_quotation_marks(_: World, request: Request, response: ClientResponse) -> Request:
    assert "quotation marks" in problem(response)["detail"]
    return request.with_headers(if_match=f'"{request.headers["if-match"]}"')


def correct_the_syntax(_: World, request: Request, response: ClientResponse) -> Request:
    column = int(re.fullmatch(r".*line 1, column (\d+)", problem(response)["detail"])[1])  # type: ignore[index]  # it matches
    assert request.body[column - 1 : column] == b"'"
    return replace(request, body=json.loads(request.body.replace(b"'", b'"')))


def repeat_the_sort_order(_: World, request: Request, response: ClientResponse) -> Request:
    assert problem(response)["parameter"] == "cursor"
    return request.with_query(sort="name")


def approve_a_prediction(world: World, request: Request, _: ClientResponse) -> Request:
    shot = world.rows.shot.id
    world.call("POST", f"/shots/{shot}/generate", {"seed": 7, "num_predictions": 1})
    world.run_worker()
    world.call("POST", f"/shots/{shot}/approve", {})
    return request


def send_the_file_first(world: World, request: Request, response: ClientResponse) -> Request:
    assert "`upload_url`" in problem(response)["detail"]
    parts = urlsplit(request.headers["x-upload-url"])
    target = f"{parts.path}?{parts.query}"
    sent = world.send(Request("PUT", target, PHOTO, {"content-type": "image/jpeg", "authorization": ""}))
    assert sent.status == 204, sent.body
    return request


def match_the_pattern(_: World, request: Request, response: ClientResponse) -> Request:
    (violation,) = violations(response)
    assert re.fullmatch(violation["ctx"]["pattern"], "#C81E1E")
    return replace(request, body={**request.body, violation["loc"][1]: "#C81E1E"})


def shrink_to_the_limit(_: World, request: Request, response: ClientResponse) -> Request:
    pixels = re.search(r"(\d+) pixels in total", problem(response)["detail"])
    assert pixels is not None
    side = int(int(pixels[1]) ** 0.5)
    return replace(request, body={**request.body, "width": side, "height": side})


def accept_the_named_media_type(_: World, request: Request, response: ClientResponse) -> Request:
    named = re.match(r"The response is (\S+);", problem(response)["detail"])
    assert named is not None
    return request.with_headers(accept=named[1])


def create_a_key_with_the_scope(world: World, request: Request, response: ClientResponse) -> Request:
    scope = problem(response)["required_scope"]
    assert f'scope="{scope}"' in response.headers["www-authenticate"]
    return replace(request, headers=api_key_headers(world.app, world.rows.organization, [scope]))


def use_https(_: World, request: Request, response: ClientResponse) -> Request:
    name = problem(response)["pointer"].removeprefix("/")
    return replace(request, body={**request.body, name: request.body[name].replace("http://", "https://")})


# The requests that need rows or several steps.


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


def violation(name: str, kind: str, **members: Any) -> dict[str, Any]:
    return {"pointer": f"/{name}" if name else "", "type": kind} | members


WRONG_TYPE = {"code": "unsupported_media_type", "detail": f"Send {JSON}"}
WRONG_PATH = {"code": "not_found", "detail": "No operation has this path"}
MISTAKES = (
    Mistake(
        "1 a form",
        raw_brand(b"name=A", "application/x-www-form-urlencoded"),
        415,
        WRONG_TYPE,
        send_the_named_media_type,
    ),
    Mistake("1 no content type", raw_brand(b'{"name": "A"}', ""), 415, WRONG_TYPE, send_the_named_media_type),
    Mistake("1 text", raw_brand(b'{"name": "A"}', "text/plain"), 415, WRONG_TYPE, send_the_named_media_type),
    Mistake(
        "2 no final slash",
        lambda world: replace(
            new("/brands/", name="A")(world),
            target=f"/api/v1/brands?organization_id={world.rows.organization.id}",
        ),
        308,
        None,
        follow_location,
    ),
    Mistake("2c final slash of an item", brand_with_final_slash, 404, WRONG_PATH, follow_suggested_path),
    Mistake(
        "3 a personal reference",
        product_with_personal_brand,
        409,
        {"code": "scope_mismatch", "pointer": "/brand_id"},
        send_instead(brand_of_the_organization),
    ),
    Mistake(
        "3d no organization on a list",
        at("/api/v1/products/?limit=5"),
        200,
        {"count": 0},
        follow_related_link,
    ),
    Mistake(
        "4 lower case",
        new("/products/", name="Coat", gender="female"),
        422,
        violation("gender", "enum", ctx={"expected": ["FEMALE", "MALE", "UNISEX"]}),
        choose_an_expected_value,
    ),
    Mistake(
        "4 upper case",
        listed("/shots/", status="PENDING"),
        422,
        violation("status", "enum", input="PENDING"),
        choose_an_expected_value,
    ),
    Mistake("5 an altered token", altered_token, 401, {"code": "invalid_token"}, sign_in_again),
    Mistake("5 an expired token", expired_token, 401, {"code": "invalid_token"}, sign_in_again),
    Mistake(
        "5b no token", brand_list(authorization=""), 401, {"code": "not_authenticated"}, use_the_named_scheme
    ),
    Mistake("5b no scheme", token_without_scheme, 401, {"code": "not_authenticated"}, use_the_named_scheme),
    Mistake(
        "5b another scheme",
        brand_list(authorization="Basic YTpi"),
        401,
        {"code": "not_authenticated"},
        use_the_named_scheme,
    ),
    Mistake("5b in the query", token_in_the_query, 401, {"code": "not_authenticated"}, use_the_named_scheme),
    Mistake(
        "6 no UUID in the path",
        lambda world: world.request("GET", "/products/42"),
        422,
        violation("product_id", "uuid_parsing", input="42"),
        send_instead(own_product),
    ),
    Mistake(
        "6 a SKU",
        new("/products/", name="Coat", brand_id="AN-1"),
        422,
        violation("brand_id", "uuid_parsing", input="AN-1"),
        send_instead(brand_of_the_organization),
    ),
    Mistake(
        "6e an unknown id",
        new("/products/", name="Coat", brand_id=UNKNOWN),
        404,
        {"code": "not_found", "pointer": "/brand_id"},
        send_instead(brand_of_the_organization),
    ),
    Mistake(
        "7 TIFF",
        photo_form(file=TIFF, type="primary"),
        415,
        {
            "code": "not_an_image",
            "detail": "The content is a TIFF image: send a JPEG, PNG, WEBP, AVIF, HEIC or GIF image",
        },
        send_a_photo,
    ),
    Mistake(
        "7 PDF",
        photo_form(file=b"%PDF-1.7 a letter", type="primary"),
        415,
        {
            "code": "not_an_image",
            "detail": "The content is a PDF document: send a JPEG, PNG, WEBP, AVIF, HEIC or GIF image",
        },
        send_a_photo,
    ),
    Mistake(
        "7 an empty file",
        photo_form(file=b"", type="primary"),
        422,
        violation("file", "unreadable_image", msg="The file is empty"),
        send_a_photo,
    ),
    Mistake(
        "7 a truncated file",
        photo_form(file=PHOTO[:-400], type="primary"),
        422,
        violation("file", "unreadable_image"),
        send_a_photo,
    ),
    Mistake(
        "7 no type", photo_form(file=PHOTO), 422, violation("type", "missing"), choose_the_type_of_the_photo
    ),
    Mistake(
        "7 another part",
        photo_form(image=PHOTO, type="primary"),
        422,
        violation("file", "missing"),
        rename_the_part,
    ),
    Mistake(
        "8 too many shot types",
        look_with(21),
        422,
        violation("shot_type_ids", "too_long", ctx={"max_length": 20}),
        shorten_the_list,
    ),
    Mistake(
        "8 duplicates",
        look_with(1, repeated=2),
        422,
        violation("shot_type_ids", "not_unique"),
        remove_the_duplicates,
    ),
    Mistake(
        "8 no shot type",
        look_with(0),
        422,
        violation("shot_type_ids", "too_short", msg="Must have at least 1 item"),
        send_instead(lambda world, _: [str(world.rows.shot_type.id)]),
    ),
    Mistake(
        "9 null",
        product_patch({"name": None}),
        422,
        violation("name", "string_type", msg="Must be a string"),
        send_instead("Coat"),
    ),
    Mistake(
        "9d a merge patch",
        product_patch(b'{"name": "Coat"}', content_type="application/merge-patch+json"),
        200,
        {"name": "Coat"},
        lambda _world, request, _response: request,
    ),
    Mistake(
        "9e the whole representation",
        whole_representation,
        422,
        violation("created_at", "extra_forbidden"),
        leave_out_the_named,
    ),
    Mistake(
        "10 typing errors",
        new("/products/", name="Coat", colour="red", matereials="wool"),
        422,
        violation("colour", "extra_forbidden", ctx={"did_you_mean": "color"}),
        rename_as_suggested,
    ),
    Mistake("11 a brand in use", brand_in_use, 204, None, read_the_products),
    Mistake("11b a product in use", product_in_use, 409, {"code": "in_use"}, delete_what_refers_to_it),
    Mistake(
        "12 a running generation", second_generation, 409, {"code": "shot_busy"}, cancel_the_named_generation
    ),
    Mistake(
        "12d a property of another operation",
        shot_action("generate", {"batch_size": 2}),
        422,
        violation("batch_size", "extra_forbidden"),
        leave_out_the_named,
    ),
    Mistake(
        "13 nothing to approve",
        shot_action("approve", {}),
        409,
        {"code": "invalid_transition", "allowed_transitions": ["generate"]},
        do_the_allowed_action,
    ),
    Mistake(
        "13 two predictions",
        approval_of_one_of_two,
        409,
        {"code": "prediction_ambiguous", "pointer": "/prediction_id"},
        choose_an_allowed_value,
    ),
    Mistake(
        "13b no body",
        shot_action("approve"),
        409,
        {"code": "invalid_transition", "allowed_transitions": ["generate"]},
        do_the_allowed_action,
    ),
    Mistake(
        "14 a reused key",
        repeated_key,
        422,
        violation(
            "Idempotency-Key", "idempotency_key_reused", msg="Was used for a request with other content"
        ),
        use_a_new_key,
    ),
    Mistake(
        "15 a stale ETag",
        stale_etag,
        412,
        {"code": "precondition_failed", "detail": "The resource has changed since you read it"},
        read_the_new_etag,
    ),
    Mistake(
        "15 a weak ETag",
        with_etag(lambda etag: f"W/{etag}"),
        412,
        {"code": "precondition_failed"},
        remove_the_weak_mark,
    ),
    Mistake(
        "15 no quotation marks",
        with_etag(lambda etag: etag.strip('"')),
        412,
        {"code": "precondition_failed"},
        add_the_quotation_marks,
    ),
    Mistake(
        "16 single quotes",
        raw_brand(b"{'name': 'A'}"),
        400,
        {"code": "malformed_request", "detail": "The body is not valid JSON: see line 1, column 2"},
        correct_the_syntax,
    ),
    Mistake(
        "16 an empty body",
        raw_brand(b""),
        422,
        violation("", "missing", msg="Is required"),
        send_instead({"name": "A"}),
    ),
    Mistake(
        "16 an array",
        raw_brand(b'[{"name": "A"}]'),
        422,
        violation("", "dict_type", msg="Must be an object"),
        send_instead({"name": "A"}),
    ),
    Mistake(
        "17 another organization",
        listed("/brands/", organization_id=UNKNOWN),
        404,
        {"code": "not_found", "parameter": "organization_id"},
        send_instead(own_organization),
    ),
    Mistake(
        "18 pages by number",
        listed("/brands/", page="2", per_page="10"),
        422,
        violation("page", "extra_forbidden", msg="Unknown query parameter"),
        leave_out_the_named,
    ),
    Mistake(
        "18c a cursor without its sort order",
        cursor_without_sort,
        404,
        {"code": "not_found", "parameter": "cursor"},
        repeat_the_sort_order,
    ),
    Mistake(
        "18d True",
        listed("/shot-types/", include_public="True"),
        422,
        violation("include_public", "bool_parsing", msg="Must be true or false"),
        send_instead("true"),
    ),
    Mistake(
        "19 nothing approved",
        lambda world: world.request("POST", f"/shootings/{world.rows.shooting.id}/exports", {}),
        409,
        {
            "code": "nothing_to_export",
            "detail": "The shooting has no approved prediction that has not been exported",
        },
        approve_a_prediction,
    ),
    Mistake(
        "20 a wrong phase",
        lambda world: world.request("PATCH", f"/shootings/{world.rows.shooting.id}", {"phase": "BRIEF"}),
        409,
        {"code": "invalid_transition", "pointer": "/phase"},
        use_an_allowed_transition,
    ),
    Mistake(
        "22 a file that was not sent",
        file_url_before_the_upload,
        404,
        {"code": "not_found", "pointer": "/cover_image"},
        send_the_file_first,
    ),
    Mistake(
        "23 the name of a color",
        new("/background-presets/", name="Red", kind="SOLID", color="red"),
        422,
        violation("color", "string_pattern_mismatch"),
        match_the_pattern,
    ),
    Mistake(
        "24 an unsupported strategy",
        generation_with(generation_strategy="VIDEO"),
        409,
        {"code": "strategy_not_supported", "pointer": "/generation_strategy"},
        choose_an_allowed_value,
    ),
    Mistake(
        "24d a large image",
        generation_with(width=1536, height=2048),
        409,
        {"code": "resolution_not_supported"},
        shrink_to_the_limit,
    ),
    Mistake(
        "25 HTML",
        brand_list(accept="text/html"),
        406,
        {"code": "not_acceptable"},
        accept_the_named_media_type,
    ),
    Mistake(
        "26 another version",
        at("/api/v2/brands/"),
        404,
        WRONG_PATH | {"did_you_mean": "/api/v1/brands/"},
        follow_suggested_path,
    ),
    Mistake(
        "26 no prefix",
        at("/brands/"),
        404,
        WRONG_PATH | {"did_you_mean": "/api/v1/brands/"},
        follow_suggested_path,
    ),
    Mistake(
        "27 no time zone",
        new("/shootings/", name="May", due_date="2027-03-01T00:00:00"),
        422,
        violation(
            "due_date", "datetime_parsing", msg="Must be a valid date and time with a time zone (RFC 3339)"
        ),
        send_instead("2027-03-01T00:00:00Z"),
    ),
    Mistake(
        "27 tomorrow",
        listed("/shootings/", updated_after="tomorrow"),
        422,
        violation(
            "updated_after",
            "datetime_parsing",
            msg="Must be a valid date and time with a time zone (RFC 3339)",
        ),
        send_instead("2027-03-01T00:00:00Z"),
    ),
    Mistake(
        "28 two that exclude each other",
        new("/shootings/", name="May", require_test_shooting=True, phase="PRODUCTION"),
        422,
        violation(
            "require_test_shooting",
            "not_allowed",
            msg='Cannot be combined: `require_test_shooting`: true and `phase`: "PRODUCTION"',
        ),
        leave_out_the_named,
    ),
    Mistake(
        "29 a key without the scope",
        with_key("/brands/", "products:read"),
        403,
        {"code": "not_enough_permissions", "required_scope": "brands:read"},
        create_a_key_with_the_scope,
    ),
    Mistake(
        "29 a key without organization",
        lambda world: with_key("/brands/", "brands:read")(world).with_query(organization_id=None),
        403,
        {"code": "not_enough_permissions", "parameter": "organization_id"},
        send_instead(own_organization),
    ),
    Mistake(
        "30 a webhook without TLS",
        new("/webhook-endpoints/", url="http://93.184.216.34/", event_types=["shot.approved"]),
        409,
        {"code": "target_not_allowed", "detail": "Only https URLs are allowed"},
        use_https,
    ),
)


@pytest.fixture
def world(app: Application, scenario: PhotographedProduct, database: Database, storage: LocalDisk) -> World:
    """Return a customer with a product, a photo and a pending shot."""
    headers = auth_headers(app, scenario.owner)
    return World(app, headers, scenario, lambda: run_pending_generations(database, storage))


def contains(actual: Any, expected: Any) -> bool:
    return all(actual.get(name) == value for name, value in expected.items())


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.number)
def test_a_mistake_is_mended_from_the_response_alone(world: World, mistake: Mistake) -> None:
    request = mistake.send(world)
    response = world.send(request)
    assert response.status == mistake.status, response.body
    if mistake.says is not None:
        document = problem(response)
        detail = document.get("detail")
        places = detail if isinstance(detail, list) else [document]
        assert any(contains(place, mistake.says) for place in places), document
    mended = mistake.mend(world, request, response)
    again = world.send(mended)
    assert 200 <= again.status < 300, (mended, again.body)
