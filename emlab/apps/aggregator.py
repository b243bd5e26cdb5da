"""The aggregator as a program of its own: its keys and releases in its folder, its routes behind HTTP.

Run as `emlab aggregator --config FILE`, or `python -m emlab.apps.aggregator --config FILE` where there is no command
line, as in a container. SIGTERM ends it in order (exit 0).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from emlab.aggregator import Aggregator
from emlab.apps import listening, program
from emlab.errors import ConfigError, NotPermitted, TooMany
from emlab.files import read_private
from emlab.limits import Limit
from emlab.releases import Releases
from emlab.remote_aggregator import RemoteDirectory
from emlab.wire.address import check_url
from emlab.wire.aggregation import AGGREGATOR_ROUTES, About, Releasing
from emlab.wire.client import CloudClient
from emlab.wire.control import CONTROL_BY_NAME
from emlab.wire.openapi import describe
from emlab.wire.serve import Entrance, Server
from emlab.wire.transport import HttpTransport

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("emlab.apps.aggregator")
ADDRESS_FILE = "aggregator.json"
MAX_CONNECTIONS = 256
PER_S, AT_ONCE = 20.0, 200  # requests of one address
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an aggregator's TOML file says. Paths are relative to that file.

    Attributes:
        operator: who runs it, for its releases and receipts: a name that providers and owners know.
        folder: of its keys and releases, made if need be.
        controller: URL of the lab's controller; ca: the certificate to trust for it, if the system has none.
        token_file: of the token of kind "aggregator" that the controller's admin made for it; mode 0600.
        host, port, names, tls, certificate, key: where it listens; as in [serve] of a lab's file.
    """

    operator: Text
    folder: Text
    controller: Text
    token_file: Text
    ca: str = ""
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 4431
    names: list[str] = msgspec.field(default_factory=list)
    tls: bool = True
    certificate: str = ""
    key: str = ""


def load(path: Path) -> Settings:
    """The settings in this file, every path absolute. Raises ConfigError."""
    try:
        chosen = msgspec.convert(tomllib.loads(path.read_text()), Settings)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as exc:
        raise ConfigError(f"{path} cannot be read as an aggregator's settings: {exc}") from exc
    here = path.absolute().parent
    paths = {name: getattr(chosen, name) for name in ("folder", "token_file", "ca", "certificate", "key")}
    return msgspec.structs.replace(chosen, **{name: str(here / one) if one else "" for name, one in paths.items()})


class Desk:
    """What outsiders may have of an aggregator: a method for each of its routes. Thread-safe."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator

    def server(self) -> Server:
        """An App that answers the routes."""
        entrance = Entrance(AGGREGATOR_ROUTES, self._admit)
        return Server([entrance], lambda: describe("emlab aggregator", AGGREGATOR_ROUTES), whose="aggregator")

    def _admit(self, route: object, headers: Mapping[str, str]) -> Desk:
        """Whoever has a provider's signature of an ask. Raises NotPermitted: a token has no business here."""
        if "authorization" in headers:
            raise NotPermitted("an aggregator takes no tokens: a provider signs its ask")
        return self

    def about(self) -> About:
        """Its keys, and who sees clear answers."""
        return About(
            public=self._aggregator.public,
            signing=self._aggregator.signing_public,
            trust=self._aggregator.trust,
        )

    def release(self, request: Releasing) -> object:
        """The release of one ask."""
        release = self._aggregator.release(request.ask, request.outcomes, signature=request.signature)
        log.info("released ask %s: %d of %d clouds answered", request.ask.id[:12], release.answered, release.asked)
        return release


class Limited:
    """An application of which each address may ask so often."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limit = Limit("requests", per_s=PER_S, burst=AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or a refusal that says when to ask again."""
        from emlab.apps.refusals import too_many

        app = self._app
        try:
            self._limit.take(scope["client"][0] if scope.get("client") else "", time.monotonic())
        except TooMany as exc:
            app = too_many(exc)
        await app(scope, receive, send)


def serve(chosen: Settings, say: Callable[[str], None]) -> None:
    """The aggregator answers until SIGTERM or Ctrl-C. Raises ConfigError: also, the port is taken."""
    from emlab.apps import http

    listening.check(chosen)
    token = _token(Path(chosen.token_file))
    transport = HttpTransport(check_url(chosen.controller), ca=Path(chosen.ca) if chosen.ca else None)
    client, releases = CloudClient(transport, CONTROL_BY_NAME), Releases(Path(chosen.folder))
    with listening.listening(chosen) as listener, contextlib.closing(client), releases:
        url = listening.url(chosen, listener)
        certificate = listening.certificate(Path(chosen.folder) / "tls", chosen)
        aggregator = Aggregator(
            releases.sealing, signing=releases.signing, directory=RemoteDirectory(client, token, releases)
        )
        aggregator.trust = f"the aggregator of {chosen.operator} at {url}, which signs with {aggregator.signing_public}"
        name = f"the aggregator of {chosen.operator}"
        with listening.announced(Path(chosen.folder) / ADDRESS_FILE, name, chosen, listener, certificate, say):
            say(f"policies pin its key {aggregator.public}")
            app = Limited(http.asgi(Desk(aggregator).server()))
            listening.run(listening.server(app, certificate, limit_concurrency=MAX_CONNECTIONS), listener)


def _token(path: Path) -> str:
    """The token in a file that nobody else can read. Raises ConfigError."""
    token = read_private(path, "token").decode("ascii", "replace").strip()
    if not (token and token.isascii() and token.isprintable()):
        raise ConfigError(f"there is no token in {path}: an admin makes one with `emlab token issue aggregator NAME`")
    return token


def main(argv: list[str] | None = None) -> int:
    """Serve until told to end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="emlab.apps.aggregator", description="Adds noise to sums over user clouds.")
    parser.add_argument("--config", type=Path, required=True, help="a TOML file such as conf/aggregator.toml")
    where = parser.parse_args(argv)
    return program.run(lambda: _serve_file(where.config))


def _serve_file(path: Path) -> int:
    # uvicorn ends in order on SIGTERM and then raises it once more, for the handler that was there before
    with contextlib.suppress(SystemExit):
        serve(load(path), lambda text: log.info("%s", text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
