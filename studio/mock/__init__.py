"""The behavior of the mock server: it runs generations at once, and misbehaves where a scenario says so.

`scenario` holds the rules, `generations` runs or fails generations, and `webhooks` delivers messages late,
twice or badly signed. No server outside of the mode `mock` uses this package.
"""
