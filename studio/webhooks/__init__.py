"""Webhooks to clients (Standard Webhooks 1.0.0).

`outbox` stores one delivery per event and endpoint in the transaction of the change, `queue` leases the next
delivery and records its outcome, `dispatcher` runs the threads that send, `endpoints` changes endpoints, and
`signing` derives secrets and signs messages.
"""
