"""A release as figures and reports show it."""

from __future__ import annotations

from emlab.aggregate import Release
from emlab.loss import Loss
from emlab.noise import Laplace
from emlab.queries.count_users import CountUsers

COUNT = Release(
    query=CountUsers(None, 0.0, 2e9),
    values=(42,),
    noise=(Laplace(2.0),),
    model="central",
    loss=Loss(epsilon_micro=500_000),
    trust="simulated",
    asked=60,
    answered=51,
    refused=6,
    failed=3,
    reasons={"PolicyRefused": 6, "Unreachable": 3},
    ask_id="00",
    min_users=5,
)
