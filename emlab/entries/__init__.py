"""The e-mission entry: which mappings are one, and what is said of those that are not.

A typed view checks an entry; the original mapping is what goes on, so fields that nobody here knows pass unchanged.
Two forms are accepted: formatted (`metadata.write_fmt_time` is there) and the raw form that a phone uploads.
"""

from emlab.entries.parser import DEFAULT_TIME_ZONE, MAX_ENTRY_BYTES, is_formatted, parse, parse_all, parse_each
from emlab.entries.report import MAX_EXAMPLES, Rejected, StoreReport, count_reasons, summed
from emlab.entries.tree import MAX_DEPTH
from emlab.entries.view import LOCATION_KEYS, RESULT_PREFIXES, TIME_FIELDS, JsonObject

__all__ = [
    "DEFAULT_TIME_ZONE",
    "LOCATION_KEYS",
    "MAX_DEPTH",
    "MAX_ENTRY_BYTES",
    "MAX_EXAMPLES",
    "RESULT_PREFIXES",
    "TIME_FIELDS",
    "JsonObject",
    "Rejected",
    "StoreReport",
    "count_reasons",
    "is_formatted",
    "parse",
    "parse_all",
    "parse_each",
    "summed",
]
