"""Row-level security on PostgreSQL: database roles, policies and the role of a transaction.

It is the second layer of tenant isolation, beneath the tenant filter of `db/tenancy.py`.
"""
