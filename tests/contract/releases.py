"""A release as figures and reports show it."""

from __future__ import annotations

from emlab.aggregate import Release

COUNT = Release(
    value=42,
    unit="people",
    epsilon=0.5,
    noise_scale=2.0,
    trust="simulated",
    asked=60,
    answered=51,
    refused=6,
    failed=3,
    reasons={"PolicyRefused": 6, "Unreachable": 3},
    query="CountUsers",
    ask_id="00",
    min_users=5,
)
