"""The OpenAPI document, compiled into a router, parsers and validators.

Pure: this package imports no other package of this project. It knows neither resources nor roles nor the
database, and no policy: operations keep their extensions and security as the document has them, and
`handlers.pipeline.policies` gives them a meaning. import-linter and tests check it.

Read in this order: `document`; `request_schema`, `schema_compiler` and `coercion` (one schema); `operations`
(one operation); `parameters`, `request_bodies` and `responses` (the three checks); `router` and `resolver`
(which function).
"""
