"""Settings from environment variables."""

from __future__ import annotations

import os

SECRET_KEY = os.environ["SECRET_KEY"]
# asyncpg takes the URL of libpq, without the name of a driver.
DATABASE_URL = os.environ["DATABASE_URL"].replace("postgresql+psycopg", "postgresql")
PUBLIC_URL = os.environ["PUBLIC_URL"]
