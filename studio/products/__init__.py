"""Products, their photos, and transfers between organizations."""
