"""The engine."""

from sqlmodel import create_engine

from app.core.config import settings

# As many connections as clients: the dependency and the function of one request are two turns in the thread
# pool, and whoever holds a connection must not wait there for those who wait for one.
engine = create_engine(settings.DATABASE_URL, pool_size=40, max_overflow=24)
