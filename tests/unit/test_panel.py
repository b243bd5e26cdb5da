"""The control panel: its controls are used, what it shows is read; of a lab, and of a controller elsewhere."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path

import pytest
from ipywidgets import HTML, BoundedFloatText, Button, Dropdown, Image, SelectMultiple, ToggleButton, Widget

import emlab as em
from emlab.clock import wait_until
from emlab.clouds import STATE_COLOURS
from emlab.errors import Unreachable
from emlab.idle import AtMost, Histogram, IdleRule
from emlab.panel import Elsewhere, Here, panel
from emlab.panel.choice import Choice
from emlab.panel.table import table
from emlab.record import Event
from emlab.remote import ControllerClient
from emlab.service import Service
from emlab.wire.transport import MemoryTransport

NAMES = ("ann", "bob", "eve")
KEY = em.Key(bytes(range(32)))
SOON_S = 20.0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[em.Lab]:
    with em.Lab("memory", home=tmp_path, idle=em.Never()) as lab:
        for name in NAMES:
            lab.controller.signup(name, key=KEY)
        yield lab


def client_of(lab: em.Lab, kind: em.key.TokenKind = "admin", name: str = "root") -> ControllerClient:
    """Of the lab's controller, as if it were elsewhere."""
    service = Service(lab.controller, lab.registry, follow=lambda rule: setattr(lab, "idle", rule))
    token = service.issue(kind, name).token
    return ControllerClient("http://localhost", token, transport=MemoryTransport(service.server()))


@pytest.fixture(params=["lab", "client"])
def of(request: pytest.FixtureRequest, lab: em.Lab) -> em.Lab | ControllerClient:
    """What a panel is asked of: the lab, or its controller as if it were elsewhere."""
    return lab if request.param == "lab" else client_of(lab)


class Hand:
    """What a person at the panel sees and does."""

    def __init__(self, box: Widget) -> None:
        self.box = box
        found = list(_all(box))
        self.widgets = found
        self._buttons: dict[str, Button] = {one.description: one for one in found if isinstance(one, Button)}
        (self.users,) = (widget for widget in found if isinstance(widget, SelectMultiple))
        (self.rule,) = (widget for widget in found if isinstance(widget, Dropdown))
        (self.live,) = (widget for widget in found if isinstance(widget, ToggleButton))
        (self.figure,) = (widget for widget in found if isinstance(widget, Image))
        self._message, self._table, self._numbers = (widget for widget in found if isinstance(widget, HTML))

    def click(self, name: str) -> None:
        self._buttons[name].click()

    def choose(self, rule: type[IdleRule]) -> None:
        self.rule.value = rule

    def enter(self, label: str, value: float) -> None:
        self._fields[label].value = value

    @property
    def fields(self) -> dict[str, float]:
        """What stands in the fields beside the chosen rule."""
        return {label: field.value for label, field in self._fields.items()}

    @property
    def _fields(self) -> dict[str, BoundedFloatText]:
        return {widget.description: widget for widget in _all(self.box) if isinstance(widget, BoundedFloatText)}

    @property
    def buttons(self) -> set[str]:
        return set(self._buttons)

    @property
    def table(self) -> dict[str, str]:
        """The state of each user, as the table says; each state must have its colour."""
        rows = re.findall(r"<tr><td>([^<]+)</td><td><span style=\"background:(#\w+);[^>]*>(\w+)<", self._table.value)
        assert all(STATE_COLOURS[em.CloudState(state)] == colour for _, colour, state in rows)
        return {user: state for user, _, state in rows}

    @property
    def cells(self) -> list[list[str]]:
        rows = re.findall("<tr>(<td>.*?)</tr>", self._table.value)
        return [re.findall("<td>(.*?)</td>", re.sub("</?span[^>]*>", "", row)) for row in rows]

    @property
    def message(self) -> str:
        return unescape(re.sub("<[^>]+>", "", self._message.value))

    @property
    def complains(self) -> bool:
        return 'role="alert"' in self._message.value


