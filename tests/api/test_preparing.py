"""Uploaded pictures are decoded while no transaction is open, and only for callers who may send them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import delete

from db.models import Product
from db.session import session
from handlers import preparing
from handlers.app import Application
from studio.media.normalisation import Picture, read_picture
from tests import factories
from tests.api.catalogue import House, post_form
from tests.api.conftest import Client
from tests.contract.mini.asking import Reply
from tests.production import photograph


def sends(house: House, client: Client) -> dict[str, Callable[[], Reply]]:
    """Every way to send the bytes of a picture, as `client`, to rows of the house."""
    product = factories.make_product(organization=house.organization)
    subject = factories.make_subject(organization=house.organization)
    shot_type = factories.make_shot_type(organization=house.organization)
    body = {"filename": "dress.jpg", "content_type": "image/jpeg"}
    address = house.client("POST", "/uploads/presigned-url", body).json()["upload_url"]
    signed = address.partition("/api/v1")[2]
    if client is not house.client:
        # Whoever holds the signature may send: a stranger has none.
        signed = signed.replace("signature=", "signature=x")
    path = f"/subjects/{subject.id}/base-images"
    return {
        "product": lambda: post_form(client, f"/products/{product.id}/images", photograph(), type="front"),
        "subject": lambda: post_form(client, path, photograph(), shot_type_id=str(shot_type.id)),
        "upload": lambda: client("PUT", signed, body=photograph(), headers={"content-type": "image/jpeg"}),
    }


@pytest.mark.parametrize("name", ["product", "subject", "upload"])
def test_no_transaction_is_open_while_a_picture_is_decoded(
    name: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def decode(file: object) -> Picture:
        with pytest.raises(RuntimeError, match="no running transaction"):
            session()
        decoded.append(name)
        return read_picture(file)

    send = sends(house, house.client)[name]
    monkeypatch.setattr(preparing, "read_picture", decode)
    assert send().status in (201, 204)
    assert decoded == [name]


@pytest.mark.parametrize("name", ["product", "subject", "upload"])
def test_nobody_makes_the_server_decode_for_rows_of_others(
    name: str, house: House, client_of: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = sends(house, client_of(factories.make_user()))[name]
    monkeypatch.setattr(preparing, "read_picture", lambda _file: pytest.fail("it was decoded"))
    assert send().status in (403, 404)


def test_a_product_that_goes_while_its_picture_is_decoded_is_not_found(
    house: House, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = house.create("/products/", {"name": "Wrap dress"})

    def decode_slowly(file: object) -> Picture:
        with app.database.transaction(write=True) as writing:
            # unscoped: somebody else deletes it
            writing.execute(delete(Product))
        return read_picture(file)

    monkeypatch.setattr(preparing, "read_picture", decode_slowly)
    reply = post_form(house.client, f"/products/{product['id']}/images", photograph(), type="front")
    assert reply.status == 404
