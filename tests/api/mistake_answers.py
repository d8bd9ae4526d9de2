"""What a client does with the response to a mistake. None of these functions knows the mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

from tests.api.mistake_client import JSON, PHOTO, Request, World
from tests.api.mistake_requests import form
from tests.support.app import auth_headers
from tests.support.client import ClientResponse
from tests.support.factories.api_keys import api_key_headers

Answer = Callable[[World, Request, ClientResponse], Request]


def problem(response: ClientResponse) -> dict[str, Any]:
    document: dict[str, Any] = response.json()
    return document


def violations(response: ClientResponse) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = problem(response)["detail"]
    return listed


def names_of(response: ClientResponse) -> list[str]:
    """Return the properties or parameters that the violations point at."""
    return [violation["pointer"].removeprefix("/") for violation in violations(response)]


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


def send_the_example(_: World, request: Request, response: ClientResponse) -> Request:
    """Send the example in the message about the form of a value."""
    (violation,) = violations(response)
    example = re.findall(r"`([^`]+)`", violation["msg"])[-1]
    name = violation["loc"][1]
    if violation["loc"][0] == "query":
        return request.with_query(**{name: example})
    return replace(request, body={**request.body, name: example})


def move_to_the_query(_: World, request: Request, response: ClientResponse) -> Request:
    (violation,) = violations(response)
    assert violation["ctx"] == {"send_in": "query"}
    body = dict(request.body)
    value = body.pop(violation["loc"][1])
    return replace(request.with_query(**{violation["loc"][1]: value}), body=body)


def use_the_named_list(_: World, request: Request, response: ClientResponse) -> Request:
    (violation,) = violations(response)
    name = re.search(r"send several values as `(\w+)=A,B`", violation["msg"])
    assert name is not None
    sent = violation["input"]
    values = sent if isinstance(sent, list) else sent.split(",")
    return request.with_query(**{violation["loc"][1]: None, name[1]: ",".join(values)})


def exchange_the_days(_: World, request: Request, response: ClientResponse) -> Request:
    query = dict(parse_qsl(urlsplit(request.target).query))
    assert problem(response)["parameter"] == "from"
    return request.with_query(**{"from": query["to"], "to": query["from"]})


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