def _all(widget: Widget) -> Iterator[Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all(child)


def states(lab: em.Lab) -> dict[str, str]:
    return {cloud.user: cloud.state.value for cloud in lab.controller.clouds()}


def quick(lab: em.Lab) -> Hand:
    """At a panel that looks often while it is live."""
    return Hand(panel(Here(lab), every_s=0.02))


def rule_of(lab: em.Lab) -> IdleRule:
    return lab.idle


def watchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "emlab-panel"]


def ended() -> bool:
    return wait_until(lambda: not watchers(), SOON_S)


class TestTurning:
    def test_the_panel_shows_every_cloud_and_has_its_controls(self, of: em.Lab | ControllerClient) -> None:
        hand = Hand(of.panel())
        assert hand.table == dict.fromkeys(NAMES, "running")
        assert [row[1:3] + row[4:] for row in hand.cells] == [["running", "open", "0", "0 MiB"]] * 3
        assert all(re.fullmatch(r"\d+ s ago", row[3]) for row in hand.cells)
        assert hand.buttons == {"Select all", "Pause", "Wake", "Lock", "Refresh"}
        assert hand.users.options == NAMES
        where = "on memory" if isinstance(of, em.Lab) else "at http://localhost"
        assert hand.message == f"3 clouds {where}, idle rule Never()"

    def test_every_control_says_what_it_is_and_what_it_does(self, of: em.Lab | ControllerClient) -> None:
        hand = Hand(of.panel())
        controls = [one for one in hand.widgets if isinstance(one, Button | ToggleButton | Dropdown | SelectMultiple)]
        assert len(controls) == 8
        assert all(control.description and control.tooltip for control in controls)
        assert "only the owner's key unlocks" in hand._buttons["Lock"].tooltip
        hand.choose(em.PauseAfter)
        assert all(field.description and field.tooltip for field in hand._fields.values())

    def test_one_several_and_all_clouds_are_paused_and_woken(self, of: em.Lab | ControllerClient, lab: em.Lab) -> None:
        hand = Hand(of.panel())
        hand.users.value = ("bob",)
        hand.click("Pause")
        assert hand.table == states(lab) == {"ann": "running", "bob": "paused", "eve": "running"}
        assert hand.message == "1 of 1 cloud paused"
        hand.users.value = ("ann", "bob")
        hand.click("Pause")
        assert hand.table == states(lab) == {"ann": "paused", "bob": "paused", "eve": "running"}
        hand.click("Select all")
        assert (hand.users.value, hand.message) == (NAMES, "3 clouds selected")
        hand.click("Wake")
        assert hand.table == states(lab) == dict.fromkeys(NAMES, "running")
        assert hand.message == "3 of 3 clouds woken"
        assert not hand.complains

    def test_a_locked_cloud_is_not_woken_without_its_key(self, of: em.Lab | ControllerClient, lab: em.Lab) -> None:
        hand = Hand(of.panel())
        hand.users.value = ("bob",)
        hand.click("Lock")
        assert hand.message == "click Lock again to lock 1 cloud: only their owners' keys unlock them"
        assert not hand.complains
        hand.users.value = ("ann", "bob")
        hand.click("Lock")
        hand.users.value = ("bob",)
        hand.click("Refresh")
        hand.click("Lock")  # each for other clouds, or after something else: nothing is locked
        assert states(lab) == dict.fromkeys(NAMES, "running")
        hand.click("Lock")
        assert hand.message == "1 of 1 cloud locked"
        assert hand.cells[1][1:3] == ["stopped", "closed"]
        assert hand.cells[1][5] == "–"
        hand.click("Select all")
        hand.click("Wake")
        assert hand.message.startswith("2 of 3 clouds woken; bob: the vault of bob is closed; unlock it")
        assert hand.complains
        hand.click("Pause")
        assert hand.message == "2 of 3 clouds paused; bob: it is stopped"
        assert hand.complains
        hand.click("Wake")
        lab.controller.unlock("bob", KEY)
        hand.click("Refresh")
        assert hand.cells[1][1:3] == ["running", "open"]

    def test_with_nothing_selected_nothing_is_done_and_it_says_so(self, lab: em.Lab) -> None:
        hand = Hand(lab.panel())
        for button in ("Pause", "Wake", "Lock"):
            hand.click("Refresh")
            hand.click(button)
            assert states(lab) == dict.fromkeys(NAMES, "running")
            assert hand.message == "no cloud is selected: click some in the list, or Select all"
            assert hand.complains

    def test_a_leased_cloud_is_named_and_the_others_are_paused(
        self, of: em.Lab | ControllerClient, lab: em.Lab
    ) -> None:
        hand = Hand(of.panel())
        hand.click("Select all")
        with lab.controller.lease("bob", 60.0):
            hand.click("Pause")
            assert hand.cells[1][4] == "1"
        assert hand.table == states(lab) == {"ann": "paused", "bob": "running", "eve": "paused"}
        assert hand.message.startswith("2 of 3 clouds paused; bob: the cloud of bob is in use")
        assert hand.complains
        hand.click("Wake")
        assert not hand.complains

    def test_refresh_shows_what_others_did_and_keeps_the_selection(
        self, of: em.Lab | ControllerClient, lab: em.Lab
    ) -> None:
        hand = Hand(of.panel())
        hand.users.value = ("ann", "eve")
        lab.controller.pause("ann")
        lab.controller.forget("eve")
        lab.controller.signup("zoe")
        assert hand.table == dict.fromkeys(NAMES, "running")
        hand.click("Refresh")
        assert hand.table == {"ann": "paused", "bob": "running", "zoe": "running"}
        assert (hand.users.options, hand.users.value) == (("ann", "bob", "zoe"), ("ann",))

    def test_a_cloud_that_is_gone_is_said_in_words(self, of: em.Lab | ControllerClient, lab: em.Lab) -> None:
        hand = Hand(of.panel())
        hand.users.value = ("ann", "eve")
        lab.controller.forget("eve")
        hand.click("Pause")
        assert hand.message.startswith("1 of 2 clouds paused; eve: nobody called 'eve' has a cloud")
        assert hand.table == {"ann": "paused", "bob": "running"}

    def test_a_panel_of_a_closed_lab_says_so_at_each_click_and_never_raises(self, tmp_path: Path) -> None:
        lab = em.Lab("memory", home=tmp_path).start()
        lab.controller.signup("ann")
        hand = Hand(lab.panel())
        hand.click("Select all")
        lab.close()
        for button in sorted(hand.buttons):
            hand.click("Pause")
            hand.click(button)
            assert hand.complains
            assert "is not open" in hand.message or "not be" in hand.message
        hand.enter("pause after (s)", 5.0)
        assert "is not open" in hand.message
        with pytest.raises(em.ConfigError, match="not open"):
            lab.panel()

    def test_an_owner_sees_and_turns_the_own_cloud_only_and_chooses_no_rule(self, lab: em.Lab) -> None:
        hand = Hand(client_of(lab, "owner", "bob").panel())
        assert hand.table == {"bob": "stopped"}  # it starts anew, to know the new token
        hand.users.value = ("bob",)
        hand.click("Wake")
        assert hand.table == {"bob": "running"}
        hand.click("Refresh")
        assert hand.message == "1 cloud at http://localhost, idle rule known to admins only"
        assert hand.rule.disabled
        hand.click("Select all")
        hand.click("Pause")
        assert states(lab) == {"ann": "running", "bob": "paused", "eve": "running"}


