"""Row-level security: database roles and the role of a transaction.

It is the second layer of tenant isolation, beneath the tenant filter of `db/tenancy.py`.
"""
