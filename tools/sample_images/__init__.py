"""Draws the sample images that are part of the code of the server and of the tests."""
