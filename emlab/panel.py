"""A first control panel for a notebook: the clouds of a lab, buttons to pause and wake them, the idle timeout.

Imports ipywidgets when a panel is made; may import everything below lab.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from emlab.errors import EmlabError
from emlab.fanout import fan_out
from emlab.idle import Never, PauseAfter

if TYPE_CHECKING:
    from ipywidgets import Button, VBox, Widget

    from emlab.lab import Lab

MAX_IDLE_S = 86_400.0
OK_COLOUR, ERROR_COLOUR = "#222222", "#b00020"


def panel(lab: Lab) -> Widget:
    """A widget that shows the lab's clouds and pauses or wakes those that are selected.

    It shows what was so at the last action or Refresh. What an action could not do is said in words, cloud by cloud,
    and the others are done nevertheless. An idle timeout of 0 pauses nothing.

    Raises: ConfigError (the lab is not open).
    """
    return _Panel(lab).box


class _Panel:
    """The widgets of one panel and what they do; the buttons keep it alive."""

    def __init__(self, lab: Lab) -> None:
        import ipywidgets as widgets

        self._lab = lab
        self._table = widgets.HTML(layout={"max_height": "24em", "overflow": "auto"})
        self._users = widgets.SelectMultiple(
            rows=8, tooltip="Ctrl or Shift and a click select several", layout={"width": "14em"}
        )
        self._idle_s = widgets.BoundedFloatText(
            value=_idle_s(lab),
            min=0.0,
            max=MAX_IDLE_S,
            step=1.0,
            description="Pause clouds idle for (s; 0: never)",
            style={"description_width": "initial"},
            layout={"width": "30em"},
        )
        self._message = widgets.HTML()
        buttons = [
            self._button("Select all", "check-square", self._select_all),
            self._button("Pause", "pause", self._pause),
            self._button("Wake", "play", self._wake),
            self._button("Refresh", "refresh", self._count),
        ]
        self.box: VBox = widgets.VBox(
            [
                widgets.HBox([*buttons, self._idle_s]),
                widgets.HBox([self._users, self._table]),
                self._message,
            ]
        )
        self._refresh()
        self._count()
        self._idle_s.observe(lambda change: self._act(self._follow_idle), names="value")

    def _button(self, name: str, icon: str, action: Callable[[], None]) -> Button:
        import ipywidgets as widgets

        button = widgets.Button(description=name, icon=icon, layout={"width": "8em"})
        button.on_click(lambda clicked: self._act(action))
        return button

    def _act(self, action: Callable[[], None]) -> None:
        """Do it, then show how the clouds stand; an EmlabError is shown in words."""
        try:
            action()
            self._refresh()
        except EmlabError as exc:
            self._say(str(exc), colour=ERROR_COLOUR)

    def _pause(self) -> None:
        self._each("paused", self._lab.controller.pause)

    def _wake(self) -> None:
        self._each("woken", self._lab.controller.wake)

    def _each(self, done: str, step: Callable[[str], None]) -> None:
        """The step was tried with each selected cloud, and the message says with which it failed and why."""
        users = list(self._users.value)
        problems = [said for said in fan_out(users, _attempt(step), description=done, progress=False) if said]
        sentence = f"{len(users) - len(problems)} of {len(users)} selected clouds {done}"
        self._say("; ".join([sentence, *problems]), colour=ERROR_COLOUR if problems or not users else OK_COLOUR)

    def _select_all(self) -> None:
        self._refresh()
        self._users.value = self._users.options
        self._say(f"{len(self._users.value)} clouds selected")

    def _count(self) -> None:
        self._say(f"{len(self._lab.controller.clouds())} clouds on {self._lab.engine}, idle rule {self._lab.idle!r}")

    def _follow_idle(self) -> None:
        idle_s = self._idle_s.value
        self._lab.idle = Never() if idle_s == 0 else PauseAfter(idle_s)
        self._say(f"idle rule {self._lab.idle!r}")

    def _refresh(self) -> None:
        clouds = self._lab.controller.clouds()
        self._table.value = clouds._repr_html_()
        users = tuple(cloud.user for cloud in clouds)
        if users != self._users.options:
            still = [user for user in self._users.value if user in users]
            self._users.options = users
            self._users.value = still

    def _say(self, sentence: str, *, colour: str = OK_COLOUR) -> None:
        self._message.value = f'<span style="color:{colour}">{escape(sentence)}</span>'


def _idle_s(lab: Lab) -> float:
    """What the idle field shows first: the timeout in force, 0 for a rule that has none."""
    return lab.idle.idle_s if isinstance(lab.idle, PauseAfter) else 0.0


def _attempt(step: Callable[[str], None]) -> Callable[[str], str]:
    """The step, which returns "" or, where it fails, the error in words."""

    def attempt(user: str) -> str:
        try:
            step(user)
        except EmlabError as exc:
            return f"{user}: {exc}"
        return ""

    return attempt
