"""Products: read, list, create, update."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Query, Response
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import Session, col, func, select, tuple_

from app.api.deps import CurrentUser, SessionDep, require_membership
from app.core.config import settings
from app.core.cursors import read_cursor, write_cursor
from app.core.idempotency import find_response, fingerprint_of
from app.models import (
    Product,
    ProductCreate,
    ProductImage,
    ProductPublic,
    ProductsPublic,
    ProductUpdate,
    StoredResponse,
    User,
    get_datetime_utc,
)

router = APIRouter(prefix="/products", tags=["products"])

WITH_IMAGES = (
    joinedload(Product.cover_media),
    selectinload(Product.images).options(joinedload(ProductImage.media), joinedload(ProductImage.mask_media)),
)


def etag_of(product: Product) -> str:
    return f'"{product.id.hex}-{product.updated_at.timestamp():.6f}"'


def get_product_or_404(
    session: Session, user: User, product_id: uuid.UUID, *, writing: bool = False
) -> Product:
    statement = select(Product).where(Product.id == product_id).options(*WITH_IMAGES)
    if writing:
        statement = statement.with_for_update(of=Product)
    product = session.exec(statement).first()
    if not product:
        raise HTTPException(status_code=404, detail="Not found")
    require_membership(session, user, product.organization_id, writing=writing)
    return product


@router.get("/", response_model=ProductsPublic)
def list_products(
    session: SessionDep,
    current_user: CurrentUser,
    organization_id: uuid.UUID,
    skip: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    cursor: str | None = None,
) -> Any:
    """
    Retrieve products, newest first.
    """
    require_membership(session, current_user, organization_id)
    of_organization = Product.organization_id == organization_id
    count = session.exec(select(func.count()).select_from(Product).where(of_organization)).one()
    statement = (
        select(Product)
        .where(of_organization)
        .options(*WITH_IMAGES)
        .order_by(col(Product.created_at).desc(), col(Product.id).desc())
        .offset(skip)
        .limit(limit + 1)
    )
    if cursor is not None:
        try:
            position = read_cursor(cursor)
        except ValueError:
            raise HTTPException(status_code=404, detail="Not found") from None
        statement = statement.where(tuple_(Product.created_at, Product.id) < position)
    products = session.exec(statement).all()
    page = products[:limit]
    more = len(products) > limit
    next_cursor = write_cursor(page[-1].created_at, page[-1].id) if more else None
    return ProductsPublic(
        data=[ProductPublic.model_validate(product) for product in page],
        count=count,
        next_cursor=next_cursor,
    )


@router.get("/{product_id}", response_model=ProductPublic)
def get_product(
    session: SessionDep,
    current_user: CurrentUser,
    response: Response,
    product_id: uuid.UUID,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    """
    Get product by ID.
    """
    product = get_product_or_404(session, current_user, product_id)
    etag = etag_of(product)
    if if_none_match == etag:
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return product


@router.post("/", response_model=ProductPublic, status_code=201)
def create_product(
    *,
    session: SessionDep,
    current_user: CurrentUser,
    response: Response,
    organization_id: uuid.UUID,
    product_in: ProductCreate,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Any:
    """
    Create new product.
    """
    require_membership(session, current_user, organization_id, writing=True)
    if idempotency_key is not None:
        fingerprint = fingerprint_of(organization_id, product_in)
        stored = find_response(session, current_user.id, idempotency_key, fingerprint)
        if stored is not None:
            return stored
    owner = {"owner_id": current_user.id, "organization_id": organization_id}
    product = Product.model_validate(product_in, update=owner)
    session.add(product)
    if idempotency_key is not None:
        session.flush()
        content = ProductPublic.model_validate(product).model_dump_json(by_alias=True).encode()
        session.add(
            StoredResponse(
                user_id=current_user.id, key=idempotency_key, fingerprint=fingerprint, body=content
            )
        )
    session.commit()
    session.refresh(product)
    response.headers["ETag"] = etag_of(product)
    response.headers["Location"] = f"{settings.API_V1_STR}/products/{product.id}"
    return product


@router.patch("/{product_id}", response_model=ProductPublic)
def update_product(
    *,
    session: SessionDep,
    current_user: CurrentUser,
    response: Response,
    product_id: uuid.UUID,
    product_in: ProductUpdate,
    if_match: Annotated[str | None, Header()] = None,
) -> Any:
    """
    Update a product, unless its ETag differs from If-Match.
    """
    product = get_product_or_404(session, current_user, product_id, writing=True)
    if if_match not in (None, "*", etag_of(product)):
        raise HTTPException(status_code=412, detail="The product has changed")
    changes = product_in.model_dump(exclude_unset=True)
    product.sqlmodel_update(changes, update={"updated_at": get_datetime_utc()})
    session.add(product)
    session.commit()
    session.refresh(product)
    response.headers["ETag"] = etag_of(product)
    return product
