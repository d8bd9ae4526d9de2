"""Row counts that triggers maintain, so that a list does not count a million rows."""
