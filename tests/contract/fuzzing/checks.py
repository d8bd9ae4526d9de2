"""Custom Schemathesis checks: invalid credentials and repeated idempotent requests."""

from __future__ import annotations

import requests
import schemathesis

CHECKED: set[str] = set()


@schemathesis.check
def oauth2_is_enforced(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Check that a protected operation returns 401 for missing, empty, invented and Basic credentials.

    The invented credentials are a token and an API key. The built-in check `ignored_auth` supports apiKey,
    basic and bearer schemes only and ignores oauth2.
    """
    operation = case.operation
    security = operation.definition.raw.get("security", operation.schema.raw_schema.get("security", []))
    request = response.request
    if not security or {} in security or operation.label in CHECKED or not 200 <= response.status_code < 300:
        return
    if request.method != operation.method.upper():
        return
    CHECKED.add(operation.label)
    for label, credential in (
        ("none", None),
        ("invented", "Bearer invented"),
        ("invented key", f"Bearer sk_{'A' * 76}"),
        ("Basic", "Basic ZGVtbzpkZW1v"),
        ("empty", "Bearer "),
    ):
        headers = {name: value for name, value in request.headers.items() if name.lower() != "authorization"}
        if credential is not None:
            headers["Authorization"] = credential
        actual = requests.request(
            request.method, request.url, headers=headers, data=request.body, timeout=30, allow_redirects=False
        )
        description = f"{operation.label} with Authorization {label}"
        assert actual.status_code == 401, f"{description} returned {actual.status_code}, expected 401"
        assert "www-authenticate" in actual.headers, f"{description} returned 401 without WWW-Authenticate"


@schemathesis.check
def idempotency_key_replays_response(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Check that a successful request with an Idempotency-Key gets the same response when it is repeated."""
    request = response.request
    if "Idempotency-Key" not in request.headers or response.status_code not in (200, 201, 202):
        return
    replay = requests.request(
        request.method,
        request.url,
        headers=dict(request.headers),
        data=request.body,
        timeout=30,
        allow_redirects=False,
    )
    description = f"The repeated request to {case.operation.label}"
    assert replay.status_code == response.status_code, f"{description} returned {replay.status_code}"
    if "location" in response.headers:
        location = replay.headers.get("Location")
        assert response.headers["location"] == [location], f"{description} returned another Location"
    # With `Prefer: wait`, the first response shows a later state than the stored one.
    if "preference-applied" not in response.headers:
        assert replay.content == response.content, f"{description} returned another body"
    assert replay.headers.get("Idempotency-Replayed") == "true", (
        f"{description} returned no `Idempotency-Replayed: true`"
    )
