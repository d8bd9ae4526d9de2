"""Everything that knows HTTP: one module per tag of the contract, and the packages that they share."""
