"""Aggregators elsewhere, for providers; and clouds' keys elsewhere, for an aggregator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from emlab.aggregate import LOCAL, Release
from emlab.ask import Ask, Id, Model, Outcome, Public
from emlab.errors import BadReply, NotPermitted
from emlab.query import Query
from emlab.releases import Releases
from emlab.wire.address import check_ca, check_url
from emlab.wire.aggregation import AGGREGATOR_BY_NAME, About, Releasing, room
from emlab.wire.client import CloudClient
from emlab.wire.control import AggregatorReport, DirectoryRequest
from emlab.wire.transport import HttpTransport, Transport

RELEASE_TIMEOUT_S = 120.0  # the 90,000 small answers that fit into a request are opened in 45 s


class LabAggregator:
    """The aggregator of a lab elsewhere, for a provider with that token."""

    def __init__(self, client: CloudClient, token: str) -> None:
        self._client = client
        self._token = token

    @property
    def public(self) -> str:
        """The public key to which answers are sealed."""
        return self._report().public

    def trusts(self, model: Model) -> str:
        """What its releases of that model say of who sees clear answers."""
        return LOCAL if model == "local" else self._report().trust

    def _report(self) -> AggregatorReport:
        return self._client.call("aggregator", AggregatorReport, token=self._token)

    def room(self, query: Query) -> int:
        """How many clouds' answers to it one release can be made of."""
        return room(query)

    def release(self, ask: Ask, outcomes: Sequence[Outcome], *, signature: bytes) -> Release:
        """The release of one ask."""
        request = Releasing(ask=ask, signature=signature, outcomes=list(outcomes))
        return self._client.call("release", Release, request, token=self._token, timeout_s=RELEASE_TIMEOUT_S)


class AggregatorClient:
    """An aggregator that runs as a process of its own (`emlab aggregator`). Thread-safe. A context manager.

    Args:
        url: such as https://aggregator.example:4431.
        public: the key that it must have, as policies pin it; whichever it says at first without it.
        ca: file with the certificate of the authority to trust, if that is not one of the system's.
        transport: to the aggregator, instead of HTTP to that address.
    Raises: ConfigError.
    """

    def __init__(
        self,
        url: str,
        *,
        public: str | None = None,
        ca: Path | str | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.address = check_url(url, "an aggregator")
        trusted = None if ca is None else Path(ca)
        if trusted is not None:
            check_ca(trusted)
        self._client = CloudClient(transport or HttpTransport(self.address, ca=trusted), AGGREGATOR_BY_NAME)
        self._pinned = public
        self._known: About | None = None
        self._lock = threading.Lock()

    @property
    def about(self) -> About:
        """Its keys, and who sees clear answers, as it said first. Raises Unreachable, NotPermitted: another key."""
        with self._lock:
            if self._known is None:
                found = self._client.call("about", About)
                if self._pinned not in (None, found.public):
                    raise NotPermitted(f"the aggregator at {self.address} has another key than the one that is trusted")
                self._known = found
            return self._known

    @property
    def public(self) -> str:
        """The public key to which answers are sealed, in hex; for policies."""
        return self.about.public

    @property
    def signing_public(self) -> str:
        """The public key with which it signs receipts, in hex."""
        return self.about.signing

    def trusts(self, model: Model) -> str:
        """What its releases of that model say of who sees clear answers."""
        return LOCAL if model == "local" else self.about.trust

    def room(self, query: Query) -> int:
        """How many clouds' answers to it one release can be made of."""
        return room(query)

    def release(self, ask: Ask, outcomes: Sequence[Outcome], *, signature: bytes) -> Release:
        """The release of one ask, whose receipt is the aggregator's; asked again, the same one.

        Raises: as `Aggregator.release`; Unreachable, BadReply (what came is not this ask's, or not signed by it).
        """
        request = Releasing(ask=ask, signature=signature, outcomes=list(outcomes))
        release = self._client.call("release", Release, request, timeout_s=RELEASE_TIMEOUT_S)
        if release.ask_id != ask.id or release.receipt is None or release.receipt.ask != ask.encode():
            raise BadReply(f"the aggregator at {self.address} answered with the release of another ask")
        verdict = release.receipt.verify(release, aggregators=[self.signing_public])
        if not verdict:
            raise BadReply(f"the release of the aggregator at {self.address} is not what it signed:\n{verdict}")
        return release

    def close(self) -> None:
        """Connections are closed. Idempotent."""
        self._client.close()

    def __enter__(self) -> AggregatorClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"AggregatorClient({self.address!r})"


class RemoteDirectory:
    """What an aggregator's process relies on: the controller's word for keys, and its own folder for releases.

    Args:
        client: of the controller. token: of kind aggregator, made there (`emlab token issue aggregator NAME`).
    """

    def __init__(self, client: CloudClient, token: str, releases: Releases) -> None:
        self._client = client
        self._token = token
        self._releases = releases

    def public_keys(self, provider: str) -> Mapping[str, str]:
        """The public key of each cloud, by what this provider knows it by. Raises NotPermitted, Unreachable."""
        request = DirectoryRequest(provider=provider)
        return self._client.call("directory", dict[Id, Public], request, token=self._token)

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """See `Releases.once`."""
        return self._releases.once(name, make)
