"""Account exports: a copy of a user's personal data, for the user (GDPR, articles 15 and 20).

`create` queues one, `sections` lists what it contains, and `worker` writes the archives.
"""
