"""Test the constraints of the schema: uniqueness per tenant, and the effect of deletions on other rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload

from db.base import Identified
from db.errors import AlreadyMember, InUse, SkuTaken, SlugTaken, SubscriptionExists
from db.models import (
    Guidelines,
    Look,
    Membership,
    Organization,
    Prediction,
    Product,
    Shooting,
    Shot,
    ShotType,
    User,
)
from db.models.shootings import ShotCounts
from db.queries.organizations import has_records
from db.queries.users import delete_user_rows, owns_organization
from db.session import Database
from tests.support import factories as make


def delete_row(database: Database, row: Identified) -> None:
    """Delete a row as a handler does, in a transaction of its own."""
    with database.transaction(write=True) as writing:
        writing.delete(writing.get_one(type(row), row.id))


def find_row(database: Database, row: Any) -> Any:
    with database.transaction(write=False) as reading:
        return reading.get(type(row), inspect(row).identity)


@pytest.mark.parametrize(
    ("factory", "column", "error"),
    [
        (make.make_brand, "slug", SlugTaken),
        (make.make_style, "slug", SlugTaken),
        (make.make_subject, "slug", SlugTaken),
        (make.make_shot_type, "slug", SlugTaken),
        (make.make_product, "sku", SkuTaken),
        (make.make_media, "content_hash", IntegrityError),
    ],
)
@pytest.mark.parametrize("personal", [False, True])
def test_a_name_is_unique_per_tenant(
    database: Database, factory: Callable[..., Any], column: str, error: type[Exception], personal: bool
) -> None:
    owner = make.make_user()
    organization = None if personal else make.make_organization(owner)
    factory(owner=owner, organization=organization, **{column: "taken"})
    factory(owner=owner, organization=make.make_organization(owner), **{column: "taken"})
    factory(owner=make.make_user(), **{column: "taken"})
    with pytest.raises(error), database.transaction(write=True):
        factory(owner=owner, organization=organization, **{column: "taken"})


def test_products_without_a_sku_do_not_collide(database: Database) -> None:
    owner = make.make_user()
    assert make.make_product(owner=owner, sku=None).id != make.make_product(owner=owner, sku=None).id


def test_an_organization_has_one_owner_and_a_user_one_membership(database: Database) -> None:
    organization = make.make_organization()
    member = make.make_membership(organization)
    with pytest.raises(AlreadyMember), database.transaction(write=True) as writing:
        writing.add(Membership(organization_id=organization.id, user_id=member.user_id, role="viewer"))
    with pytest.raises(IntegrityError), database.transaction(write=True) as writing:
        writing.get_one(Membership, member.id).role = "owner"


def test_the_slug_of_an_organization_is_globally_unique(database: Database) -> None:
    make.make_organization(slug="maison-demo")
    with pytest.raises(SlugTaken), database.transaction(write=True):
        make.make_organization(slug="maison-demo")


def test_a_user_has_one_active_subscription(database: Database) -> None:
    user = make.make_user()
    make.make_subscription(user, is_active=False)
    make.make_subscription(user)
    with pytest.raises(SubscriptionExists), database.transaction(write=True):
        make.make_subscription(user)


def test_an_index_of_a_generation_has_one_prediction(database: Database) -> None:
    generation = make.make_generation()
    make.make_prediction(generation, index=1)
    with pytest.raises(IntegrityError), database.transaction(write=True):
        make.make_prediction(generation, index=1)


def test_deleting_a_brand_leaves_products_and_shootings_without_brand(database: Database) -> None:
    brand = make.make_brand()
    product, shooting = make.make_product(brand_id=brand.id), make.make_shooting(brand_id=brand.id)
    delete_row(database, brand)
    assert find_row(database, product).brand_id is None
    assert find_row(database, shooting).brand_id is None


def make_referenced_rows() -> dict[str, Identified]:
    """Create one row of each kind that another row refers to."""
    look = make.make_look()
    scope = make.same_ownership(look)
    shot_type, subject = make.make_shot_type(**scope), make.make_subject(**scope)
    style, product = make.make_style(**scope), make.make_product(**scope)
    background, resolution = make.make_background_preset(**scope), make.make_resolution_preset(**scope)
    guidelines, further_guidelines = (
        make.make_guidelines(background_preset_id=background.id, resolution_preset_id=resolution.id, **scope)
        for _ in range(2)
    )
    make.make_guidelines(subject_ids=[subject.id], **scope)
    make.make_shooting(default_guidelines_id=guidelines.id, **scope)
    make.make_look(
        style_id=style.id,
        shot_type_ids=[shot_type.id],
        product_ids=[product.id],
        guidelines_ids=[further_guidelines.id],
    )
    return {
        "further product": product,
        "subject": subject,
        "style": style,
        "shot type": shot_type,
        "background": background,
        "resolution": resolution,
        "default guidelines": guidelines,
        "guidelines": further_guidelines,
        "model": make.make_generation_model(),
        "main product": make.make_product(),
    }


def test_rows_in_use_cannot_be_deleted(database: Database) -> None:
    rows = make_referenced_rows()
    make.make_generation(model_id=rows["model"].id)
    make.make_look(main_product_id=rows["main product"].id)
    for name, row in rows.items():
        with pytest.raises(InUse), database.transaction(write=True) as writing:
            writing.delete(writing.get_one(type(row), row.id))
        assert find_row(database, row) is not None, name


def test_unused_rows_are_deleted_with_their_parts(database: Database) -> None:
    image, base_image = make.make_product_image(), make.make_base_image()
    shot_type = make.make_shot_type()
    guidelines = make.make_guidelines(shot_type_ids=[shot_type.id])
    with database.transaction(write=True) as writing:
        writing.delete(writing.get_one(Product, image.product_id))
        writing.delete(writing.get_one(make.Subject, base_image.subject_id))
        writing.delete(writing.get_one(Guidelines, guidelines.id))
        writing.flush()
        writing.delete(writing.get_one(ShotType, shot_type.id))
    assert find_row(database, image) is None
    assert find_row(database, base_image) is None


def test_deleting_a_shooting_deletes_its_looks_shots_generations_and_predictions(database: Database) -> None:
    shot = make.make_shot(make.make_look(shot_type_ids=[make.make_shot_type().id]))
    generation = make.make_generation(shot)
    prediction = make.make_prediction(generation)
    with database.transaction(write=True) as writing:
        changed = writing.get_one(Shot, shot.id)
        changed.approved_prediction_id, changed.generation_id = prediction.id, generation.id
    with database.transaction(write=True) as writing:
        writing.delete(writing.get_one(Shooting, shot.shooting_id))
    for row in (shot, generation, prediction):
        assert find_row(database, row) is None


def test_deleting_an_approved_prediction_leaves_the_shot(database: Database) -> None:
    prediction = make.make_prediction()
    with database.transaction(write=True) as writing:
        writing.get_one(Shot, prediction.shot_id).approved_prediction_id = prediction.id
    with database.transaction(write=True) as writing:
        writing.delete(writing.get_one(Prediction, prediction.id))
    with database.transaction(write=False) as reading:
        shot = reading.get_one(Shot, prediction.shot_id)
        assert shot.approved_prediction_id is None
        assert shot.predictions_count == 0


def test_lists_of_ids_keep_their_order_and_are_replaced(database: Database) -> None:
    first, second, third = (make.make_shot_type().id for _ in range(3))
    look_id = make.make_look(shot_type_ids=[second, first]).id
    query = select(Look).where(Look.id == look_id).options(selectinload(Look.shot_type_links))
    with database.transaction(write=True) as writing:
        look = writing.scalars(query).one()
        assert look.shot_type_ids == [second, first]
        look.shot_type_ids = [first, third, second]
    with database.transaction(write=False) as reading:
        assert reading.scalars(query).one().shot_type_ids == [first, third, second]


def test_a_shooting_counts_its_looks_and_shots(database: Database) -> None:
    look, empty = make.make_look(), make.make_shooting()
    for status in ("pending", "pending_review", "approved", "exported", "rejected"):
        make.make_shot(look, status=status)
    with database.transaction(write=False) as reading:
        shooting = reading.get_one(Shooting, look.shooting_id)
        assert shooting.looks_count == 1
        assert shooting.shot_counts == ShotCounts(total=5, pending=1, in_review=1, approved=2)
        assert reading.get_one(Shooting, empty.id).shot_counts == ShotCounts(0, 0, 0, 0)


def test_an_organization_with_files_only_can_be_deleted(database: Database) -> None:
    organization = make.make_organization()
    media = make.make_media(organization=organization)
    make.make_upload(organization=organization, media_resource_id=media.id)
    with database.transaction(write=True) as writing:
        writing.get_one(Organization, organization.id).logo_media_id = media.id
    with database.transaction(write=True) as writing:
        assert not has_records(organization.id)
        writing.delete(writing.get_one(Organization, organization.id))
    assert find_row(database, media) is None


def test_an_organization_with_records_cannot_be_deleted(database: Database) -> None:
    organization = make.make_organization()
    make.make_brand(organization=organization)
    with pytest.raises(InUse), database.transaction(write=True) as writing:
        assert has_records(organization.id)
        writing.delete(writing.get_one(Organization, organization.id))


def test_deleting_a_user_deletes_personal_rows_and_keeps_those_of_organizations(database: Database) -> None:
    organization = make.make_organization()
    user = make.make_user()
    make.make_membership(organization, user)
    personal = make.make_prediction(
        make.make_generation(make.make_shot(make.make_look(make.make_shooting(owner=user))))
    )
    shared = make.make_brand(owner=user, organization=organization)
    with database.transaction(write=True) as writing:
        assert not owns_organization(user.id)
        assert owns_organization(organization.owner_id)
        delete_user_rows(writing.get_one(User, user.id))
    assert find_row(database, personal) is None
    assert find_row(database, user) is None
    assert find_row(database, shared).owner_id == organization.owner_id
