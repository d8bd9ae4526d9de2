"""How much anybody may ask: the limits by name, and what has been spent of each.

Knows no HTTP. All counts follow one algorithm (GCRA of pyrate-limiter): a quota can be spent at once and
grows again evenly, and a count is one number. Only the place differs: memory or Redis for requests, the
database for tries of credentials.
"""
