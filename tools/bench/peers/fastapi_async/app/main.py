"""The product operations of the contract in async FastAPI, with SQLAlchemy's async sessions over asyncpg."""

from fastapi import FastAPI

from app.problems import add_problem_handlers
from app.products import router

app = FastAPI(title="Products")
add_problem_handlers(app)
app.include_router(router)
