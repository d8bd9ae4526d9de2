"""What handlers call: responses, pagination, preconditions, permissions, references, images and limits."""
