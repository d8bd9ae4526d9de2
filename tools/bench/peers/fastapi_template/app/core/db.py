"""The database engine."""

from sqlmodel import create_engine

from app.core.config import settings

# As many connections as clients. The dependency and the function of one request run as two tasks of the
# thread pool. With fewer connections, a request that holds one could wait for threads that wait for one.
engine = create_engine(settings.DATABASE_URL, pool_size=40, max_overflow=24)
