"""Engines: what runs clouds. `base` holds the contract, each other module one implementation."""
