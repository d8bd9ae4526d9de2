"""The server with one seeded defect, which the contract run or the conformance kit must find.

`python -m tests.contract.defects NAME` starts it like the real one. Each function below changes one place:
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
import handlers.auth
import handlers.brands
import handlers.command as server
from db.errors import NotFound, Unreadable
from db.models import Brand
from db.session import session
from db.tenancy import Caller, current_caller
from handlers.answers import Answer, encode_json, no_content
from handlers.app import Application
from handlers.errors import Problem
from handlers.permissions import PERSONAL
from studio import review

DEMO = UUID("01990000-5eed-7000-8000-000100000001")
ANYBODY = {"sub": str(DEMO)}


def wrap(app: Application, operation_id: str, change: Callable[[Answer], Answer]) -> None:
    """Change what an operation answers."""
    endpoint = app.endpoints[operation_id]
    handler = endpoint._handler
    endpoint._handler = lambda **arguments: change(handler(**arguments))


def tenant_leak(app: Application) -> None:
    """Reading a brand forgets whose it is."""

    def of_anybody(model: type[Brand], row_id: UUID, options: Any = ()) -> Brand:
        # unscoped: this is the defect
        row = session().scalars(select(model).where(model.id == row_id).options(*options)).one_or_none()
        if row is None:
            raise NotFound()
        return row

    handlers.brands.get_owned = of_anybody


def open_operation() -> None:
    """Every operation takes everybody for the demo account, token or not."""
    open_the_doors(lambda _request: True)


def deletion_by_anybody() -> None:
    """Deleting a brand asks for no token."""
    open_the_doors(
        lambda request: request.method == "DELETE" and request.url.path.startswith("/api/v1/brands/")
    )


def open_the_doors(is_open: Callable[[Any], bool]) -> None:
    """Let the security callback accept some requests as those of the demo account, whatever they carry."""

    def opened(secure: type[Any]) -> type[Any]:
        class Open(secure):
            def _claims_of(self, request: Any) -> Any:
                return ANYBODY if is_open(request) else super()._claims_of(request)

        return Open

    def caller_of(claims: dict[str, Any]) -> Caller:
        if claims != ANYBODY:
            return handlers.auth.load_caller(claims)
        return Caller(DEMO, "demo@example.com", True, personal_permissions=PERSONAL)

    secured = handlers.app.security_map
    handlers.app.security_map = lambda secret: {
        scheme: opened(secure) for scheme, secure in secured(secret).items()
    }
    server.create_app = partial(server.create_app, load_caller=caller_of)


def delete_that_keeps(app: Application) -> None:
    """Deleting a brand says 204 and keeps the row."""
    app.endpoints["delete_brand"]._handler = lambda **_arguments: no_content()


def reading_from_memory(app: Application) -> None:
    """Reading a brand remembers what it answered, and answers its reader again when the brand is gone."""
    remembered: dict[tuple[UUID, UUID], Answer] = {}
    read = app.endpoints["get_brand"]._handler

    def remember(brand_id: UUID, **arguments: Any) -> Answer:
        key = (current_caller().user_id, brand_id)
        try:
            remembered[key] = read(brand_id=brand_id, **arguments)
        except NotFound:
            if key not in remembered:
                raise
        return remembered[key]

    app.endpoints["get_brand"]._handler = remember


def create_that_forgets_a_field(app: Application) -> None:
    """A new brand is answered without its description."""

    def forget(answer: Answer) -> Answer:
        del answer.body["description"]
        return answer

    wrap(app, "create_brand", forget)


def undocumented_status(app: Application) -> None:
    """Reading brands, one or many, answers 203."""

    def other(answer: Answer) -> Answer:
        answer.status = 203
        return answer

    wrap(app, "get_brand", other)
    wrap(app, "list_brands", other)


def valid_data_refused(app: Application) -> None:
    """Creating a brand finds fault with data that the schema allows."""

    def refuse(**_arguments: Any) -> Answer:
        raise Unreadable("I do not like it")

    app.endpoints["create_brand"]._handler = refuse


def missing_header(app: Application) -> None:
    """A new brand is answered without Location."""

    def forget(answer: Answer) -> Answer:
        del answer.headers["Location"]
        return answer

    wrap(app, "create_brand", forget)


def approval_of_nothing(app: Application) -> None:
    """Approving a picture answers the shot as it was."""
    review.approve_shot_picture = lambda *_arguments: None


def refusal_without_request_id(app: Application) -> None:
    """The problem of a method that a path has not lacks its request id."""
    whole = Problem.to_bytes

    def forget(problem: Problem, public_url: str) -> bytes:
        members = orjson.loads(whole(problem, public_url))
        if problem.status == 405:
            del members["request_id"]
        return encode_json(members)

    Problem.to_bytes = forget


DOORS: dict[str, Callable[[], None]] = {
    "open_operation": open_operation,
    "deletion_by_anybody": deletion_by_anybody,
}
DEFECTS: dict[str, Callable[[Application], None]] = {
    "tenant_leak": tenant_leak,
    "delete_that_keeps": delete_that_keeps,
    "reading_from_memory": reading_from_memory,
    "create_that_forgets_a_field": create_that_forgets_a_field,
    "undocumented_status": undocumented_status,
    "valid_data_refused": valid_data_refused,
    "missing_header": missing_header,
    "approval_of_nothing": approval_of_nothing,
    "refusal_without_request_id": refusal_without_request_id,
}


def main(name: str) -> int:
    """Serve with the defect of this name."""
    if name in DOORS:
        DOORS[name]()
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
