"""The command line, the HTTP/1.1 protocol with its limits, and the environment of a mock server."""
