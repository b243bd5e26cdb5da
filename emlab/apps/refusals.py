"""Answers that refuse something: problem documents, with the headers that say when to ask again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.responses import Response

from emlab.errors import TooMany
from emlab.wire import problem
from emlab.wire.transport import Reply

RETRY_AFTER_S = 2.0


def refusal(reply: Reply, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document."""
    status, body = reply
    return Response(body, status, media_type="application/problem+json", headers=headers)


def too_many(error: TooMany, *, ends: bool = False) -> Response:
    """A refusal that says when to ask again. `ends`: the connection, too."""
    wait = {"retry-after": str(math.ceil(error.retry_after_s))}
    return refusal(problem.encode(error), wait | ({"connection": "close"} if ends else {}))


def refusing(reply: Reply) -> Response:
    """Answers so and then closes the connection, whatever is still to be read from it."""
    return refusal(reply, {"connection": "close", **when_again(reply[0])})


def when_again(status: int) -> dict[str, str]:
    """The header that says when what cannot be answered now may be asked again."""
    return {"retry-after": str(math.ceil(RETRY_AFTER_S))} if status == 503 else {}
