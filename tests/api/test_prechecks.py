"""Uploaded pictures are decoded while no transaction is open, and only for callers who may send them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import delete

from db.models import Product
from db.session import current_session
from handlers.app import Application
from handlers.common import prechecks
from studio.media.normalisation import read_image
from studio.media.stored_image import StoredImage
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import ClientResponse
from tests.support.factories.catalogue import Customer, post_form
from tests.support.scenarios import make_product_photo


def upload_requests(customer: Customer, client: Client) -> dict[str, Callable[[], ClientResponse]]:
    """Every way to send the bytes of a picture, as `client`, to rows of the house."""
    product = factories.make_product(organization=customer.organization)
    subject = factories.make_subject(organization=customer.organization)
    shot_type = factories.make_shot_type(organization=customer.organization)
    body = {"filename": "dress.jpg", "content_type": "image/jpeg"}
    address = customer.client("POST", "/uploads/presigned-url", body).json()["upload_url"]
    signed = address.partition("/api/v1")[2]
    if client is not customer.client:
        # Whoever holds the signature may send: a stranger has none.
        signed = signed.replace("signature=", "signature=x")
    path = f"/subjects/{subject.id}/base-images"
    return {
        "product": lambda: post_form(
            client, f"/products/{product.id}/images", make_product_photo(), type="front"
        ),
        "subject": lambda: post_form(client, path, make_product_photo(), shot_type_id=str(shot_type.id)),
        "upload": lambda: client(
            "PUT", signed, body=make_product_photo(), headers={"content-type": "image/jpeg"}
        ),
    }


@pytest.mark.parametrize("name", ["product", "subject", "upload"])
def test_no_transaction_is_open_while_a_picture_is_decoded(
    name: str, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def decode(file: object) -> StoredImage:
        with pytest.raises(RuntimeError, match="no running transaction"):
            current_session()
        decoded.append(name)
        return read_image(file)

    send = upload_requests(customer, customer.client)[name]
    monkeypatch.setattr(prechecks, "read_image", decode)
    assert send().status in (201, 204)
    assert decoded == [name]


@pytest.mark.parametrize("name", ["product", "subject", "upload"])
def test_nobody_makes_the_server_decode_for_rows_of_others(
    name: str, customer: Customer, client_for: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = upload_requests(customer, client_for(factories.make_user()))[name]
    monkeypatch.setattr(prechecks, "read_image", lambda _file: pytest.fail("it was decoded"))
    assert send().status in (403, 404)


def test_a_product_that_goes_while_its_picture_is_decoded_is_not_found(
    customer: Customer, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = customer.create("/products/", {"name": "Wrap dress"})

    def decode_slowly(file: object) -> StoredImage:
        with app.database.transaction(write=True) as writing:
            # unscoped: somebody else deletes it
            writing.execute(delete(Product))
        return read_image(file)

    monkeypatch.setattr(prechecks, "read_image", decode_slowly)
    reply = post_form(
        customer.client, f"/products/{product['id']}/images", make_product_photo(), type="front"
    )
    assert reply.status == 404
