"""Storage: the models, the session, tenancy and migrations.

Knows neither HTTP nor the studio, and reads no environment.
"""
