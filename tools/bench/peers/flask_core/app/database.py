"""The database engine, and the columns that this peer uses."""

from __future__ import annotations

import os

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Uuid,
    create_engine,
)

engine = create_engine(os.environ["DATABASE_URL"], pool_size=8, max_overflow=0)
metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("is_active", Boolean),
    Column("is_superuser", Boolean),
)
memberships = Table(
    "memberships",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organization_id", Uuid),
    Column("user_id", Uuid),
    Column("role", String),
)
stored_responses = Table(
    "stored_responses",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("key", String, primary_key=True),
    Column("fingerprint", LargeBinary),
    Column("body", LargeBinary),
)
media_resources = Table(
    "media_resources",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("extension", String),
    Column("width", Integer),
    Column("height", Integer),
)
products = Table(
    "products",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("owner_id", Uuid),
    Column("organization_id", Uuid),
    Column("sku", String),
    Column("name", String),
    Column("description", String),
    Column("category", String),
    Column("gender", String),
    Column("materials", String),
    Column("color", String),
    Column("brand_id", Uuid),
    Column("cover_media_id", Uuid),
    Column("state", String),
    Column("public", Boolean),
    Column("external_id", String),
    Column("metadata", JSON),
)
product_images = Table(
    "product_images",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("product_id", Uuid),
    Column("media_id", Uuid),
    Column("type", String),
    Column("position", Integer),
    Column("alt_text", String),
    Column("region", JSON),
    Column("mask_media_id", Uuid),
)
