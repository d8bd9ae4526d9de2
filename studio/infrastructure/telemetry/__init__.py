"""Logs, metrics and traces. Only this package imports prometheus_client and opentelemetry.

Other modules call its functions. Knows nothing of HTTP and reads no rows of tenants, only counts.
"""
