"""Rate limits: the quotas, and where their usage is counted.

All counts use one algorithm (GCRA of pyrate-limiter): a quota can be used at once and refills evenly, and a
count is one number. Requests are counted in memory or Redis, attempts with credentials in the database.
Knows no HTTP.
"""
