"""Starts the server and what it needs, for tools and tests: databases, Redis, workers, PgBouncer."""
