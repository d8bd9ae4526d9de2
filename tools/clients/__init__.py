"""Builds the clients from the contract: the Python package, TypeScript types and the npm package."""
