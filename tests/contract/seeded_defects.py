"""The server with one seeded defect, which the contract run or the conformance kit must find.

`python -m tests.contract.seeded_defects NAME` starts it like the real one. Each function below changes one
place:
those of `DEFECTS` in the finished application, those of `DOORS` in the check of credentials, before that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import select

import handlers.app
import handlers.brands
import handlers.pipeline.auth
import handlers.server.cli as server
from db.errors import NotFound, UnreadableImage
from db.models import Brand
from db.session import current_session
from db.tenancy import Caller, current_caller
from handlers.app import Application
from handlers.common.permissions import PERSONAL
from handlers.common.responses import ApiResponse, encode_json, no_content
from handlers.pipeline.errors import Problem
from studio import review

DEMO = UUID("01990000-5eed-7000-8000-000100000001")
DEMO_CLAIMS = {"sub": str(DEMO)}


def wrap_handler(app: Application, operation_id: str, change: Callable[[ApiResponse], ApiResponse]) -> None:
    """Change what an operation answers."""
    endpoint = app.endpoints[operation_id]
    handler = endpoint._handler
    endpoint._handler = lambda **arguments: change(handler(**arguments))


def tenant_leak(app: Application) -> None:
    """Reading a brand forgets whose it is."""

    def of_anybody(model: type[Brand], row_id: UUID, options: Any = ()) -> Brand:
        # unscoped: this is the defect
        row = (
            current_session().scalars(select(model).where(model.id == row_id).options(*options)).one_or_none()
        )
        if row is None:
            raise NotFound()
        return row

    handlers.brands.get_owned = of_anybody


def public_operation() -> None:
    """Every operation takes everybody for the demo account, token or not."""
    bypass_authentication(lambda _request: True)


def anonymous_deletion() -> None:
    """Deleting a brand asks for no token."""
    bypass_authentication(
        lambda request: request.method == "DELETE" and request.url.path.startswith("/api/v1/brands/")
    )


def bypass_authentication(is_affected: Callable[[Any], bool]) -> None:
    """Let the security callback accept some requests as those of the demo account, whatever they carry."""

    def opened(secure: type[Any]) -> type[Any]:
        class Open(secure):
            def _check_credential(self, request: Any) -> Any:
                return DEMO_CLAIMS if is_affected(request) else super()._check_credential(request)

        return Open

    def caller_of(claims: dict[str, Any]) -> Caller:
        if claims != DEMO_CLAIMS:
            return handlers.pipeline.auth.load_caller(claims)
        return Caller(DEMO, "demo@example.com", True, personal_permissions=PERSONAL)

    secured = handlers.app.build_security_map
    handlers.app.build_security_map = lambda secret: {
        scheme: opened(secure) for scheme, secure in secured(secret).items()
    }
    server.create_app = partial(server.create_app, load_caller=caller_of)


def deletion_without_effect(app: Application) -> None:
    """Deleting a brand says 204 and keeps the row."""
    app.endpoints["delete_brand"]._handler = lambda **_arguments: no_content()


def stale_read(app: Application) -> None:
    """Reading a brand remembers what it answered, and answers its reader again when the brand is gone."""
    remembered: dict[tuple[UUID, UUID], ApiResponse] = {}
    read = app.endpoints["get_brand"]._handler

    def remember(brand_id: UUID, **arguments: Any) -> ApiResponse:
        key = (current_caller().user_id, brand_id)
        try:
            remembered[key] = read(brand_id=brand_id, **arguments)
        except NotFound:
            if key not in remembered:
                raise
        return remembered[key]

    app.endpoints["get_brand"]._handler = remember


def creation_dropping_a_field(app: Application) -> None:
    """A new brand is answered without its description."""

    def forget(answer: ApiResponse) -> ApiResponse:
        del answer.body["description"]
        return answer

    wrap_handler(app, "create_brand", forget)


def undocumented_status(app: Application) -> None:
    """Reading brands, one or many, answers 203."""

    def other(answer: ApiResponse) -> ApiResponse:
        answer.status = 203
        return answer

    wrap_handler(app, "get_brand", other)
    wrap_handler(app, "list_brands", other)


def valid_data_rejected(app: Application) -> None:
    """Creating a brand finds fault with data that the schema allows."""

    def refuse(**_arguments: Any) -> ApiResponse:
        raise UnreadableImage("I do not like it")

    app.endpoints["create_brand"]._handler = refuse


def missing_header(app: Application) -> None:
    """A new brand is answered without Location."""

    def forget(answer: ApiResponse) -> ApiResponse:
        del answer.headers["Location"]
        return answer

    wrap_handler(app, "create_brand", forget)


def approval_without_effect(app: Application) -> None:
    """Approving a picture answers the shot as it was."""
    review.approve_shot = lambda *_arguments: None


def problem_without_request_id(app: Application) -> None:
    """The problem of a method that a path has not lacks its request id."""
    whole = Problem.to_bytes

    def forget(problem: Problem, public_url: str) -> bytes:
        members = orjson.loads(whole(problem, public_url))
        if problem.status == 405:
            del members["request_id"]
        return encode_json(members)

    Problem.to_bytes = forget


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
    """Serve with the defect of this name."""
    if name in AUTHENTICATION_DEFECTS:
        AUTHENTICATION_DEFECTS[name]()
        return server.main([])
    build = server.create_app

    def build_defective(*arguments: Any, **options: Any) -> Application:
        app = build(*arguments, **options)
        DEFECTS[name](app)
        return app

    server.create_app = build_defective
    return server.main([])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
