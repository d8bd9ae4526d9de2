"""Run the reads that handlers declare (`handlers.common.reads`), on the event loop and without a session."""
