"""Webhooks to clients, by Standard Webhooks 1.0.0: who listens, what is to be sent, and how it gets there.

`outbox.py` leaves a row for each event and endpoint, `queue.py` says which is sent next and what an answer
means, `senders.py` runs the threads, `endpoints.py` keeps the addresses, `signing.py` the secrets, and
`notice.py` writes to the owner of an endpoint that had to be disabled.
"""
