"""The responses that are stored for an Idempotency-Key."""

import hashlib
import json
import uuid
from datetime import datetime

from fastapi import HTTPException, Response
from sqlmodel import Session, SQLModel

from app.core.config import settings
from app.models import StoredResponse


def fingerprint_of(organization_id: uuid.UUID, body: SQLModel) -> bytes:
    return hashlib.sha256(organization_id.bytes + body.model_dump_json().encode()).digest()


def find_response(session: Session, user_id: uuid.UUID, key: str, fingerprint: bytes) -> Response | None:
    stored = session.get(StoredResponse, (user_id, key))
    if stored is None:
        return None
    if stored.fingerprint != fingerprint:
        raise HTTPException(status_code=422, detail="The key belongs to another request")
    product = json.loads(stored.body)
    updated_at = datetime.fromisoformat(product["updated_at"])
    headers = {
        "ETag": f'"{uuid.UUID(product["id"]).hex}-{updated_at.timestamp():.6f}"',
        "Location": f"{settings.API_V1_STR}/products/{product['id']}",
    }
    return Response(stored.body, 201, headers, "application/json")
