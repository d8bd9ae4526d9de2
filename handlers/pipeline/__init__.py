"""What happens around a handler: middleware, authentication, transaction, idempotency, audit log, errors."""
