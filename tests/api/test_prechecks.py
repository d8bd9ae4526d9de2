"""Uploaded images are decoded outside of transactions, and only for callers with permission."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import delete

from db.models import Product
from db.session import current_session
from handlers.app import Application
from handlers.pipeline import prechecks
from studio.media.normalization import read_image
from studio.media.stored_image import StoredImage
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import ClientResponse
from tests.support.factories.catalog import Customer, post_form
from tests.support.scenarios import make_product_photo


def upload_requests(customer: Customer, client: Client) -> dict[str, Callable[[], ClientResponse]]:
    """Return each way to upload an image, sent by `client` to rows of the customer."""
    product = factories.make_product(organization=customer.organization)
    subject = factories.make_subject(organization=customer.organization)
    shot_type = factories.make_shot_type(organization=customer.organization)
    body = {"filename": "dress.jpg", "content_type": "image/jpeg"}
    upload_url = customer.client("POST", "/uploads/presigned-url", body).json()["upload_url"]
    signed_path = upload_url.partition("/api/v1")[2]
    if client is not customer.client:
        # The signature authorizes the upload, and a stranger has none.
        signed_path = signed_path.replace("signature=", "signature=x")
    path = f"/subjects/{subject.id}/base-images"
    return {
        "product": lambda: post_form(
            client, f"/products/{product.id}/images", make_product_photo(), type="front"
        ),
        "subject": lambda: post_form(client, path, make_product_photo(), shot_type_id=str(shot_type.id)),
        "upload": lambda: client(
            "PUT", signed_path, body=make_product_photo(), headers={"content-type": "image/jpeg"}
        ),
    }


@pytest.mark.parametrize("name", ["product", "subject", "upload"])
def test_no_transaction_is_open_while_an_image_is_decoded(
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
def test_nothing_is_decoded_for_rows_of_another_tenant(
    name: str, customer: Customer, client_for: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = upload_requests(customer, client_for(factories.make_user()))[name]
    monkeypatch.setattr(prechecks, "read_image", lambda _file: pytest.fail("the image was decoded"))
    assert send().status in (403, 404)


def test_a_product_that_is_deleted_while_its_photo_is_decoded_returns_404(
    customer: Customer, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = customer.create("/products/", {"name": "Wrap dress"})

    def decode_slowly(file: object) -> StoredImage:
        with app.database.transaction(write=True) as session:
            # unscoped: stands for another caller who deletes it
            session.execute(delete(Product))
        return read_image(file)

    monkeypatch.setattr(prechecks, "read_image", decode_slowly)
    response = post_form(
        customer.client, f"/products/{product['id']}/images", make_product_photo(), type="front"
    )
    assert response.status == 404
