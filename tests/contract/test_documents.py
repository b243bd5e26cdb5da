"""The documents besides entries, as a real database holds them after a phone's calls, against DATA.md."""

from __future__ import annotations

import pytest

from emlab.entries import JsonObject
from emlab.simulate import Simulator
from emlab.store.archive import COLLECTIONS, ENTRIES
from emlab.wire.table import RunPipeline
from tests.contract.rest import Client, Rest, phone_entry
from tests.unit.test_data_dictionary import dictionary, unlisted


@pytest.fixture(scope="module")
def rest(shared_client: Client) -> Rest:
    """A cloud to which a phone has said everything that it can say."""
    made = Rest(shared_client)
    made.ask("/profile/create")
    made.ask("/profile/update", update_doc={"curr_platform": "android"})
    made.ask("/usercache/put", phone_to_server=[phone_entry(1), {**phone_entry(2), "data": {"ts": "never"}}])
    made.ask("/customlabel/insert", inserted_label={"key": "mode", "label": "e-bike"})
    made.store.put(list(Simulator(1, 1, 5).person(0).entries()))
    made.ask("/pipeline/get_range_ts")
    made.custodian.run_pipeline(RunPipeline())
    return made


def documents(rest: Rest, collection: str) -> list[JsonObject]:
    return list(rest.store.page(collection))


def test_the_profile_is_as_the_dictionary_says(rest: Rest) -> None:
    (profile,) = documents(rest, "Stage_Profiles")
    assert profile.pop("curr_platform") == "android"
    assert list(unlisted(dictionary()["Stage_Profiles"], profile)) == []
    assert profile.keys() == dictionary()["Stage_Profiles"].keys()


def test_the_pipelines_state_is_as_the_dictionary_says(rest: Rest) -> None:
    (state,) = documents(rest, "Stage_pipeline_state")
    assert list(unlisted(dictionary()["Stage_pipeline_state"], state)) == []


def test_whatever_a_cloud_holds_of_a_person_an_archive_takes(rest: Rest) -> None:
    held = rest.store.collections()
    assert held.keys() <= set(COLLECTIONS)
    assert held.keys() - set(ENTRIES) == {"Stage_Profiles", "Stage_pipeline_state"}
