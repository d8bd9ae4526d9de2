"""E-mails: `emails` composes them, `mailer` queues them, `queue` sends them, `transports` delivers them.

An e-mail is a row that is inserted in the transaction of the change it is about. Its content is encrypted,
and deleted when it was sent.
"""
