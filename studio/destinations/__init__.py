"""Destinations: delivery of exports to the storage of customers.

`credentials` encrypts what a destination needs to sign in, `signature` signs requests for S3, `targets` sends
files through the guarded HTTP client, `changes` writes destinations, `queue` leases the next delivery, and
`worker` delivers the files of an export.
"""