class TestIdleRule:
    def test_a_rule_that_is_chosen_is_in_force_and_shown(self, of: em.Lab | ControllerClient, lab: em.Lab) -> None:
        hand = Hand(of.panel())
        assert (hand.rule.value, hand.fields) == (em.Never, {})
        hand.choose(em.PauseAfter)
        assert rule_of(lab) == lab.controller.idle == em.PauseAfter(60.0)
        assert hand.message == "idle rule PauseAfter(60 s)"
        hand.enter("pause after (s)", 30.0)
        assert rule_of(lab) == em.PauseAfter(30.0)
        hand.enter("lock after (s); 0: never", 90.0)
        assert rule_of(lab) == em.PauseAfter(30.0, lock_after_s=90.0)
        assert hand.message == "idle rule PauseAfter(30 s, lock after 90 s)"
        hand.enter("lock after (s); 0: never", 0.0)
        assert rule_of(lab) == em.PauseAfter(30.0)
        hand.choose(em.Never)
        assert (rule_of(lab), hand.fields) == (em.Never(), {})

    def test_rules_of_number_and_of_past_gaps_have_their_parameters(self, lab: em.Lab) -> None:
        hand = Hand(lab.panel())
        hand.choose(AtMost)
        assert rule_of(lab) == AtMost(3)  # as many as there are: none is paused before a number is chosen
        hand.enter("clouds, at most", 2.0)
        assert rule_of(lab) == AtMost(2)
        hand.enter("clouds, at most", 1.5)
        assert hand.complains
        assert (lab.idle, hand.fields["clouds, at most"]) == (AtMost(2), 2.0)
        hand.choose(Histogram)
        assert rule_of(lab) == Histogram()
        hand.enter("gaps, at least", 5.0)
        hand.enter("too short (share)", 0.1)
        assert rule_of(lab) == Histogram(least=5, head=0.1)
        assert "p10 to p99" in hand.message

    def test_it_begins_with_the_rule_in_force_and_refuses_nonsense_in_words(
        self, of: em.Lab | ControllerClient, lab: em.Lab
    ) -> None:
        lab.idle = em.PauseAfter(45.0, lock_after_s=50.0)
        hand = Hand(of.panel())
        assert hand.fields == {"pause after (s)": 45.0, "lock after (s); 0: never": 50.0}
        for nonsense in (math.nan, 0.0, 70.0):
            hand.enter("pause after (s)", nonsense)
            assert hand.complains
            assert re.search(r"positive number of seconds|at least pause after \(s\)", hand.message)
            assert rule_of(lab) == em.PauseAfter(45.0, lock_after_s=50.0)
            assert hand.fields["pause after (s)"] == 45.0

    def test_it_follows_what_others_choose_without_choosing(self, of: em.Lab | ControllerClient, lab: em.Lab) -> None:
        hand = Hand(of.panel())
        lab.idle = rule = em.PauseAfter(7.0, lock_after_s=8.0)
        hand.click("Refresh")
        assert hand.rule.value is em.PauseAfter
        assert list(hand.fields.values()) == [7.0, 8.0]
        assert rule_of(lab) is rule

    def test_a_lab_without_a_rule_begins_to_sweep_when_it_gets_one(self, tmp_path: Path) -> None:
        with em.Lab("memory", home=tmp_path, idle=None) as lab:
            sweeper = f"sweep-{lab.name}"
            hand = Hand(lab.panel())
            hand.click("Refresh")
            assert sweeper not in {thread.name for thread in threading.enumerate()}
            hand.choose(em.PauseAfter)
            assert sweeper in {thread.name for thread in threading.enumerate()}


