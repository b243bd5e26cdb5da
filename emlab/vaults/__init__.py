"""Vaults: a person's encrypted directory. `base` holds the contract, each other module one implementation."""
