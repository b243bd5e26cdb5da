"""A choice of idle rules, with a field for each parameter."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from emlab.idle import IdleRule

if TYPE_CHECKING:
    from ipywidgets import BoundedFloatText, Dropdown, HBox

DEFAULT_IDLE_S = 60.0
MOST = 1e9  # of any parameter
# what the parameters of the rules are called, and what they mean
FIELDS = {
    "idle_s": ("pause after (s)", "Seconds without a use until a cloud is paused"),
    "lock_after_s": ("lock after (s)", "Seconds without a use until it is locked: then only its owner's key opens it"),
    "n": ("clouds, at most", "Of more that run, those are paused that nobody used for the longest time"),
    "head": ("too short (share)", "Which share of the past gaps between uses was too short to expect a use so soon"),
    "tail": ("long enough (share)", "After which share of the past gaps between uses a cloud is paused"),
    "margin": ("margin (share)", "By which share of that time a cloud is awake sooner and longer"),
    "least": ("gaps, at least", "Of a cloud with fewer past gaps nothing is expected: it is paused after the seconds"),
    "spread": ("spread, at most", "Gaps that vary more (standard deviation over mean) say nothing"),
}


def in_words(error: str) -> str:
    """An error of a rule, with the names of its parameters that are no words called as beside their fields."""
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda name: FIELDS[name[0]][0] if name[0] in FIELDS else name[0], error)


class Choice:
    """The idle rule that is chosen, and its parameters.

    Args:
        rules: from which, by what a person calls them.
        clouds: how many there are, so that a first "at most" pauses none.
        chosen: is told of a choice, as what makes the rule of it.
    """

    def __init__(
        self, rules: Mapping[str, type[IdleRule]], clouds: int, chosen: Callable[[Callable[[], IdleRule]], None]
    ) -> None:
        import ipywidgets as widgets

        self._told = chosen
        self._shower: int | None = None  # the thread in which `show` sets what no person has chosen
        self.kind: Dropdown = widgets.Dropdown(
            options=list(rules.items()),
            value=None,
            description="Idle rule",
            tooltip="Which clouds are paused when nobody uses them; in force as soon as it is chosen",
            disabled=not rules,
            style={"description_width": "initial"},
            layout={"width": "17em"},
        )
        self._fields = {
            kind: {f.name: self._field(kind, f, clouds) for f in _parameters(kind)} for kind in rules.values()
        }
        self.box: HBox = widgets.HBox([self.kind], layout={"flex_flow": "row wrap", "width": "100%"})
        self.kind.observe(lambda change: self._changed(change["new"]), names="value")

    def _field(self, kind: type[IdleRule], field: dataclasses.Field[object], clouds: int) -> BoundedFloatText:
        import ipywidgets as widgets

        label, tip = FIELDS[field.name]
        optional = field.default is None
        widget = widgets.BoundedFloatText(
            value=_default(field, clouds),
            min=0.0,
            max=MOST,
            description=f"{label}; 0: never" if optional else label,
            tooltip=tip,
            style={"description_width": "initial"},
            layout={"width": "17em"},
        )
        widget.observe(lambda change: self._changed(kind, **{field.name: change["new"]}), names="value")
        return widget

    def _changed(self, kind: type[IdleRule] | None, **entered: float) -> None:
        """What a person chose and entered, and not what is shown by now: another thread may show the rule in force."""
        fields = self._show_fields(kind)
        if self._shower != threading.get_ident() and kind is not None:
            self._told(partial(_rule, kind, {name: widget.value for name, widget in fields.items()} | entered))

    def _show_fields(self, kind: type[IdleRule] | None) -> dict[str, BoundedFloatText]:
        fields = self._fields[kind] if kind else {}
        self.box.children = (self.kind, *fields.values())
        return fields

    def show(self, rule: IdleRule | None) -> None:
        """This rule is in force; None or one that cannot be chosen leaves the choice empty."""
        kind = next((kind for kind in self._fields if isinstance(rule, kind)), None)
        with self._showing():
            for name, widget in self._fields.get(kind, {}).items() if kind else ():
                value = getattr(rule, name) or 0.0
                if widget.value != value:
                    widget.value = value
            self.kind.value = kind
            self._show_fields(kind)

    @contextmanager
    def _showing(self) -> Iterator[None]:
        self._shower = threading.get_ident()
        try:
            yield
        finally:
            self._shower = None


def _parameters(kind: type[IdleRule]) -> tuple[dataclasses.Field[object], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _default(field: dataclasses.Field[object], clouds: int) -> float:
    """What the field of a rule shows first: 0 for a parameter that may be left out."""
    if field.name == "n":
        return max(1, clouds)
    if field.default is dataclasses.MISSING:
        return DEFAULT_IDLE_S
    return float(field.default) if isinstance(field.default, int | float) else 0.0


def _rule(kind: type[IdleRule], values: Mapping[str, float]) -> IdleRule:
    """The rule with these parameters; 0 leaves out one that may be left out. Raises ConfigError."""
    given: dict[str, float | int | None] = {}
    for field in _parameters(kind):
        value = values[field.name]
        whole = field.type == "int" and value.is_integer()
        given[field.name] = None if field.default is None and value == 0 else int(value) if whole else value
    return kind(**given)
