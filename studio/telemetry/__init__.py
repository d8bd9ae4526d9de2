"""To be seen from outside: logs, metrics and traces. The one room that knows prometheus and opentelemetry.

Whoever has something to tell calls a function from here; nothing here knows HTTP or reads rows of tenants.
"""
