"""Identities, hooks, checks and settings of Schemathesis runs."""