class TestLive:
    def test_it_shows_what_others_do_and_draws_until_it_is_switched_off(
        self, of: em.Lab | ControllerClient, lab: em.Lab
    ) -> None:
        source = Here(of) if isinstance(of, em.Lab) else Elsewhere(of)
        hand = Hand(panel(source, every_s=0.02))
        assert (hand.figure.value, hand.figure.layout.display) == (b"", "none")
        hand.live.value = True
        assert wait_until(lambda: bytes(hand.figure.value).startswith(b"\x89PNG"), SOON_S)
        assert not hand.figure.layout.display
        assert "<th>p95 (ms)</th>" in hand._numbers.value
        before = hand.figure.value
        lab.controller.pause("eve")
        assert wait_until(lambda: hand.table["eve"] == "paused" and hand.figure.value != before, SOON_S)
        hand.live.value = False
        assert ended()
        lab.controller.wake("eve")
        assert hand.table["eve"] == "paused"

    def test_without_news_the_figure_is_not_drawn_again(self, lab: em.Lab) -> None:
        hand = quick(lab)
        hand.live.value = True
        assert wait_until(lambda: bool(hand.figure.value), SOON_S)
        drawn: list[object] = []
        hand.figure.observe(drawn.append, names="value")
        looks: list[object] = []
        hand._table.observe(looks.append, names="value")
        lab.recorder.add(Event("store", "ann", "memory", 0.0, 1.0))
        assert wait_until(lambda: bool(looks), SOON_S)
        hand.live.value = False
        assert ended()
        assert drawn == []

    def test_a_newer_panel_of_the_same_lab_ends_the_older_one(self, lab: em.Lab, tmp_path: Path) -> None:
        old, elsewhere = quick(lab), Hand(panel(Elsewhere(client_of(lab)), every_s=0.02))
        for hand in (old, elsewhere):
            hand.live.value = True
        new = quick(lab)
        assert not old.live.value
        assert old.message == "no longer live: there is a newer panel of this lab"
        new.live.value = True
        assert elsewhere.live.value
        assert wait_until(lambda: len(watchers()) == 2, SOON_S)
        for hand in (new, elsewhere):
            hand.live.value = False
        assert ended()

    def test_switched_on_and_off_many_times_one_at_most_looks(self, lab: em.Lab) -> None:
        hand = quick(lab)
        for _ in range(20):
            hand.live.value = True
            hand.live.value = False
        hand.live.value = True
        assert wait_until(lambda: len(watchers()) == 1, SOON_S)
        hand.live.value = False
        assert ended()

    def test_what_is_chosen_is_followed_whatever_the_live_panel_shows_at_that_moment(self) -> None:
        made: list[IdleRule] = []
        choice = Choice({"Never": em.Never, "PauseAfter": em.PauseAfter}, 3, lambda make: made.append(make()))
        choice.show(em.Never())

        def look(change: object) -> None:
            """Another thread shows the rule that is still in force: before the choice is told."""
            choice.kind.unobserve(look, names="index")
            with ThreadPoolExecutor(1) as live:
                live.submit(choice.show, em.Never()).result()

        choice.kind.observe(look, names="index")
        choice.kind.value = em.PauseAfter
        assert made == [em.PauseAfter(60.0)]
        choice.show(made[0])
        field = choice.box.children[1]
        field.value = 500.0
        assert made[-1] == em.PauseAfter(500.0)

    def test_clicks_do_their_work_while_it_is_live(self, lab: em.Lab) -> None:
        hand = quick(lab)
        hand.live.value = True
        for _ in range(5):
            hand.click("Select all")
            hand.click("Pause")
            assert (hand.message, hand.table) == ("3 of 3 clouds paused", dict.fromkeys(NAMES, "paused"))
            hand.choose(em.PauseAfter)
            hand.enter("pause after (s)", 500.0)
            assert rule_of(lab) == em.PauseAfter(500.0)
            hand.click("Wake")
            hand.choose(em.Never)
            assert rule_of(lab) == em.Never()
        hand.live.value = False
        assert ended()

    def test_it_ends_with_the_lab_and_says_so(self, tmp_path: Path) -> None:
        with em.Lab("memory", home=tmp_path) as lab:
            lab.controller.signup("ann")
            hand = quick(lab)
            hand.live.value = True
            assert wait_until(lambda: bool(hand.figure.value), SOON_S)
        assert ended()
        assert hand.live.value is False
        assert hand.complains
        assert "open" in hand.message or "closed" in hand.message

    def test_a_lab_that_was_opened_again_is_drawn_from_its_beginning(self, tmp_path: Path) -> None:
        lab = em.Lab("memory", home=tmp_path).start()
        for name in NAMES:
            lab.controller.signup(name)
        hand = quick(lab)
        hand.live.value = True
        assert wait_until(lambda: bool(hand.figure.value), SOON_S)
        lab.close()
        assert ended()
        with lab:
            lab.controller.signup("zoe")
            hand.click("Refresh")
            assert hand.table == {"zoe": "running"}
            assert re.search("<td>start</td>\\s*<td>memory</td>\\s*<td>4</td>", hand._numbers.value)

    def test_it_ends_with_the_box(self, lab: em.Lab) -> None:
        hand = quick(lab)
        hand.live.value = True
        assert wait_until(lambda: bool(hand.figure.value), SOON_S)
        hand.box.close()
        assert ended()

    def test_what_is_away_for_a_moment_is_shown_and_looked_for_again(self, lab: em.Lab) -> None:
        client = client_of(lab)
        hand = Hand(panel(Elsewhere(client), every_s=0.02))
        line = client._client._transport
        client._client._transport = Away()
        hand.live.value = True
        assert wait_until(lambda: hand.message == "nobody answers" and hand.complains, SOON_S)
        client._client._transport = line
        assert wait_until(lambda: hand.message == "it answers again" and not hand.complains, SOON_S)
        assert hand.live.value
        hand.live.value = False
        assert ended()

    def test_a_fault_of_ours_ends_it_and_is_shown(self, lab: em.Lab, caplog: pytest.LogCaptureFixture) -> None:
        source = Here(lab)
        hand = Hand(panel(source, every_s=0.02))
        lab.recorder.add(Event("pause", "ann", "memory", math.nan, math.nan))
        source.events = Faulty()  # type: ignore[method-assign]
        hand.live.value = True
        assert ended()
        assert (hand.message, hand.complains, hand.live.value) == ("no longer live: ZeroDivisionError", True, False)
        assert "a live panel failed" in caplog.text

    def test_an_interpreter_that_ends_does_not_wait_for_it(self, tmp_path: Path) -> None:
        program = (
            "import sys, emlab as em\nfrom emlab.panel import Here, panel\n"
            f"lab = em.Lab('memory', home={str(tmp_path)!r}).start()\nlab.controller.signup('ann')\n"
            "box = panel(Here(lab), every_s=0.001)\nbox.children[0].children[-1].value = True\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")


