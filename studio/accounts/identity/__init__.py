"""Who somebody is: passwords, sessions and their refresh tokens, recovery by mail.

Knows no HTTP and no JWT.
"""
