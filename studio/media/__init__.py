"""Images that clients send: inspect, normalize, store and serve them in a requested size and format.

Handlers call `ingest` (images that rows refer to), `uploads` (presigned uploads), `fetching` (images at
remote URLs), `variants` (resized copies) and `signing`. The other modules are the steps behind these. Nothing
in this package knows HTTP requests or responses.
"""