class Away:
    """A transport to nobody."""

    def send(self, *args: object, **named: object) -> tuple[int, bytes]:
        raise Unreachable("nobody answers")

    def close(self) -> None:
        """Nothing is held."""


class Faulty:
    """Events that fail as no outside thing does."""

    def __call__(self, after: int) -> tuple[list[Event], int]:
        raise ZeroDivisionError


class Shouting(em.Never):
    def __repr__(self) -> str:
        return "<script>shout()</script>"


def test_what_is_shown_is_text_and_never_markup(lab: em.Lab) -> None:
    hand = Hand(lab.panel())
    lab.idle = Shouting()
    hand.click("Refresh")
    assert "<script>" not in hand._message.value
    assert hand.message == "3 clouds on memory, idle rule <script>shout()</script>"


def test_two_hundred_clouds_have_their_rows_and_memory(tmp_path: Path) -> None:
    with em.Lab("memory", home=tmp_path, idle=None) as lab:
        for number in range(200):
            lab.controller.signup(f"user-{number}")
        hand = Hand(lab.panel())
        assert len(hand.table) == len(hand.users.options) == 200
        assert {row[5] for row in hand.cells} == {"0 MiB"}
        hand.click("Select all")
        hand.click("Pause")
        assert hand.message == "200 of 200 clouds paused"
        assert "overflow" in hand._table.layout.keys
        assert (hand._table.layout.overflow, hand.users.rows) == ("auto", 10)


