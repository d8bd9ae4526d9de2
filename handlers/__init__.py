"""Everything that knows HTTP: one module per tag of the contract, and the verbs that these modules share."""
