"""Tokens of owners, providers and admins: only hashes are kept; each can be revoked, and expires if it is told to.

They are in the lab's registry, and in memory, so that looking one up costs next to nothing.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from emlab.arguments import check_ttl
from emlab.clock import SYSTEM_CLOCK, Clock, OnwardTime
from emlab.errors import ConfigError, NotPermitted, StoreError
from emlab.key import TokenKind, check_kind, new_token, token_hash
from emlab.registry import Registry
from emlab.wire.control import Token

MAX_EACH = 100  # tokens of one subject that hold, and as many that do not any more
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS tokens (id TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, "
    "hash TEXT UNIQUE NOT NULL, created_ts REAL NOT NULL, expires_ts REAL, revoked_ts REAL)",
    # invitations while they are being used up, without those that were revoked meanwhile
    "CREATE TABLE IF NOT EXISTS in_use (id TEXT PRIMARY KEY, user TEXT NOT NULL)",
    # after a crash: who has no cloud of then may sign up once more
    "UPDATE tokens SET revoked_ts = NULL WHERE id IN (SELECT in_use.id FROM in_use WHERE NOT EXISTS (SELECT 1 FROM "
    "clouds WHERE clouds.user = in_use.user AND clouds.intent != 'signup' AND clouds.created_ts >= tokens.revoked_ts))",
    "DELETE FROM in_use",
)


class Tokens:
    """The tokens of one lab. Thread-safe.

    Args:
        registry: open.
    """

    def __init__(self, registry: Registry, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._registry = registry
        self._clock, self._onward = clock, OnwardTime(clock)
        self._lock = threading.Lock()
        for statement in _SCHEMA:
            registry.run(statement)
        rows = registry.run(
            "SELECT hash, id, kind, subject, created_ts, expires_ts, revoked_ts FROM tokens ORDER BY rowid"
        )
        self._by_hash = {row["hash"]: msgspec.convert(dict(row), Token) for row in rows}

    def issue(
        self, kind: TokenKind, subject: str, *, ttl_s: float | None = None, text: str | None = None
    ) -> tuple[str, Token]:
        """A fresh token, which is shown only now, and what is kept of it.

        Args:
            ttl_s: until it expires, at most ten years; never without it.
            text: from `new_token`, by who has to keep it before it opens anything.
        Raises: ConfigError, also if the subject has MAX_EACH tokens that hold.
        """
        check_ttl(ttl_s)
        self._make_room(kind, subject)
        text, now = text or new_token(kind), self._onward.now()
        expires_ts = None if ttl_s is None else now + float(ttl_s)
        token = Token(id=secrets.token_hex(6), kind=kind, subject=subject, created_ts=now, expires_ts=expires_ts)
        values = (token.id, kind, subject, token_hash(text), now, expires_ts)
        with self._lock:
            self._registry.run("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, NULL)", *values)
            self._by_hash[token_hash(text)] = token
        return text, token

    def _make_room(self, kind: TokenKind, subject: str) -> None:
        """The subject may have one more; of those that hold no more, only the latest are kept."""
        now, mine = self._onward.now(), self.of(kind, subject)
        if sum(token.holds(now) for token in mine) >= MAX_EACH:
            raise ConfigError(f"{subject} has {MAX_EACH} tokens already: revoke some")
        ended = {token.id for token in [token for token in mine if not token.holds(now)][:-MAX_EACH]}
        with self._lock:
            for id_ in ended:
                self._registry.run("DELETE FROM tokens WHERE id = ?", id_)
            self._by_hash = {hash_: one for hash_, one in self._by_hash.items() if one.id not in ended}

    def who(self, text: str, kind: TokenKind | None = None) -> Token:
        """Whose token that is. Raises NotPermitted: nobody's, revoked, expired, or not of that kind."""
        if kind is not None:
            check_kind(text, kind)
        token = self._by_hash.get(token_hash(text))
        if token is None or not token.holds(self._onward.now()) or kind not in (None, token.kind):
            raise NotPermitted(f"wrong, expired or missing token{f' of kind {kind}' if kind else ''}")
        return token

    def of(self, kind: TokenKind | None = None, subject: str | None = None) -> list[Token]:
        """All tokens of that kind and subject, oldest first, the revoked and expired ones too."""
        with self._lock:
            found = list(self._by_hash.values())
        chosen = (one for one in found if kind in (None, one.kind) and subject in (None, one.subject))
        return sorted(chosen, key=lambda token: token.created_ts)

    def hashes(self, kind: TokenKind, subject: str) -> dict[str, float | None]:
        """When each of the subject's tokens expires that holds now, by hash."""
        now = self._onward.now()
        with self._lock:
            found = list(self._by_hash.items())
        mine = (kind, subject)
        return {hash_: one.expires_ts for hash_, one in found if (one.kind, one.subject) == mine and one.holds(now)}

    def revoke(self, id_: str) -> Token:
        """That token opens nothing any more. Idempotent. Raises ConfigError if there is none of that id."""
        with self._lock:
            found = self._known(id_)
            if found is None:
                raise ConfigError(f"there is no token {id_[:80]!r}")
            hash_, token = found
            self._registry.run("DELETE FROM in_use WHERE id = ?", id_)
            if token.revoked_ts is None:
                token = msgspec.structs.replace(token, revoked_ts=self._clock.now())
                self._registry.run("UPDATE tokens SET revoked_ts = ? WHERE id = ?", token.revoked_ts, id_)
                self._by_hash[hash_] = token
            return token

    @contextmanager
    def used_up(self, id_: str, user: str) -> Iterator[None]:
        """That token has been good for the block, in which the user gets a cloud, and is for nothing more.

        If the block fails, or this process dies before there is the cloud, it is as before, unless it was revoked.

        Raises: NotPermitted: it was used up before.
        """
        now = self._clock.now()
        if not self._turn(id_, now, lambda: self._use_up(id_, user, now)):
            raise NotPermitted("the invitation has been used")
        try:
            yield
        except BaseException:
            self._turn(id_, None, lambda: self._give_back(id_))
            raise
        with suppress(StoreError):  # whoever forgets the cloud, or opens the lab next, sees that there is one
            self._registry.run("DELETE FROM in_use WHERE id = ?", id_)

    def settle(self, user: str, created_ts: float) -> None:
        """By whatever invitation the user got the cloud that was made then: it has been good for that."""
        sql = "DELETE FROM in_use WHERE user = ? AND id IN (SELECT id FROM tokens WHERE revoked_ts <= ?)"
        self._registry.run(sql, user, created_ts)

    def _turn(self, id_: str, revoked_ts: float | None, change: Callable[[], bool]) -> bool:
        """Whether the change has come to pass, on disk and here."""
        with self._lock:
            done = self._registry.together(change)
            found = self._known(id_)
            if done and found is not None:
                self._by_hash[found[0]] = msgspec.structs.replace(found[1], revoked_ts=revoked_ts)
            return done

    def _use_up(self, id_: str, user: str, now: float) -> bool:
        sql = "UPDATE tokens SET revoked_ts = ? WHERE id = ? AND revoked_ts IS NULL RETURNING id"
        done = bool(self._registry.run(sql, now, id_))
        if done:
            self._registry.run("INSERT INTO in_use VALUES (?, ?)", id_, user)
        return done

    def _give_back(self, id_: str) -> bool:
        done = bool(self._registry.run("DELETE FROM in_use WHERE id = ? RETURNING id", id_))
        if done:
            self._registry.run("UPDATE tokens SET revoked_ts = NULL WHERE id = ?", id_)
        return done

    def _known(self, id_: str) -> tuple[str, Token] | None:
        return next(((hash_, one) for hash_, one in self._by_hash.items() if one.id == id_), None)

    def drop(self, kind: TokenKind, subject: str, *, but: str = "") -> None:
        """Nothing is kept of the subject's tokens but the one with that id, and no other opens anything. Idempotent."""
        with self._lock:
            self._registry.run("DELETE FROM tokens WHERE kind = ? AND subject = ? AND id != ?", kind, subject, but)
            self._by_hash = {
                hash_: one
                for hash_, one in self._by_hash.items()
                if (one.kind, one.subject) != (kind, subject) or one.id == but
            }
