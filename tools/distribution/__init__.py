"""Builds what a release publishes."""
