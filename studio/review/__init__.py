"""Decisions about predictions, comments, share links, review links and retention."""
