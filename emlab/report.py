"""A run's folder: its release, its events, what it was told, where it ran, its figures, and one page to read.

Nothing here computes: all of it can be made again from events.parquet and the two JSON files. Imports pandas,
matplotlib and jinja2 when something is written.
"""

from __future__ import annotations

import base64
import io
import os
import platform
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from emlab.errors import ConfigError
from emlab.plots import noise_of
from emlab.record import html_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from emlab.aggregate import Release

PACKAGES = {"emlab": "emlab", "pandas": "pandas", "pymongo": "pymongo", "docker_sdk": "docker", "opendp": "opendp"}
FIGURE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
ALPHA = 0.05  # of the interval on the page
MOST_FAILURES = 20  # kinds of failures on the page

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin-bottom: 0.5rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 0.4rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 1.2rem 0.2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eee; }
.times th:nth-child(n+3), .times td:nth-child(n+3) { text-align: right; }
td { overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
.release { font-size: 1.3rem; margin: 0.8rem 0 0; }
.note { color: #666; font-size: 0.9rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% if release %}
{% if interval %}
<p class="release"><b>{{ "{:,}".format(release.value) }} {{ release.unit }}</b>,
{{ interval_percent }} % interval {{ "{:,}".format(interval[0]) }} to {{ "{:,}".format(interval[1]) }}</p>
{% else %}
<p class="release"><b>{{ release.values | length }} numbers</b>,
all within their intervals with {{ interval_percent }} %</p>
<div class="times">{{ cells }}</div>
{% endif %}
<p>{{ release.kind }} at epsilon {{ "%g" % release.epsilon }},
{{ noise }}.
{{ release.asked }} clouds were asked: {{ release.answered }} answered, {{ release.refused }} refused,
{{ release.failed }} failed. Trust: {{ release.trust }}.</p>
<p class="note">The interval is about the sum over the clouds that answered; it says nothing of the others.</p>
{% else %}
<p class="release">{{ lead }}</p>
{% endif %}
{% for name, image in images.items() %}
<figure><img alt="{{ name }}" src="data:image/png;base64,{{ image }}"></figure>
{% endfor %}
<h2>Latency</h2>
<div class="times">{{ times }}</div>
<p class="note">{{ events }} events. Milliseconds are those of the events that succeeded.</p>
{% if failures %}
<h2>Failures</h2>
<table>
<tr><th>n</th><th>span</th><th>engine</th><th>error</th></tr>
{% for failure in failures[:most_failures] %}
<tr>{% for cell in failure %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% if failures|length > most_failures %}
<p class="note">and {{ failures|length - most_failures }} more kinds, in events.parquet.</p>
{% endif %}
{% endif %}
{% for heading, values in (("Parameters", params), ("Environment", environment)) if values %}
<h2>{{ heading }}</h2>
<table>
{% for name, value in values.items() %}
<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table>
{% endfor %}
</body>
</html>
"""


def environment(engine: str, vault: str, **more: object) -> dict[str, object]:
    """Where a run took place, as far as its figures depend on it; no name of the host, of a person or of a path.

    Args:
        engine, vault: names, as a lab was given them.
        more: what only the caller knows, such as an image digest or a seed.
    """
    return {
        "engine": engine,
        "vault": vault,
        "python": platform.python_version(),
        **{name: installed(package) for name, package in PACKAGES.items()},
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_count": os.cpu_count() or 0,
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        **more,
    }


def installed(package: str) -> str:
    """The version of a package, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def check_folder(out_dir: Path) -> None:
    """Returns if results can be written there; the folder is made. Raises ConfigError."""
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out_dir):
            pass
    except OSError as exc:
        raise ConfigError(f"results cannot be written to {out_dir}: {exc.strerror}") from exc


def write(
    out_dir: Path,
    *,
    frame: pd.DataFrame,
    release: Release | None,
    params: Mapping[str, object],
    environment: Mapping[str, object],
    figures: Mapping[str, Figure],
    title: str,
    lead: str = "",
) -> list[Path]:
    """The folder holds all of the run, and report.html shows it without any other file.

    Everything is made before the first file is written, and each file is written whole or not at all.

    Args:
        out_dir: made if it is not there; files of an earlier run with the same names are replaced.
        frame: events, as `Recorder.frame()` gives them.
        release: None if nothing was released; then there is no release.json.
        params, environment: plain values.
        figures: by name; NAME.png is lower case letters, digits, - and _.
        lead: the sentence at the top of the page, where nothing was released.
    Returns:
        the files, in the order in which they were written.
    Raises:
        ConfigError: a figure's name is no file name, or a value cannot be written as JSON.
    """
    images = {name: _png(name, figure) for name, figure in figures.items()}
    files = {
        "params.json": _json("params", params),
        "environment.json": _json("environment", environment),
        "events.parquet": _parquet(frame),
        **{f"{name}.png": image for name, image in images.items()},
    }
    if release is not None:
        files["release.json"] = _json("release", release)
    page = _page(
        title, frame, lead=lead or "Nothing was released.", release=release, tables=(params, environment), images=images
    )
    files["report.html"] = page.encode()
    check_folder(out_dir)
    return [_replace(out_dir / name, content) for name, content in files.items()]


def _json(what: str, values: object) -> bytes:
    """The values as indented JSON; NaN and infinity become null."""
    try:
        return msgspec.json.format(msgspec.json.encode(values), indent=2) + b"\n"
    except TypeError as exc:
        raise ConfigError(f"{what} of a run must be plain values: {exc}") from exc


def _parquet(frame: pd.DataFrame) -> bytes:
    """The events as a parquet file, which keeps their types."""
    file = io.BytesIO()
    frame.to_parquet(file, engine="pyarrow", index=False)
    return file.getvalue()


def _png(name: str, figure: Figure) -> bytes:
    """The figure as an image; the same figure gives the same bytes. Raises ConfigError for a bad name."""
    if not FIGURE_NAME.fullmatch(name):
        raise ConfigError(f"a figure is named by lower case letters, digits, - and _, not {name!r}")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _failures(frame: pd.DataFrame) -> list[tuple[int, str, str, str]]:
    """How often each (span, engine, error) was met, the most frequent first."""
    failed = frame[~frame["ok"]]
    counts = Counter(zip(failed["span"], failed["engine"], failed["error"], strict=True))
    return [(n, *which) for which, n in counts.most_common()]


def _page(
    title: str,
    frame: pd.DataFrame,
    *,
    lead: str,
    release: Release | None,
    tables: tuple[Mapping[str, object], Mapping[str, object]],
    images: Mapping[str, bytes],
) -> str:
    """The page, with every figure inside it."""
    import jinja2
    from markupsafe import Markup

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(PAGE)
    return template.render(
        title=title,
        lead=lead,
        release=release,
        interval=release.interval(ALPHA) if release and release.is_number else None,
        cells=Markup(release.frame(ALPHA).to_html(index=False, border=0, max_rows=60)) if release else "",  # noqa: S704
        noise=noise_of(release) if release else None,
        interval_percent=f"{100 * (1 - ALPHA):g}",
        images={name: base64.b64encode(image).decode() for name, image in images.items()},
        times=Markup(html_table(frame)),  # noqa: S704  # pandas has escaped the cells
        events=len(frame),
        failures=_failures(frame),
        most_failures=MOST_FAILURES,
        params=tables[0],
        environment=tables[1],
    )


def _replace(path: Path, content: bytes) -> Path:
    """The file holds this content; who reads it meanwhile sees all of the old one or all of the new one."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return path
