"""Entries in files: e-mission JSON (plain or packed), GPX, and the archive of a whole cloud."""

from emlab.files.reading import read
from emlab.files.writing import write

__all__ = ["read", "write"]
