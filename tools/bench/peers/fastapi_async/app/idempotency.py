"""The responses that are stored for an Idempotency-Key."""

import hashlib
import json
from datetime import datetime
from uuid import UUID

from fastapi import HTTPException, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import StoredResponse


def fingerprint_of(organization_id: UUID, body: BaseModel) -> bytes:
    return hashlib.sha256(organization_id.bytes + body.model_dump_json().encode()).digest()


async def find_response(
    session: AsyncSession, user_id: UUID, key: str, fingerprint: bytes
) -> Response | None:
    stored = await session.get(StoredResponse, (user_id, key))
    if stored is None:
        return None
    if stored.fingerprint != fingerprint:
        raise HTTPException(422, "The key belongs to another request")
    product = json.loads(stored.body)
    updated_at = datetime.fromisoformat(product["updated_at"])
    headers = {
        "ETag": f'"{UUID(product["id"]).hex}-{updated_at.timestamp():.6f}"',
        "Location": f"/api/v1/products/{product['id']}",
    }
    return Response(stored.body, 201, headers, "application/json")
