"""Storage: models, queries, sessions, tenancy and migrations.

This package knows neither HTTP nor the rest of the application, and reads no environment variables.
"""
