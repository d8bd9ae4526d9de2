"""Admission control: every limit that rejects or delays a request.

| Module | Limits |
|---|---|
| `limits` | nothing: the list of all, with the names for log and metrics |
| `connections` | open connections, in total and of an address |
| `rate_limits` | requests per minute: of an address, caller, organization, its guests |
| `attempt_limits` | attempts to guess a password or a token, mails, copies of personal data |
| `concurrency` | requests of an account or address in progress; it decides who a request counts for |
| `body_limits` | bytes of unfinished bodies |
| `lock_waits` | request threads that wait for row locks |
| `slots` | requests to other servers; files that are decoded or stored |

How long a request may take, and who gets the next thread, is in `wsgi_bridge`; how many requests may wait for
a change is in `studio.infrastructure.change_hub`. The primitives are in `studio`: they know no HTTP.
"""
