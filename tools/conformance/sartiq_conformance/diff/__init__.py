"""Compare two OpenAPI documents: what changed for clients, and what breaks them.

The package knows no contract in particular. Its modules import each other only, so that tools beside the kit
can import it, too.
"""
