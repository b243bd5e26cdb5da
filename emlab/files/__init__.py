"""Entries in files: e-mission JSON (plain or packed), GPX, and the archive of a whole cloud."""

from emlab.files.opening import read_private, replacing
from emlab.files.reading import LISTS, read, sections
from emlab.files.writing import write

__all__ = ["LISTS", "read", "read_private", "replacing", "sections", "write"]
