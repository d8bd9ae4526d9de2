"""Shows the documentation of the contract while its YAML is edited."""
