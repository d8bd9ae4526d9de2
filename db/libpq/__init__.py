"""Read with one message to PostgreSQL: the statements of a request as a pipeline of libpq, on the event loop.

`statements` compiles a query of SQLAlchemy, `pipeline` runs several on one connection, and `reader` holds the
connections. Everything up to the end of a message is one implicit transaction, without BEGIN and COMMIT.
See `docs/decisions/0017-one-message-per-read.md`.
"""
