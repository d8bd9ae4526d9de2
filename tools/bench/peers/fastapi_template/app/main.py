"""The product operations of the contract in the layout of FastAPI's full-stack template: sync, SQLModel."""

from fastapi import FastAPI

from app.api.main import api_router
from app.core.config import settings
from app.core.problems import add_problem_handlers

app = FastAPI(title="Products", openapi_url=f"{settings.API_V1_STR}/openapi.json")
add_problem_handlers(app)
app.include_router(api_router, prefix=settings.API_V1_STR)
