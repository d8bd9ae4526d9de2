"""What Schemathesis needs besides the contract: identities, hooks and settings of a run."""
