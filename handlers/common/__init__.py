"""What handlers call: responses, pagination, preconditions, permissions, references, application services."""
