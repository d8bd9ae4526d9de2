"""Shorter paths than the ORM's for hot statements; each has a benchmark."""
