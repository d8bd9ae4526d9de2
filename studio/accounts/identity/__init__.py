"""User accounts: passwords, sessions with refresh tokens, password recovery and changes of address.

Knows no HTTP and no JWT.
"""
