"""ASGI middleware around Connexion's security check, in the order in which a request passes it.

| Module | Does |
|---|---|
| `error_boundary` | returns a generic 500 problem when an outer middleware fails |
| `observability` | request id, access log, metrics, root span |
| `security_headers` | security headers, CORS, Cache-Control |
| `response_validation` | validates responses that no endpoint has validated |
| `long_polling` | `Prefer: wait=N` and server-sent events |
| `routing` | finds the operation, or serves a page outside the contract |
| `mock_responses` | example responses on demand (mock server only) |
| `rate_limits` | per address before authentication, per caller after it |
| `request_validation` | parameters and body against the contract |

`handlers.app` builds the stack from these classes.
"""
