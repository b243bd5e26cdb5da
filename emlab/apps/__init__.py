"""Thin programs around the actors: what runs inside containers."""
