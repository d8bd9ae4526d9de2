"""Everything that happens around a handler: middleware, authentication, transactions, errors, audit."""
