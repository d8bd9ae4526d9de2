"""The usage of organizations: daily totals that triggers maintain, so that no report reads a million rows."""
