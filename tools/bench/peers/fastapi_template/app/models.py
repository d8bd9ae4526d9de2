"""The database tables and the schemas of requests and responses."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, StringConstraints
from sqlalchemy import JSON, Column, DateTime, String
from sqlmodel import Field, Relationship, SQLModel

from app.core.config import settings

Gender = Literal["FEMALE", "MALE", "UNISEX"]
State = Literal["DRAFT", "READY", "ARCHIVED"]
PATTERN = r"^[^\x00]*$"
Text = Annotated[str, StringConstraints(max_length=5000, pattern=PATTERN)]
ShortText = Annotated[str, StringConstraints(max_length=80, pattern=PATTERN)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=PATTERN)]


def get_datetime_utc() -> datetime:
    return datetime.now(UTC)


class User(SQLModel, table=True):
    __tablename__ = "users"

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    email: str
    is_active: bool = True
    is_superuser: bool = False


class Membership(SQLModel, table=True):
    __tablename__ = "memberships"

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    organization_id: uuid.UUID
    user_id: uuid.UUID = Field(foreign_key="users.id")
    role: str


class StoredResponse(SQLModel, table=True):
    __tablename__ = "stored_responses"

    user_id: uuid.UUID = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: bytes
    body: bytes


class MediaResource(SQLModel, table=True):
    __tablename__ = "media_resources"

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    extension: str
    width: int
    height: int

    @property
    def url(self) -> str:
        return f"{settings.PUBLIC_URL}{settings.API_V1_STR}/files/media/{self.id}/file.{self.extension}"


# Shared properties
class ProductBase(SQLModel):
    sku: Word | None = None
    name: Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=PATTERN)]
    description: Text | None = None
    category: Word | None = None
    gender: Gender | None = Field(default=None, sa_type=String)
    materials: Annotated[str, StringConstraints(max_length=500, pattern=PATTERN)] | None = None
    color: ShortText | None = None


# Properties to receive on product creation
class ProductCreate(ProductBase):
    model_config = ConfigDict(extra="forbid")


# Properties to receive on product update
class ProductUpdate(ProductBase):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=PATTERN)] = ""
    state: State = "READY"


# Database model
class Product(ProductBase, table=True):
    __tablename__ = "products"

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    owner_id: uuid.UUID = Field(foreign_key="users.id")
    organization_id: uuid.UUID | None = None
    brand_id: uuid.UUID | None = None
    cover_media_id: uuid.UUID | None = Field(default=None, foreign_key="media_resources.id")
    state: State = Field(default="READY", sa_type=String)
    public: bool = False
    external_id: str | None = None
    labels: dict[str, str] = Field(default_factory=dict, sa_column=Column("metadata", JSON))
    created_at: datetime = Field(default_factory=get_datetime_utc, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=get_datetime_utc, sa_type=DateTime(timezone=True))
    cover_media: MediaResource | None = Relationship()
    images: list["ProductImage"] = Relationship(sa_relationship_kwargs={"order_by": "ProductImage.position"})

    @property
    def cover_image(self) -> str | None:
        return self.cover_media.url if self.cover_media else None


class ProductImage(SQLModel, table=True):
    __tablename__ = "product_images"

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    product_id: uuid.UUID = Field(foreign_key="products.id")
    media_id: uuid.UUID = Field(foreign_key="media_resources.id")
    type: str
    position: int = 1
    alt_text: str | None = None
    region: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    mask_media_id: uuid.UUID | None = Field(default=None, foreign_key="media_resources.id")
    created_at: datetime = Field(default_factory=get_datetime_utc, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=get_datetime_utc, sa_type=DateTime(timezone=True))
    media: MediaResource = Relationship(sa_relationship_kwargs={"foreign_keys": "ProductImage.media_id"})
    mask_media: MediaResource | None = Relationship(
        sa_relationship_kwargs={"foreign_keys": "ProductImage.mask_media_id"}
    )

    @property
    def url(self) -> str:
        return self.media.url

    @property
    def mask_url(self) -> str | None:
        return self.mask_media.url if self.mask_media else None

    @property
    def width(self) -> int:
        return self.media.width

    @property
    def height(self) -> int:
        return self.media.height


# Properties to return via API
class RegionPublic(SQLModel):
    x: float
    y: float
    width: float
    height: float


class ProductImagePublic(SQLModel):
    id: uuid.UUID
    created_at: datetime
    updated_at: datetime
    url: str
    type: Literal["primary", "front", "back", "side", "detail"]
    width: int
    height: int
    position: int
    alt_text: str | None
    region: RegionPublic | None
    mask_url: str | None


class ProductPublic(ProductBase):
    id: uuid.UUID
    created_at: datetime
    updated_at: datetime
    owner_id: uuid.UUID
    organization_id: uuid.UUID | None
    brand_id: uuid.UUID | None
    cover_image: str | None
    images: list[ProductImagePublic]
    state: State
    public: bool
    external_id: str | None
    labels: dict[str, str] = Field(serialization_alias="metadata")


class ProductsPublic(SQLModel):
    data: list[ProductPublic]
    count: int
    count_exact: bool = True
    next_cursor: str | None = None


# Contents of JWT token
class TokenPayload(SQLModel):
    sub: uuid.UUID
