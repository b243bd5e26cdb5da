"""A user's own labels of one kind, with how often each was used. Pure: each function gives the changed mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from emlab.entries import JsonObject
from emlab.errors import BadQuery

MAX_LABELS = 500  # of one kind, those offered no more included
Uses = Mapping[str, JsonObject]  # by label: createdAt, frequency, isActive


def listed(uses: Uses) -> list[str]:
    """The labels on offer, most used first, then oldest first."""
    active = [label for label, use in uses.items() if use["isActive"]]
    return sorted(active, key=lambda label: -cast(int, uses[label]["frequency"]))


def inserted(uses: Uses, label: str, now: float) -> Uses:
    """The label is on offer. Raises BadQuery."""
    return _offered(uses, label, now, more=0)


def deleted(uses: Uses, label: str) -> Uses:
    """The label is on offer no more; its uses stay known."""
    return {**uses, label: {**uses[label], "isActive": False}} if label in uses else uses


def changed(uses: Uses, old: str, new: str, now: float, *, add: bool) -> Uses:
    """The new label counts one use more, the old one one less; an unknown new one only if it is to be added."""
    if new in uses or add:
        uses = _offered(uses, new, now, more=1)
    if old in uses:
        uses = {**uses, old: _used(uses[old], -1)}
    return uses


def _offered(uses: Uses, label: str, now: float, *, more: int) -> Uses:
    if label not in uses:
        _check(uses, label)
    use = uses.get(label, {"createdAt": {"$date": int(now * 1000)}, "frequency": 0})
    return {**uses, label: {**_used(use, more), "isActive": True}}


def _used(use: JsonObject, more: int) -> JsonObject:
    return {**use, "frequency": cast(int, use["frequency"]) + more}


def _check(uses: Uses, label: str) -> None:
    """Returns if there may be such a label. It names a field in the database, which bounds what it may be."""
    if not label or label.startswith("$") or "\0" in label or any("\ud800" <= one <= "\udfff" for one in label):
        raise BadQuery("a label is text that is not empty and begins with no $")
    if len(uses) >= MAX_LABELS:
        raise BadQuery(f"there are {MAX_LABELS} labels of this kind already")
