"""Errors on the wire: problem documents (RFC 9457) whose `kind` brings the same class out at the other end."""

from __future__ import annotations

import msgspec

from emlab import errors
from emlab.errors import BadEntry, BadReply, EmlabError


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document: `detail` is the error's message, `position` that of a bad entry."""

    kind: str
    status: int
    detail: str
    position: int | None = None


_KINDS = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EmlabError)
}


def encode(error: EmlabError, *, status: int | None = None) -> tuple[int, bytes]:
    """The HTTP status (its class's, unless another is given) and body for an error."""
    status = error.status if status is None else status
    position = error.position if isinstance(error, BadEntry) else None
    problem = Problem(kind=error.kind, status=status, detail=str(error), position=position)
    return status, msgspec.json.encode(problem)


def decode(status: int, body: bytes) -> EmlabError:
    """The error in a reply; BadReply if there is no known one in it."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return BadReply(f"status {status} with a body that is no problem document")
    kind = _KINDS.get(problem.kind)
    if kind is None:
        return BadReply(f"status {status} with an unknown kind of error")
    return BadEntry(problem.detail, problem.position) if kind is BadEntry else kind(problem.detail)


def anonymous(error: BaseException) -> str:
    """The class of a foreign exception and where it was raised; its text may hold an entry."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    line = f"{where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where else "?"
    return f"{type(error).__name__} in {line}"
