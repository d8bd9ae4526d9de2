"""The product operations of the contract in Litestar, with msgspec structs and asyncpg."""

from __future__ import annotations

from litestar import Litestar
from litestar.di import Provide

from app.auth import authentication
from app.database import open_pool, provide_connection
from app.problems import EXCEPTION_HANDLERS
from app.products import ProductController

app = Litestar(
    route_handlers=[ProductController],
    lifespan=[open_pool],
    on_app_init=[authentication.on_app_init],
    dependencies={"connection": Provide(provide_connection)},
    exception_handlers=EXCEPTION_HANDLERS,
    openapi_config=None,
    logging_config=None,
)
