"""Webhooks to clients (Standard Webhooks 1.0.0).

`outbox` stores one delivery per event and endpoint in the transaction of the change, `queue` leases the next
delivery and records its outcome, `dispatcher` runs the threads that send, `pull` lists and acknowledges the
messages that clients poll, `endpoints` changes endpoints, `messages` writes messages as they are sent, and
`signing` derives secrets and signs.
"""
