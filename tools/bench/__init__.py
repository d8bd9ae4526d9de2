"""The benchmark: measures the server beside its peers, some of it from inside the server's process."""
