"""Imports of products from uploaded files: requests, the queue, and the worker that reads and writes rows."""
