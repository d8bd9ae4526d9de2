"""The review gate: finds what is wrong in the contract and what a change means for clients; releases."""
