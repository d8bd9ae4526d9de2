"""Sign positions in lists as cursors, and build the `Link` headers of pages.

A cursor is a signed position in the sort order and grants no access: each page is filtered like the first.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any
from urllib.parse import urlencode

from itsdangerous import BadData, URLSafeSerializer

from db.caller import current_caller
from db.errors import NotFound
from handlers.common.context import current_request, current_settings

MAX_ORGANIZATION_LINKS = 10
"""The number of organizations that an empty list of personal resources links to."""


@cache
def cursor_serializer(secret_keys: tuple[str, ...]) -> URLSafeSerializer:
    """Return the serializer that signs cursors with the last of these keys and verifies them with all."""
    # The salt keeps signatures made for another purpose with the same key from being accepted as cursors.
    options = {"digest_method": hashlib.sha256}
    return URLSafeSerializer(secret_keys[::-1], salt="cursor", signer_kwargs=options)


def encode_position(scope: str, *values: Any) -> str:
    """Return a cursor: signed values that are valid for one list with its filters, the scope."""
    return str(cursor_serializer(current_settings().secret_keys).dumps([scope, *values]))


def decode_position(cursor: str, scope: str, count: int) -> list[Any]:
    """Return the values in a cursor.

    Raises:
        NotFound: The signature is invalid, or the cursor belongs to another list, sort order or filter.
    """
    try:
        signed_scope, *values = cursor_serializer(current_settings().secret_keys).loads(cursor)
    except BadData:
        detail = "The cursor is not a `next_cursor` of this API: request the first page without `cursor`"
        raise NotFound(detail, value=cursor) from None
    if signed_scope != scope or len(values) != count:
        detail = "The cursor belongs to another list, sort order or filter: repeat those of the first page"
        raise NotFound(detail, value=cursor)
    return values


def build_next_link(cursor: str) -> str:
    """Return the `Link` header of the next page: this URL with the cursor instead of `skip`."""
    request = current_request()
    query = [
        (name, value) for name, value in request.query.items(multi=True) if name not in ("cursor", "skip")
    ]
    return f'<{request.path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'


def build_organization_links() -> str:
    """Return a `Link` header with the same list of each organization of the caller, or an empty text.

    A client that forgot `organization_id` gets an empty list of its personal resources, which is no error.
    """
    request = current_request()
    query = [(name, value) for name, value in request.query.items(multi=True) if name != "cursor"]
    organizations = sorted(str(organization_id) for organization_id in current_caller().roles)
    return ", ".join(
        f'<{request.path}?{urlencode([*query, ("organization_id", organization_id)])}>; rel="related"'
        for organization_id in organizations[:MAX_ORGANIZATION_LINKS]
    )
