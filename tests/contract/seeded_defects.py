"""A server with one seeded defect, which the contract run or the conformance kit must find.

`python -m tests.contract.seeded_defects NAME` starts it like the real server. Each defect changes one place.
The functions of `DEFECTS` change the application after it was built. Those of `AUTHENTICATION_DEFECTS` change
the check of credentials before the application is built.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from uuid import UUID

import orjson

import handlers.app
import handlers.brands
import handlers.pipeline.auth
import handlers.pipeline.reads.endpoint
import handlers.server.cli as server
from db.caller import Caller, current_caller
from db.errors import NotFound, UnreadableImage
from db.models import Brand
from db.rls.session_role import SYSTEM, role_query
from handlers.app import Application
from handlers.common.permissions import PERSONAL
from handlers.common.reads import Reading, Rows, Step, is_read
from handlers.common.responses import ApiResponse, encode_json, no_content
from handlers.pipeline.auth import CallerReading
from handlers.pipeline.errors import Problem
from handlers.schemas.brands import BrandSchema
from studio.review import review

DEMO = UUID("01990000-5eed-7000-8000-000100000001")
DEMO_CLAIMS = {"sub": str(DEMO)}


def replace(target: Any, name: str, replacement: Any) -> None:
    """Set an attribute that exists.

    Raises:
        AttributeError: It was renamed: without this check, the server would start without its defect.
    """
    getattr(target, name)
    setattr(target, name, replacement)


def replace_handler(app: Application, operation_id: str, handler: Callable[..., Any]) -> None:
    """Let an operation call another handler."""
    replace(app.endpoints[operation_id], "_handler", handler)


def wrap_handler(app: Application, operation_id: str, change: Callable[[ApiResponse], ApiResponse]) -> None:
    """Change the responses of an operation."""
    handler = app.endpoints[operation_id]._handler

    def read(**arguments: Any) -> Reading[ApiResponse]:
        return change((yield from handler(**arguments)))

    replace_handler(
        app, operation_id, read if is_read(handler) else lambda **arguments: change(handler(**arguments))
    )


def tenant_leak(app: Application) -> None:
    """Reading a brand does not check its tenant."""

    rows = Rows(Brand, BrandSchema)

    def read_of_any_tenant(brand_id: UUID) -> Reading[ApiResponse]:
        # The policies would hide the row, too.
        reading = rows.ok(brand_id, id=brand_id)
        found = yield Step([role_query(SYSTEM), *next(reading).queries])
        try:
            reading.send(found[1:])
        except StopIteration as end:
            return cast("ApiResponse", end.value)
        raise RuntimeError("a brand has no collections")

    replace_handler(app, "get_brand", read_of_any_tenant)


def public_operation() -> None:
    """Every operation accepts requests without a token, as those of the demo account."""
    bypass_authentication(lambda _request: True)


def anonymous_deletion() -> None:
    """Deleting a brand requires no token."""
    bypass_authentication(
        lambda request: request.method == "DELETE" and request.url.path.startswith("/api/v1/brands/")
    )


def bypass_authentication(is_affected: Callable[[Any], bool]) -> None:
    """Accept requests without a credential as those of the demo account, if `is_affected` returns true."""

    def open_up(secure: type[Any]) -> type[Any]:
        check_credential = secure._check_credential

        class Open(secure):
            def _check_credential(self, request: Any) -> Any:
                return DEMO_CLAIMS if is_affected(request) else check_credential(self, request)

        return Open

    def caller_of(claims: dict[str, Any]) -> Caller:
        if claims != DEMO_CLAIMS:
            return handlers.pipeline.auth.load_caller(claims)
        return Caller(DEMO, "demo@example.com", True, personal_permissions=PERSONAL)

    def read_caller_of(claims: dict[str, Any]) -> CallerReading:
        if claims != DEMO_CLAIMS:
            return handlers.pipeline.auth.read_caller(claims)
        return CallerReading(role_query(SYSTEM), lambda _row: caller_of(claims))

    replace(handlers.pipeline.reads.endpoint, "read_caller", read_caller_of)
    build = handlers.app.build_security_map
    replace(
        handlers.app,
        "build_security_map",
        lambda secrets: {scheme: open_up(secure) for scheme, secure in build(secrets).items()},
    )
    replace(server, "create_app", partial(server.create_app, load_caller=caller_of))


def deletion_without_effect(app: Application) -> None:
    """Deleting a brand returns 204 and keeps the row."""
    replace_handler(app, "delete_brand", lambda **_arguments: no_content())


def stale_read(app: Application) -> None:
    """Reading a brand returns the cached response of an earlier read after the brand was deleted."""
    cache: dict[tuple[UUID, UUID], ApiResponse] = {}
    read = app.endpoints["get_brand"]._handler

    def read_cached(brand_id: UUID, **arguments: Any) -> Reading[ApiResponse]:
        # Cached per user, so that the only wrong responses are those after a deletion.
        key = (current_caller().user_id, brand_id)
        try:
            cache[key] = yield from read(brand_id=brand_id, **arguments)
        except NotFound:
            if key not in cache:
                raise
        return cache[key]

    replace_handler(app, "get_brand", read_cached)


def creation_dropping_a_field(app: Application) -> None:
    """The response to the creation of a brand lacks the description."""

    def drop(response: ApiResponse) -> ApiResponse:
        del response.body["description"]
        return response

    wrap_handler(app, "create_brand", drop)


def undocumented_status(app: Application) -> None:
    """Reading or listing brands returns 203."""

    def change_status(response: ApiResponse) -> ApiResponse:
        response.status = 203
        return response

    wrap_handler(app, "get_brand", change_status)
    wrap_handler(app, "list_brands", change_status)


def valid_data_rejected(app: Application) -> None:
    """Creating a brand rejects data that the schema allows."""

    def reject(**_arguments: Any) -> ApiResponse:
        raise UnreadableImage("Rejected by the seeded defect")

    replace_handler(app, "create_brand", reject)


def missing_header(app: Application) -> None:
    """The response to the creation of a brand lacks the Location header."""

    def drop(response: ApiResponse) -> ApiResponse:
        del response.headers["Location"]
        return response

    wrap_handler(app, "create_brand", drop)


def approval_without_effect(app: Application) -> None:
    """Approving a prediction returns the unchanged shot."""
    replace(review, "approve_shot", lambda *_arguments: None)


def problem_without_request_id(app: Application) -> None:
    """The problem of status 405 lacks the request id."""
    build = Problem.to_bytes

    def build_incomplete(problem: Problem, public_url: str) -> bytes:
        members = orjson.loads(build(problem, public_url))
        if problem.status == 405:
            del members["request_id"]
        return encode_json(members)

    replace(Problem, "to_bytes", build_incomplete)


AUTHENTICATION_DEFECTS: dict[str, Callable[[], None]] = {
    "public_operation": public_operation,
    "anonymous_deletion": anonymous_deletion,
}
DEFECTS: dict[str, Callable[[Application], None]] = {
    "tenant_leak": tenant_leak,
    "deletion_without_effect": deletion_without_effect,
    "stale_read": stale_read,
    "creation_dropping_a_field": creation_dropping_a_field,
    "undocumented_status": undocumented_status,
    "valid_data_rejected": valid_data_rejected,
    "missing_header": missing_header,
    "approval_without_effect": approval_without_effect,
    "problem_without_request_id": problem_without_request_id,
}


def main(name: str) -> int:
    """Run the server with the defect of this name."""
    if name in AUTHENTICATION_DEFECTS:
        AUTHENTICATION_DEFECTS[name]()
        return server.main([])
    build = server.create_app

    def build_defective(*arguments: Any, **options: Any) -> Application:
        app = build(*arguments, **options)
        DEFECTS[name](app)
        return app

    replace(server, "create_app", build_defective)
    return server.main([])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
