"""The server with one seeded defect: what the contract run must find, started like the real one.

`python -m tests.contract.defects NAME`; each function below changes the finished application in one place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import select

import handlers.app
import handlers.auth
import handlers.brands
import handlers.command as server
from db.errors import NotFound, Unreadable
from db.models import Brand
from db.session import session
from db.tenancy import Caller
from handlers.answers import Answer, no_content
from handlers.app import Application
from handlers.permissions import PERSONAL

DEMO = UUID("01990000-5eed-7000-8000-000100000001")


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


def open_operation(app: Application) -> None:
    """Every operation takes everybody for the demo account, token or not."""


def open_the_doors() -> None:
    """Let the security callback accept any request; it is set before the application is built."""

    class Open(handlers.auth.bearer_security(handlers.auth.read_access_token, "")):
        def _claims_of(self, request: Any) -> Any:
            return {"sub": str(DEMO)}

    def anybody(_claims: dict[str, Any]) -> Caller:
        return Caller(DEMO, "demo@example.com", True, personal_permissions=PERSONAL)

    handlers.app.security_map = lambda _secret: {"oauth2": Open, "bearer": Open}
    build = server.create_app
    server.create_app = partial(build, load_caller=anybody)


def delete_that_keeps(app: Application) -> None:
    """Deleting a brand says 204 and keeps the row."""
    app.endpoints["delete_brand"]._handler = lambda **_arguments: no_content()


def create_that_forgets_a_field(app: Application) -> None:
    """A new brand is answered without its description."""

    def forget(answer: Answer) -> Answer:
        del answer.body["description"]
        return answer

    wrap(app, "create_brand", forget)


def undocumented_status(app: Application) -> None:
    """Reading a brand answers 203."""

    def other(answer: Answer) -> Answer:
        answer.status = 203
        return answer

    wrap(app, "get_brand", other)


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


DEFECTS: dict[str, Callable[[Application], None]] = {
    "tenant_leak": tenant_leak,
    "open_operation": open_operation,
    "delete_that_keeps": delete_that_keeps,
    "create_that_forgets_a_field": create_that_forgets_a_field,
    "undocumented_status": undocumented_status,
    "valid_data_refused": valid_data_refused,
    "missing_header": missing_header,
}


def main(name: str) -> int:
    """Serve with the defect of this name."""
    if name == "open_operation":
        open_the_doors()
    build = server.create_app

    def build_defective(*arguments: Any, **options: Any) -> Application:
        app = build(*arguments, **options)
        DEFECTS[name](app)
        return app

    server.create_app = build_defective
    return server.main([])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
