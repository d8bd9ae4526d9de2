"""Queries that are shared or not trivial; what one handler asks once stays in that handler."""
