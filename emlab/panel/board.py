"""The widgets of a panel, what they do, and what they show."""

from __future__ import annotations

import atexit
import io
import logging
import threading
from collections.abc import Callable
from functools import partial
from html import escape
from typing import TYPE_CHECKING
from weakref import WeakSet

from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.clouds import how_many
from emlab.errors import ConfigError, EmlabError, EngineError, WireError
from emlab.fanout import fan_out
from emlab.idle import IdleRule
from emlab.panel.choice import Choice, in_words
from emlab.panel.source import Source
from emlab.panel.table import table
from emlab.record import Recorder, html_table
from emlab.state import CloudState

if TYPE_CHECKING:
    from ipywidgets import Button, ToggleButton, VBox, Widget

log = logging.getLogger(__name__)
LIVE_S = 2.0
LEAVE_S = 5.0  # at most until an interpreter ends in spite of a look
KEPT_EVENTS = 5_000  # of which the figure tells
SPANS = ("start", "pause", "wake", "answer")
EM_A_LETTER = 0.6  # how wide a letter of a name is in the list, at most
FIGURE_WIDTH = "768px"  # 8 inches of a screen
ERROR_COLOUR = "var(--jp-error-color0, #b00020)"
LOCK_TIP = (
    "Stop the selected clouds and close their vaults. It asks for no key: only the owner's key unlocks them again"
)


def panel(source: Source, *, every_s: float = LIVE_S) -> Widget:
    """A widget that shows clouds and pauses, wakes or locks those that are selected; see `Lab.panel`.

    It shows what was so at the last action or Refresh, and with Live what is so now; memory is measured at Refresh.
    What an action could not do is said in words, cloud by cloud, and the others are done nevertheless. The idle rule
    that is chosen is in force at once. Of all panels of a lab only the newest goes on being live: others may be out of
    sight, and nobody could end them.

    Args:
        every_s: seconds between two looks while it is live.
    Raises: ConfigError (the lab is not open), WireError, NotPermitted.
    """
    made = _Panel(source, every_s)
    for other in list(_MADE):
        if other.subject == source.subject:
            other.retire()
    _MADE.add(made)
    return made.box


_MADE: WeakSet[_Panel] = WeakSet()


