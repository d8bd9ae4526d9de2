"""The OpenAPI document, compiled into a router, parsers and validators.

Pure: this package imports no other package of this project. It knows neither resources nor roles nor the
database; `handlers.app` passes in the few facts that it needs. import-linter and a test check it.

Read in this order: `document`; `request_schema`, `schema_compiler` and `coercion` (one schema); `operations`
(one operation); `parameters`, `request_bodies` and `responses` (the three checks); `router` and `resolver`
(which function).
"""
