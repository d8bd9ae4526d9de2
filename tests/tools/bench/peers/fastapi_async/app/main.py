"""The products of the contract as async FastAPI: SQLAlchemy's async sessions over asyncpg."""

from fastapi import FastAPI

from app.problems import add_problem_handlers
from app.products import router

app = FastAPI(title="Products")
add_problem_handlers(app)
app.include_router(router)
