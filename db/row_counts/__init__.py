"""The counter cache: row counts that triggers maintain, so that no list counts a million rows."""
