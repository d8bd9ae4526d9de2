"""Check that a running server conforms to a contract."""

__version__ = "0.2.0"
