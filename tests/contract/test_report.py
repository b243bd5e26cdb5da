"""The folder of a run: complete, readable, and written whole or not at all."""

from __future__ import annotations

import base64
import json
import platform
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from matplotlib.figure import Figure

from emlab import plots, report
from emlab.aggregate import Release
from emlab.errors import ConfigError
from emlab.queries.trip_histogram import TripHistogram
from emlab.query import cells
from emlab.record import Event, Recorder
from tests.contract.releases import COUNT

RELEASE = msgspec.structs.replace(COUNT, values=(1234,))
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """A page as a reader has it: its text, its images, and every address that it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.images: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        address = dict(attrs).get("src") or dict(attrs).get("href")
        if tag == "img" and address:
            self.images.append(address)
        elif address or tag in {"script", "link", "iframe"}:
            self.loads.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def frame(*errors: str) -> pd.DataFrame:
    recorder = Recorder()
    for seconds in (0.1, 0.2, 0.3):
        recorder.add(Event("wake", "ann", "docker", 0.0, seconds))
    for error in errors:
        recorder.add(Event("wake", "ann", "docker", 0.0, 9.0, ok=False, error=error))
    return recorder.frame()


def write(
    out_dir: Path,
    *,
    events: pd.DataFrame | None = None,
    release: Release | None = RELEASE,
    params: dict[str, object] | None = None,
    figures: dict[str, Figure] | None = None,
    title: str = "A run",
) -> list[Path]:
    return report.write(
        out_dir,
        frame=frame() if events is None else events,
        release=release,
        params={"n_users": 60} if params is None else params,
        environment={"engine": "docker"},
        figures={} if figures is None else figures,
        title=title,
    )


def page(out_dir: Path) -> Page:
    return Page((out_dir / "report.html").read_text(encoding="utf-8"))


def test_the_folder_holds_the_whole_run(tmp_path: Path) -> None:
    out_dir = tmp_path / "results" / "run-1"
    figures = {"latency": plots.latency(frame()), "release": plots.release(RELEASE)}
    written = write(out_dir, figures=figures)
    assert {path.name for path in written} == {path.name for path in out_dir.iterdir()}
    assert {path.name for path in written} == {
        "release.json",
        "events.parquet",
        "params.json",
        "environment.json",
        "latency.png",
        "release.png",
        "report.html",
    }


def test_the_release_comes_back_from_its_file(tmp_path: Path) -> None:
    write(tmp_path)
    assert Release.load(tmp_path / "release.json") == RELEASE


def test_a_release_of_several_numbers_is_a_table(tmp_path: Path) -> None:
    query = TripHistogram("mode", 0.0, 2e9, 3)
    values = tuple(range(100, 100 + cells(query)))
    write(tmp_path, release=msgspec.structs.replace(RELEASE, query=query, values=values))
    text = page(tmp_path).text
    assert f"{len(values)} numbers" in text
    assert "part label unit value low high" in text
    assert f" {values[0]} " in text


def test_the_events_come_back_with_their_types(tmp_path: Path) -> None:
    for events in (frame("CloudGone: away"), Recorder().frame()):
        write(tmp_path, events=events)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "events.parquet"), events)


def test_the_page_tells_the_release_the_times_and_the_failures(tmp_path: Path) -> None:
    write(tmp_path, events=frame("CloudGone: away", "CloudGone: away", "Unreachable"))
    low, high = RELEASE.interval(0.05)
    text = page(tmp_path).text
    assert f"1,234 users , 95 % interval {low:,} to {high:,}" in text
    assert "CountUsers at epsilon 0.5, noise scale 2.00 users." in text
    assert "60 clouds were asked: 51 answered, 6 refused, 3 failed. Trust: simulated." in text
    assert "span engine n failed p50 (ms) p95 (ms) max (ms) wake docker 6 3 200 290 300" in text
    assert "n span engine error 2 wake docker CloudGone: away 1 wake docker Unreachable" in text
    assert "n_users 60" in text
    assert "Environment engine docker" in text


def test_the_page_loads_nothing_and_its_tags_are_closed(tmp_path: Path) -> None:
    write(tmp_path, figures={"latency": plots.latency(frame())}, events=frame("Unreachable"))
    shown = page(tmp_path)
    assert shown.open == []
    assert shown.loads == []
    assert "url(" not in (tmp_path / "report.html").read_text()
    (image,) = shown.images
    head, _, data = image.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data, validate=True) == (tmp_path / "latency.png").read_bytes()


def test_no_markup_gets_in(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    write(tmp_path, events=frame(bad), params={bad: bad}, title=bad)
    shown = page(tmp_path)
    assert shown.loads == []
    assert shown.text.count(bad) == 5  # title, heading, error, parameter, value


def test_a_run_without_a_release_says_so(tmp_path: Path) -> None:
    write(tmp_path, release=None, events=Recorder().frame(), params={})
    assert not (tmp_path / "release.json").exists()
    text = page(tmp_path).text
    assert "Nothing was released." in text
    assert "0 events" in text
    assert "Parameters" not in text
    assert "Failures" not in text


def test_many_kinds_of_failures_are_counted_where_the_page_ends(tmp_path: Path) -> None:
    write(tmp_path, events=frame(*(f"CloudGone: {i}" for i in range(25))))
    text = page(tmp_path).text
    assert text.count("CloudGone") == 20
    assert "and 5 more kinds, in events.parquet." in text


def test_the_same_run_is_written_byte_for_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, figures={"latency": plots.latency(frame())})
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_who_reads_while_a_run_is_written_again_sees_all_of_the_old_file(tmp_path: Path) -> None:
    write(tmp_path, title="The first")
    before = (tmp_path / "report.html").read_bytes()
    with (tmp_path / "report.html").open("rb") as reader:
        write(tmp_path, title="The second")
        assert reader.read() == before
    assert "The second" in page(tmp_path).text


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, title="The first")
    (tmp_path / "params.json").unlink()
    (tmp_path / "params.json").mkdir()  # a folder in its place cannot be replaced by a file
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(IsADirectoryError):
        write(tmp_path, title="The second")
    assert (tmp_path / "report.html").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", ".hidden", "x.png", "-x", "x\n"])
def test_a_figure_cannot_be_written_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a figure is named"):
        write(tmp_path / "out", figures={name: Figure()})
    assert not (tmp_path / "out").exists()


def test_values_that_are_no_json_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="params of a run must be plain values"):
        write(tmp_path / "out", params={"x": object()})
    assert not (tmp_path / "out").exists()


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    write(tmp_path, params={"x": float("nan"), "y": float("inf")})
    assert json.loads((tmp_path / "params.json").read_text()) == {"x": None, "y": None}


def test_an_environment_names_versions_and_no_host() -> None:
    found = report.environment("docker", "plain", image="sha256:ab")
    assert {"engine": "docker", "vault": "plain", "image": "sha256:ab"}.items() <= found.items()
    assert {"emlab", "python", "pandas", "pymongo", "docker_sdk", "kernel", "machine", "cpu_count"} <= set(found)
    assert found["python"] == platform.python_version()
    assert found["pandas"] == pd.__version__
    told = json.dumps(found)
    for secret in (platform.node(), str(Path.cwd()), str(Path.home())):
        assert f'"{secret}"' not in told


def test_an_environment_says_what_is_not_installed() -> None:
    assert report.installed("no-such-package-of-emlab") == "not installed"
