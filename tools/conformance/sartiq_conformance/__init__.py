"""Check that a running server conforms to a contract."""

__version__ = "0.3.0"
