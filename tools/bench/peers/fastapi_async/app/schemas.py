"""The schemas of requests and responses."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

PATTERN = r"^[^\x00]*$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=PATTERN)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=PATTERN)]
Color = Annotated[str, StringConstraints(max_length=80, pattern=PATTERN)]
Materials = Annotated[str, StringConstraints(max_length=500, pattern=PATTERN)]
Description = Annotated[str, StringConstraints(max_length=5000, pattern=PATTERN)]
Gender = Literal["FEMALE", "MALE", "UNISEX"]
State = Literal["DRAFT", "READY", "ARCHIVED"]


class ProductBase(BaseModel):
    sku: Word | None = None
    name: Name
    description: Description | None = None
    category: Word | None = None
    gender: Gender | None = None
    materials: Materials | None = None
    color: Color | None = None


class ProductCreate(ProductBase):
    model_config = ConfigDict(extra="forbid")


class ProductUpdate(ProductBase):
    model_config = ConfigDict(extra="forbid")

    name: Name = ""
    state: State = "READY"


class RegionOut(BaseModel):
    x: float
    y: float
    width: float
    height: float


class ProductImageOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: datetime
    updated_at: datetime
    url: str
    type: Literal["primary", "front", "back", "side", "detail"]
    width: int
    height: int
    position: int
    alt_text: str | None
    region: RegionOut | None
    mask_url: str | None


class ProductOut(ProductBase):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: datetime
    updated_at: datetime
    owner_id: UUID
    organization_id: UUID | None
    brand_id: UUID | None
    cover_image: str | None
    images: list[ProductImageOut]
    state: State
    public: bool
    external_id: str | None
    metadata: dict[str, str] = Field(validation_alias="labels")


class ProductPage(BaseModel):
    data: list[ProductOut]
    count: int
    count_exact: bool = True
    next_cursor: str | None
