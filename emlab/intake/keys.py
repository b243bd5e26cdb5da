"""Which entries intake reads and writes. Imports nothing."""

from __future__ import annotations

INPUT_KEYS = (
    "manual/mode_confirm",
    "manual/purpose_confirm",
    "manual/replaced_mode",
    "manual/trip_user_input",
    "manual/place_user_input",
    "manual/trip_addition_input",
    "manual/place_addition_input",
)
"""What people say of their trips and places."""

KEYS = (
    "segmentation/raw_trip",
    "segmentation/raw_place",
    "segmentation/raw_section",
    "segmentation/raw_stop",
    "segmentation/raw_untracked",
    "analysis/smoothing",
    "analysis/cleaned_trip",
    "analysis/cleaned_place",
    "analysis/cleaned_section",
    "analysis/cleaned_stop",
    "analysis/cleaned_untracked",
    "analysis/recreated_location",
    "inference/prediction",
    "analysis/inferred_section",
    "inference/labels",
    "analysis/inferred_labels",
    "analysis/inferred_trip",
    "analysis/expected_trip",
    "analysis/confirmed_trip",
    "analysis/confirmed_place",
    "analysis/confirmed_untracked",
    "analysis/composite_trip",
)
"""What intake makes of them: all keys of its results."""
