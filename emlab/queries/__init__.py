"""The queries. Each is a module with one frozen value; `known` lists them, and those of other packages."""
