"""Checks of ours beside those of Schemathesis: useless credentials, and requests that are sent again."""

from __future__ import annotations

import requests
import schemathesis

CHECKED: set[str] = set()


@schemathesis.check
def oauth2_is_enforced(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """A protected operation refuses a missing, an empty, an invented and a Basic credential with 401.

    Invented are a token and an API key. The stock check `ignored_auth` looks at apiKey, basic and bearer
    schemes only and passes over oauth2.
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
        answer = requests.request(
            request.method, request.url, headers=headers, data=request.body, timeout=30, allow_redirects=False
        )
        what = f"{operation.label} with Authorization {label}"
        assert answer.status_code == 401, f"{what} answered {answer.status_code}, not 401"
        assert "www-authenticate" in answer.headers, f"{what} was refused without WWW-Authenticate"


@schemathesis.check
def idempotency_key_replays_response(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """A request that succeeded with an Idempotency-Key gets the same answer when it is sent again."""
    request = response.request
    if "Idempotency-Key" not in request.headers or response.status_code not in (201, 202):
        return
    answer = requests.request(
        request.method,
        request.url,
        headers=dict(request.headers),
        data=request.body,
        timeout=30,
        allow_redirects=False,
    )
    what = f"{case.operation.label} sent again"
    assert answer.status_code == response.status_code, f"{what} answered {answer.status_code}"
    assert response.headers["location"] == [answer.headers["Location"]], f"{what} led elsewhere"
    # Who waited was told of a later moment than the one of the answer that is kept.
    if "preference-applied" not in response.headers:
        assert answer.content == response.content, f"{what} answered with another body"
    assert answer.headers.get("Idempotency-Replayed") == "true", f"{what} did not say that it was"
