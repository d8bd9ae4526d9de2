"""Pictures that clients send: inspected, normalised, stored once, served in the size and format asked for.

Start with `ingest.py`, which handlers call; the other modules are the steps behind it. Nothing knows HTTP.
"""
