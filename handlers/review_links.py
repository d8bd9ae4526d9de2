"""Links with which guests review a shooting on the review board."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam

from db.base import utc_now
from db.caller import current_caller
from db.errors import NotFound
from db.models.review_links import ReviewLink
from db.models.shootings import Shooting
from db.tenancy import get_visible
from handlers.common.context import current_settings
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, authenticates_itself, may_have_guests, requires
from handlers.common.reads import Reading, Rows, VisibleRows
from handlers.common.responses import (
    NO_STORE,
    ApiResponse,
    encode_json,
    json_response,
    no_content,
    ok,
    serialize,
    strong_etag,
)
from handlers.pipeline.admission.attempt_limits import limits_invalid_tokens
from handlers.pipeline.admission.rate_limits import consume_guest_session
from handlers.pipeline.auth import issue_guest_token
from handlers.schemas.review_links import ReviewLinkSchema
from studio.review import review_links

DEFAULT_GUEST_NAME = "Guest"
SHOOTINGS = VisibleRows(Shooting)
LINK_ROWS = Rows(ReviewLink, ReviewLinkSchema)
REVIEW_LINKS = ListQuery(
    ReviewLink,
    ReviewLinkSchema,
    parent={
        "shooting_id": ReviewLink.shooting_id,
        "now": ReviewLink.expires_at > bindparam("now"),
    },
)


list_review_links = Page(REVIEW_LINKS, Permission.REVIEW_LINKS_MANAGE, parent=Shooting)


@requires(Permission.REVIEW_LINKS_MANAGE)
def create_review_link(shooting_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Create a review link; the response contains its URL."""
    shooting = get_visible(Shooting, shooting_id)
    link, token = review_links.create_review_link(shooting, current_caller(), body["expires_in_days"])
    data = serialize(link, ReviewLinkSchema)
    # The ETag is that of later GET responses, which do not contain the URL.
    etag = strong_etag(encode_json(data))
    location = f"/api/v1/shootings/{shooting.id}/review-links/{link.id}"
    url = f"{current_settings().public_url}/review#{token}"
    return ApiResponse(201, {**data, "url": url}, {"Location": location, "ETag": etag, **NO_STORE})


@requires(Permission.REVIEW_LINKS_MANAGE)
def get_review_link(shooting_id: UUID, review_link_id: UUID) -> Reading[ApiResponse]:
    """Return a review link, without its URL."""
    yield from SHOOTINGS.get(shooting_id)
    link = yield from LINK_ROWS.get(review_link_id, id=review_link_id, shooting_id=shooting_id)
    if datetime.fromisoformat(link.expires_at) <= utc_now():
        raise NotFound(value=review_link_id)
    return ok(link, ReviewLinkSchema)


@requires(Permission.REVIEW_LINKS_MANAGE)
def delete_review_link(shooting_id: UUID, review_link_id: UUID) -> ApiResponse:
    """Revoke a review link; it and its access tokens are rejected from the next request on."""
    shooting = get_visible(Shooting, shooting_id)
    review_links.delete_review_link(review_links.get_review_link(shooting, review_link_id))
    return no_content()


@authenticates_itself
@limits_invalid_tokens
def exchange_review_link(body: dict[str, Any]) -> ApiResponse:
    """Exchange the token of a review link for the access token of a guest."""
    link = review_links.exchange_review_link(body["token"], may_have_guests)
    consume_guest_session(link.id)
    name = body.get("name", DEFAULT_GUEST_NAME)
    token, seconds = issue_guest_token(link.id, name, link.expires_at)
    data = {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": seconds,
        "shooting_id": str(link.shooting_id),
        "review_link_id": str(link.id),
        "name": name,
    }
    return json_response(data, Cache_Control="no-store")
