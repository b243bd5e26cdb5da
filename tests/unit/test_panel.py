"""The control panel: its buttons are clicked, its table and its message read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from ipywidgets import HTML, BoundedFloatText, Button, SelectMultiple, VBox, Widget

import emlab as em
from emlab.clock import wait_until
from emlab.clouds import STATE_COLOURS
from emlab.panel import panel

NAMES = ("ann", "bob", "eve")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[em.Lab]:
    with em.Lab("memory", home=tmp_path, idle=em.Never()) as lab:
        for name in NAMES:
            lab.controller.signup(name)
        yield lab


class Hand:
    """What a person at the panel sees and does."""

    def __init__(self, box: Widget) -> None:
        assert isinstance(box, VBox)
        found = list(_all(box))
        self._buttons = {widget.description: widget for widget in found if isinstance(widget, Button)}
        (self.users,) = (widget for widget in found if isinstance(widget, SelectMultiple))
        (self.idle_s,) = (widget for widget in found if isinstance(widget, BoundedFloatText))
        self._table, self._message = (widget for widget in found if isinstance(widget, HTML))

    def click(self, name: str) -> None:
        self._buttons[name].click()

    @property
    def buttons(self) -> set[str]:
        return set(self._buttons)

    @property
    def table(self) -> dict[str, str]:
        """The state of each user, as the table says; each state must have its colour."""
        rows = re.findall(r"<td>([^<]+)</td><td><code>.*?</td><td style=\"color:(#\w+)\">(\w+)</td>", self._table.value)
        assert all(STATE_COLOURS[em.CloudState(state)] == colour for _, colour, state in rows)
        return {user: state for user, _, state in rows}

    @property
    def message(self) -> str:
        return unescape(re.sub("<[^>]+>", "", self._message.value))

    @property
    def complains(self) -> bool:
        return "#b00020" in self._message.value


def _all(widget: Widget) -> Iterator[Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all(child)


def states(lab: em.Lab) -> dict[str, str]:
    return {cloud.user: cloud.state.value for cloud in lab.controller.clouds()}


def test_the_panel_shows_every_cloud_and_has_its_controls(lab: em.Lab) -> None:
    hand = Hand(panel(lab))
    assert hand.table == dict.fromkeys(NAMES, "running")
    assert hand.buttons == {"Select all", "Pause", "Wake", "Refresh"}
    assert hand.users.options == NAMES
    assert hand.message == "3 clouds on memory, idle rule Never()"


def test_one_several_and_all_clouds_are_paused_and_woken(lab: em.Lab) -> None:
    hand = Hand(lab.panel())
    hand.users.value = ("bob",)
    hand.click("Pause")
    assert hand.table == states(lab) == {"ann": "running", "bob": "paused", "eve": "running"}
    assert hand.message == "1 of 1 selected clouds paused"
    hand.users.value = ("ann", "bob")
    hand.click("Pause")
    assert hand.table == states(lab) == {"ann": "paused", "bob": "paused", "eve": "running"}
    hand.click("Select all")
    assert (hand.users.value, hand.message) == (NAMES, "3 clouds selected")
    hand.click("Wake")
    assert hand.table == states(lab) == dict.fromkeys(NAMES, "running")
    assert hand.message == "3 of 3 selected clouds woken"
    assert not hand.complains


def test_with_nothing_selected_nothing_is_done_and_it_says_so(lab: em.Lab) -> None:
    hand = Hand(panel(lab))
    hand.click("Pause")
    assert states(lab) == dict.fromkeys(NAMES, "running")
    assert hand.message == "0 of 0 selected clouds paused"
    assert hand.complains


def test_a_leased_cloud_is_named_and_the_others_are_paused(lab: em.Lab) -> None:
    hand = Hand(panel(lab))
    hand.click("Select all")
    with lab.controller.lease("bob", 60.0):
        hand.click("Pause")
    assert hand.table == states(lab) == {"ann": "paused", "bob": "running", "eve": "paused"}
    assert hand.message.startswith("2 of 3 selected clouds paused; bob: the cloud of bob is in use")
    assert hand.complains
    hand.click("Wake")
    assert not hand.complains


def test_refresh_shows_what_others_did_and_keeps_the_selection(lab: em.Lab) -> None:
    hand = Hand(panel(lab))
    hand.users.value = ("ann", "eve")
    lab.controller.pause("ann")
    lab.controller.forget("eve")
    lab.controller.signup("zoe")
    assert hand.table == dict.fromkeys(NAMES, "running")
    hand.click("Refresh")
    assert hand.table == {"ann": "paused", "bob": "running", "zoe": "running"}
    assert (hand.users.options, hand.users.value) == (("ann", "bob", "zoe"), ("ann",))


def test_a_cloud_that_is_gone_is_said_in_words(lab: em.Lab) -> None:
    hand = Hand(panel(lab))
    hand.users.value = ("ann", "eve")
    lab.controller.forget("eve")
    hand.click("Pause")
    assert hand.message.startswith("1 of 2 selected clouds paused; eve: nobody called 'eve' has a cloud")
    assert hand.table == {"ann": "paused", "bob": "running"}


def test_the_idle_timeout_changes_the_labs_rule_and_clouds_are_paused_by_it(lab: em.Lab) -> None:
    hand = Hand(panel(lab))
    assert hand.idle_s.value == 0
    hand.idle_s.value = 30.0
    assert lab.idle == lab.controller.idle == em.PauseAfter(30.0)
    assert hand.message == "idle rule PauseAfter(30 s)"
    hand.idle_s.value = 0.0
    assert isinstance(lab.idle, em.Never)
    hand.idle_s.value = 1e9
    assert lab.idle == em.PauseAfter(86_400.0)


def test_a_lab_without_a_rule_begins_to_sweep_when_it_gets_one(tmp_path: Path) -> None:
    with em.Lab("memory", home=tmp_path, idle=None) as lab:
        lab.controller.signup("ann")
        hand = Hand(panel(lab))
        hand.idle_s.value = 0.01
        assert wait_until(lambda: states(lab) == {"ann": "paused"}, 10.0)
        hand.click("Refresh")
        assert hand.table == {"ann": "paused"}


def test_the_idle_field_begins_with_the_rule_in_force_and_refuses_nonsense_in_words(tmp_path: Path) -> None:
    with em.Lab("memory", home=tmp_path, idle=em.PauseAfter(45.0)) as lab:
        hand = Hand(panel(lab))
        assert hand.idle_s.value == 45.0
        hand.idle_s.value = float("nan")
        assert hand.complains
        assert "positive number of seconds" in hand.message
        assert lab.idle == em.PauseAfter(45.0)


def test_a_panel_of_a_closed_lab_says_so_at_each_click_and_never_raises(tmp_path: Path) -> None:
    lab = em.Lab("memory", home=tmp_path).start()
    lab.controller.signup("ann")
    hand = Hand(panel(lab))
    hand.click("Select all")
    lab.close()
    for button in sorted(hand.buttons):
        hand.click("Pause")
        hand.click(button)
        assert hand.complains
        assert "is not open" in hand.message
    hand.idle_s.value = 5.0
    assert "is not open" in hand.message
    with pytest.raises(em.ConfigError, match="not open"):
        panel(lab)


class Shouting(em.Never):
    def __repr__(self) -> str:
        return "<script>shout()</script>"


def test_what_is_shown_is_text_and_never_markup(lab: em.Lab) -> None:
    hand = Hand(panel(lab))
    lab.idle = Shouting()
    hand.click("Refresh")
    assert "<script>" not in hand._message.value
    assert hand.message == "3 clouds on memory, idle rule <script>shout()</script>"


def test_a_frame_with_stats_has_memory_and_cpu_and_nothing_where_the_engine_cannot_say(lab: em.Lab) -> None:
    frame = lab.controller.clouds().frame(stats=True)
    assert list(frame.columns) == [*lab.controller.clouds().frame().columns, "memory_mb", "cpu_s"]
    assert frame["memory_mb"].tolist() == frame["cpu_s"].tolist() == [0.0, 0.0, 0.0]
    clouds = lab.controller.clouds()
    lab.controller.forget("bob")
    frame = clouds.frame(stats=True)
    assert frame["memory_mb"].isna().tolist() == frame["cpu_s"].isna().tolist() == [False, True, False]
    assert clouds[:0].frame(stats=True).dtypes["memory_mb"] == "float64"
