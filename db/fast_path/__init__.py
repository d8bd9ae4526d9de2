"""Faster replacements for parts of the ORM and the driver on hot statements.

Each module names the benchmark that justifies it. A module without a measurable gain is removed again.
"""
