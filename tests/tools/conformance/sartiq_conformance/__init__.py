"""Proves that a running server, whoever started it, keeps the contract that it publishes."""
