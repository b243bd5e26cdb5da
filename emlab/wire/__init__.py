"""The wire: one table of routes, the structs that cross it, and both of its ends."""