class _Panel:
    """The widgets of one panel and what they do, one after another whatever thread asks; the buttons keep it alive."""

    def __init__(self, source: Source, every_s: float) -> None:
        import ipywidgets as widgets

        self._source = source
        self.subject = source.subject
        self._every_s = every_s
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._memory_mb: dict[str, float] = {}
        self._recorder = Recorder()
        self._recorder.keep(KEPT_EVENTS)
        self._seen = 0
        self._alarmed = False  # the message tells of a look that failed
        self._states: dict[str, str] = {}  # by user, at the last look
        self._to_lock: tuple[str, ...] = ()  # whom the next click on Lock locks
        self._table = widgets.HTML(layout={"max_height": "24em", "overflow": "auto", "flex": "1 1 34em"})
        self._users = widgets.SelectMultiple(
            rows=10,
            description="Clouds",
            tooltip="The clouds that the buttons turn; Ctrl or Shift and a click select several",
            style={"description_width": "initial"},
        )
        self._choice = Choice(source.rules, len(source.controller.clouds()), self._chosen)
        self._message = widgets.HTML(layout={"max_height": "8em", "overflow": "auto"})
        # with a tooltip an Image is not shown at all: the view of ipywidgets 8.1 fails
        self._figure = widgets.Image(layout={"width": "100%", "max_width": FIGURE_WIDTH, "display": "none"})
        self._numbers = widgets.HTML()  # the figure's, for who cannot see it
        self._live = self._toggle()
        self.box: VBox = self._arranged()
        self.box.observe(lambda change: self._ending.set(), names="comm")  # which goes when the box is closed
        self._look(stats=True)
        self._count()

    def _arranged(self) -> VBox:
        import ipywidgets as widgets

        buttons = [
            self._button("Select all", "check-square", "Select every cloud", self._select_all),
            self._button("Pause", "pause", "Let the selected clouds sleep; a use wakes them", self._pause),
            self._button("Wake", "play", "Let the selected clouds run", self._wake),
            self._button("Lock", "lock", LOCK_TIP, self._shut),
            self._button("Refresh", "refresh", "Look again, and measure memory", self._refresh),
            self._live,
        ]
        wrapped = {"flex_flow": "row wrap", "width": "100%"}
        return widgets.VBox(
            [
                widgets.HBox(buttons, layout=wrapped),
                self._choice.box,
                self._message,
                widgets.HBox([self._users, self._table], layout=wrapped),
                self._figure,
                self._numbers,
            ]
        )

    def _button(self, name: str, icon: str, tip: str, action: Callable[[], None]) -> Button:
        import ipywidgets as widgets

        button = widgets.Button(description=name, icon=icon, tooltip=tip, layout={"width": "8em"})
        button.on_click(lambda clicked: self._act(action))
        return button

    def _toggle(self) -> ToggleButton:
        import ipywidgets as widgets

        tip = f"Look again every {self._every_s:g} s, and draw how long things took; click again to stop"
        live = widgets.ToggleButton(description="Live", icon="heartbeat", tooltip=tip, layout={"width": "8em"})
        live.observe(lambda change: self._go_live() if change["new"] else self._ending.set(), names="value")
        return live

    def _act(self, action: Callable[[], None]) -> None:
        """Do it; an EmlabError is shown in words."""
        with self._lock:
            try:
                action()
            except EmlabError as exc:
                self._say(str(exc), alarm=True)

    # -- what the controls do, the lock being held ---------------------------------------------------------------

    def _pause(self) -> None:
        self._each("paused", self._source.controller.pause, CloudState.PAUSED)

    def _wake(self) -> None:
        self._each("woken", self._source.controller.wake, CloudState.RUNNING)

    def _shut(self) -> None:
        """The first click says what the second one does."""
        users = tuple(self._users.value)
        if users and users != self._to_lock:
            self._look()
            self._say(f"click Lock again to lock {how_many(len(users))}: only their owners' keys unlock them")
            self._to_lock = users
        else:
            self._each("locked", self._source.controller.lock, CloudState.STOPPED)

    def _each(self, done: str, step: Callable[[str], None], state: CloudState) -> None:
        """The step was tried with each selected cloud, and the message says with which it failed and why."""
        users = list(self._users.value)
        if not users:
            return self._say("no cloud is selected: click some in the list, or Select all", alarm=True)
        self._say(f"{how_many(len(users))}: being {done} …")
        said = dict(zip(users, fan_out(users, _attempt(step), description=done, progress=False), strict=True))
        self._look()
        for user in users:
            if (
                not said[user] and self._states.get(user, state.value) != state.value
            ):  # such as a locked one that was to be paused
                said[user] = f"{user}: it is {self._states[user]}"
        problems = [why for why in said.values() if why]
        sentence = f"{len(users) - len(problems)} of {how_many(len(users))} {done}"
        self._say("; ".join([sentence, *problems]), alarm=bool(problems))

    def _select_all(self) -> None:
        self._look()
        self._users.value = self._users.options
        self._say(f"{how_many(len(self._users.value))} selected")

    def _refresh(self) -> None:
        self._look(stats=True)
        self._count()

    def _count(self) -> None:
        n = len(self._users.options)
        self._say(f"{how_many(n)} {self._source.where()}, idle rule {self._source.idle()[1]}")

    def _chosen(self, make: Callable[[], IdleRule]) -> None:
        self._act(partial(self._follow, make))

    def _follow(self, make: Callable[[], IdleRule]) -> None:
        try:
            self._source.follow(make())
        except ConfigError as exc:
            raise ConfigError(in_words(str(exc))) from exc
        finally:
            self._choice.show(self._source.idle()[0])
        self._say(f"idle rule {self._source.idle()[1]}")
        self._look()

    # -- what is shown -------------------------------------------------------------------------------------------

    def _look(self, *, stats: bool = False) -> None:
        """Table, list, idle rule and, once it was live, the figure show what is so now."""
        frame = self._source.controller.clouds().frame(stats=stats)
        if stats:
            self._memory_mb = dict(zip(frame["cloud"], frame["memory_mb"], strict=True))
        self._table.value = table(frame, self._memory_mb, now=SYSTEM_CLOCK.now())
        users = tuple(frame["user"])
        self._states = dict(zip(users, frame["state"], strict=True))
        if users != self._users.options:
            still = [user for user in self._users.value if user in users]
            self._users.options = users
            self._users.layout.width = f"{min(max(14, EM_A_LETTER * max(map(len, users), default=0) + 6), 44):.0f}em"
            self._users.value = still
        self._choice.show(self._source.idle()[0])
        if self._live.value or self._figure.value:
            self._draw()

    def _draw(self) -> None:
        """The figure shows what happened until now; without news it stays."""
        from emlab.plots.lab import latency_over_time

        events, count = self._source.events(self._seen)
        if count < self._seen:  # of another recorder: the controller began anew
            events, count = self._source.events(0)
        self._seen = count
        if self._figure.value and not any(event.span in SPANS for event in events):
            return
        for event in events:
            self._recorder.add(event)
        frame = self._recorder.frame()
        file = io.BytesIO()
        latency_over_time(frame, SPANS).savefig(file, format="png")
        self._numbers.value = html_table(frame[frame["span"].isin(SPANS)])
        self._figure.layout.display = ""
        self._figure.value = file.getvalue()

    def _say(self, sentence: str, *, alarm: bool = False) -> None:
        style = f"color:{ERROR_COLOUR};font-weight:bold" if alarm else ""
        role = "alert" if alarm else "status"
        self._alarmed, self._to_lock = False, ()  # who reads something else was not asked
        self._message.value = f'<span role="{role}" style="{style}">{escape(sentence)}</span>'

    # -- live ----------------------------------------------------------------------------------------------------

    def _go_live(self) -> None:
        self._ending = ending = threading.Event()
        atexit.unregister(self._leave)
        atexit.register(self._leave)
        # a daemon: an interpreter that ends does not wait for it
        threading.Thread(target=self._watch, args=(ending,), name="emlab-panel", daemon=True).start()

    def _watch(self, ending: threading.Event) -> None:
        while not ending.is_set():
            self._tick(ending)
            ending.wait(self._every_s)

    def _tick(self, ending: threading.Event) -> None:
        """One look; a failure is shown, and ends it unless the engine or the network may be back soon."""
        with self._lock:
            if ending.is_set():
                return
            try:
                self._look()
                if self._alarmed:
                    self._say("it answers again")
            except (EngineError, WireError) as exc:
                self._say(str(exc), alarm=True)
                self._alarmed = True
            except EmlabError as exc:
                self._end(str(exc))
            except Exception as exc:  # a fault of ours: nobody would notice that what is shown is old
                if _at_the_end():
                    return
                log.exception("a live panel failed")
                self._end(f"no longer live: {type(exc).__name__}")

    def _leave(self) -> None:
        """Nothing looks or draws any more: a thread that ends inside of matplotlib's C++ aborts the interpreter."""
        self._ending.set()
        if self._lock.acquire(timeout=LEAVE_S):
            self._lock.release()

    def retire(self) -> None:
        """It is not live any more, if it was."""
        if self._live.value:  # its lock is not waited for: a look of it may hang
            self._end("no longer live: there is a newer panel of this lab")

    def _end(self, why: str) -> None:
        self._say(why, alarm=True)
        self._live.value = False


def _at_the_end() -> bool:
    """Whether the interpreter ends now, and so takes no more work; its main thread is gone a moment later."""
    return wait_until(lambda: not threading.main_thread().is_alive(), 0.5)


def _attempt(step: Callable[[str], None]) -> Callable[[str], str]:
    """The step, which returns "" or, where it fails, the error in words."""

    def attempt(user: str) -> str:
        try:
            step(user)
        except EmlabError as exc:
            return f"{user}: {exc}"
        return ""

    return attempt
