"""Products: read, list, create, update."""

import base64
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Query, Response
from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from app.auth import CurrentUser, require_role
from app.database import SessionDep
from app.idempotency import find_response, fingerprint_of
from app.models import Product, ProductImage, StoredResponse, User
from app.schemas import ProductCreate, ProductOut, ProductPage, ProductUpdate

router = APIRouter(prefix="/api/v1/products", tags=["products"])

WITH_IMAGES = (
    joinedload(Product.cover_media),
    selectinload(Product.images).options(joinedload(ProductImage.media), joinedload(ProductImage.mask_media)),
)


def etag_of(product: Product) -> str:
    return f'"{product.id.hex}-{product.updated_at.timestamp():.6f}"'


def write_cursor(product: Product) -> str:
    return base64.urlsafe_b64encode(f"{product.created_at.isoformat()}|{product.id}".encode()).decode()


def read_cursor(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, _, row_id = base64.urlsafe_b64decode(cursor).decode().partition("|")
        return datetime.fromisoformat(created_at), UUID(row_id)
    except ValueError:
        raise HTTPException(404, "Not found") from None


async def load_product(
    session: AsyncSession, user: User, product_id: UUID, *, writing: bool = False
) -> Product:
    statement = select(Product).where(Product.id == product_id).options(*WITH_IMAGES)
    if writing:
        statement = statement.with_for_update(of=Product)
    product = await session.scalar(statement)
    if product is None:
        raise HTTPException(404, "Not found")
    await require_role(session, user, product.organization_id, writing=writing)
    return product


@router.get("/", response_model=ProductPage)
async def list_products(
    session: SessionDep,
    user: CurrentUser,
    organization_id: UUID,
    skip: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    cursor: str | None = None,
) -> Any:
    await require_role(session, user, organization_id)
    of_organization = Product.organization_id == organization_id
    count = await session.scalar(select(func.count()).select_from(Product).where(of_organization))
    statement = (
        select(Product)
        .where(of_organization)
        .options(*WITH_IMAGES)
        .order_by(Product.created_at.desc(), Product.id.desc())
        .offset(skip)
        .limit(limit + 1)
    )
    if cursor is not None:
        statement = statement.where(tuple_(Product.created_at, Product.id) < read_cursor(cursor))
    products = (await session.scalars(statement)).all()
    page = products[:limit]
    next_cursor = write_cursor(page[-1]) if len(products) > limit else None
    return {"data": page, "count": count, "next_cursor": next_cursor}


@router.get("/{product_id}", response_model=ProductOut)
async def get_product(
    session: SessionDep,
    user: CurrentUser,
    response: Response,
    product_id: UUID,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    product = await load_product(session, user, product_id)
    etag = etag_of(product)
    if if_none_match == etag:
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return product


@router.post("/", response_model=ProductOut, status_code=201)
async def create_product(
    session: SessionDep,
    user: CurrentUser,
    response: Response,
    organization_id: UUID,
    body: ProductCreate,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Any:
    await require_role(session, user, organization_id, writing=True)
    if idempotency_key is not None:
        fingerprint = fingerprint_of(organization_id, body)
        stored = await find_response(session, user.id, idempotency_key, fingerprint)
        if stored is not None:
            return stored
    product = Product(
        **body.model_dump(),
        owner_id=user.id,
        organization_id=organization_id,
        cover_media=None,
        images=[],
    )
    session.add(product)
    if idempotency_key is not None:
        await session.flush()
        content = ProductOut.model_validate(product).model_dump_json().encode()
        session.add(
            StoredResponse(user_id=user.id, key=idempotency_key, fingerprint=fingerprint, body=content)
        )
    await session.commit()
    response.headers["ETag"] = etag_of(product)
    response.headers["Location"] = f"/api/v1/products/{product.id}"
    return product


@router.patch("/{product_id}", response_model=ProductOut)
async def update_product(
    session: SessionDep,
    user: CurrentUser,
    response: Response,
    product_id: UUID,
    body: ProductUpdate,
    if_match: Annotated[str | None, Header()] = None,
) -> Any:
    product = await load_product(session, user, product_id, writing=True)
    if if_match not in (None, "*", etag_of(product)):
        raise HTTPException(412, "The product has changed")
    for name, value in body.model_dump(exclude_unset=True).items():
        setattr(product, name, value)
    await session.commit()
    response.headers["ETag"] = etag_of(product)
    return product
