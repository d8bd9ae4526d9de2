"""Row-level security on PostgreSQL: database roles, policies and the role of a session."""
