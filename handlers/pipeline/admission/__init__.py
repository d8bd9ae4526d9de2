"""Admission control: every limit that rejects or delays a request. `limits` lists them all."""