def test_a_cell_says_what_is_not_known(lab: em.Lab) -> None:
    frame = lab.controller.clouds()[:1].frame()
    row = {"state": "unknown", "vault_open": None, "idle_s": math.nan, "user": "a&b"}
    said = table(frame.astype({"vault_open": object}).assign(**row), {frame["cloud"][0]: 12.0}, now=3723.0)
    assert re.findall("<td>(.*?)</td>", re.sub("</?span[^>]*>", "", said)) == [
        "a&amp;b",
        "unknown",
        "unknown",
        "–",
        "0",
        "–",
    ]
    assert "1 cloud at 01:02:03 UTC" in said
    for idle_s, words in (
        (0.4, "0 s"),
        (-3.0, "0 s"),
        (119.0, "119 s"),
        (121.0, "2 min"),
        (9000.0, "2 h"),
        (2e6, "23 d"),
    ):
        assert f"<td>{words} ago</td>" in table(frame.assign(idle_s=idle_s), {}, now=0.0)


def test_a_frame_with_stats_has_memory_and_cpu_and_nothing_where_the_engine_cannot_say(lab: em.Lab) -> None:
    frame = lab.controller.clouds().frame(stats=True)
    assert list(frame.columns) == [*lab.controller.clouds().frame().columns, "memory_mb", "cpu_s"]
    assert frame["memory_mb"].tolist() == frame["cpu_s"].tolist() == [0.0, 0.0, 0.0]
    clouds = lab.controller.clouds()
    lab.controller.forget("bob")
    frame = clouds.frame(stats=True)
    assert frame["memory_mb"].isna().tolist() == frame["cpu_s"].isna().tolist() == [False, True, False]
    assert clouds[:0].frame(stats=True).dtypes["memory_mb"] == "float64"
