"""Queries that are shared or not trivial. A simple query of one handler stays in that handler."""
