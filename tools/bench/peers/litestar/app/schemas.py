"""The schemas of requests and responses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

PATTERN = r"^[^\x00]*$"
Name = Annotated[str, Meta(min_length=1, max_length=120, pattern=PATTERN)]
Word = Annotated[str, Meta(min_length=1, max_length=80, pattern=PATTERN)]
Color = Annotated[str, Meta(max_length=80, pattern=PATTERN)]
Materials = Annotated[str, Meta(max_length=500, pattern=PATTERN)]
Description = Annotated[str, Meta(max_length=5000, pattern=PATTERN)]
Gender = Literal["FEMALE", "MALE", "UNISEX"]
State = Literal["DRAFT", "READY", "ARCHIVED"]


class ProductCreate(Struct, forbid_unknown_fields=True, kw_only=True):
    name: Name
    sku: Word | None = None
    description: Description | None = None
    category: Word | None = None
    gender: Gender | None = None
    materials: Materials | None = None
    color: Color | None = None


class ProductUpdate(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    name: Name | UnsetType = UNSET
    sku: Word | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET
    category: Word | UnsetType | None = UNSET
    gender: Gender | UnsetType | None = UNSET
    materials: Materials | UnsetType | None = UNSET
    color: Color | UnsetType | None = UNSET
    state: State | UnsetType = UNSET


class ProductImage(Struct):
    id: UUID
    created_at: datetime
    updated_at: datetime
    url: str
    type: str
    width: int
    height: int
    position: int
    alt_text: str | None
    region: dict[str, float] | None
    mask_url: str | None


class Product(Struct):
    id: UUID
    created_at: datetime
    updated_at: datetime
    owner_id: UUID
    organization_id: UUID | None
    sku: str | None
    name: str
    description: str | None
    category: str | None
    gender: str | None
    materials: str | None
    color: str | None
    brand_id: UUID | None
    cover_image: str | None
    images: list[ProductImage]
    state: str
    public: bool
    external_id: str | None
    metadata: dict[str, Any]


class ProductPage(Struct):
    data: list[Product]
    count: int
    next_cursor: str | None
    count_exact: bool = True
