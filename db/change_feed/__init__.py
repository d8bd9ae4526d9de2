"""The change feed: triggers record which resources of a tenant were created, changed and deleted."""
