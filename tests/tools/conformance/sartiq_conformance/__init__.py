"""Check that a running server conforms to the contract that it publishes."""
