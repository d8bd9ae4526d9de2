"""ASGI middleware, in the order in which a request passes it. Connexion provides the entries in brackets.

| Module | Does |
|---|---|
| `error_boundary` | returns a generic 500 problem when `observability` fails |
| `observability` | request id, access log, metrics, root span |
| `error_boundary` | returns a generic 500 problem when an outer middleware below fails |
| `security_headers` | security headers, CORS, Cache-Control |
| `response_validation` | validates responses that no endpoint has validated |
| (`ExceptionMiddleware`) | turns exceptions into problems |
| `mock_control` | scenario and reset (mock server only) |
| `long_polling` | `Prefer: wait=N` and server-sent events |
| `routing` | finds the operation, or serves a page outside the contract |
| `mock_responses` | example responses and misbehavior on request (mock server only) |
| `rate_limits.AnonymousRateLimit` | counts requests without a valid credential by address |
| (`SecurityMiddleware`) | authentication: reads the token or API key |
| `rate_limits.CallerRateLimit` | counts requests by account or API key |
| `concurrency` | limits the requests that an account or address runs at the same time |
| `request_validation` | parameters and body against the contract |
| `event_loop.EventLoopOperations` | serves reads and plain writes; the rest is for all other operations |
| `image_conversion` | decodes and stores files and makes image variants without a request thread |
| (`LifespanMiddleware`) | start and end of the server |
| (`ContextMiddleware`) | Connexion's request context |

`rate_limits` and `concurrency` are modules of `handlers.pipeline.admission`.
`handlers.app` builds the stack in this order; a test compares the two. Flask and the endpoint follow.
"""
