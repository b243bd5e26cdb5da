"""Kept labs from a command line: which one is meant, and how the owner's token gets in and out.

A token is never an argument or an environment variable, which other programs can see: it is read from a file that only
this user can read, or typed, or piped in. Imports of emlab errors, lab, parts, usercloud.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from emlab import serving
from emlab.errors import ConfigError, EmlabError, LabInUse, MistypedCode, NotPermitted
from emlab.files import read_private, replacing
from emlab.key import Key, Passphrase, RecoveryCode, Secret
from emlab.lab import Lab
from emlab.parts import emlab_home, lab_names
from emlab.remote import ControllerClient
from emlab.service import Service
from emlab.usercloud import UserCloud
from emlab.wire.client import DEFAULT_TIMEOUT_S
from emlab.wire.transport import MemoryTransport

NEW_LAB = "home"  # of somebody who names none and has none
MAX_TOKEN_BYTES = 4096
_KEY = re.compile("[0-9a-f]{64}")


@contextmanager
def controller_of(
    name: str | None, token_file: Path | None = None, ca: Path | None = None
) -> Iterator[ControllerClient]:
    """The controller of a lab of this host, for its admin: the one that serves it now, or else of the kept lab.

    What is not asked of a kept lab does not happen: its clouds stay as they are when the block ends.

    Args:
        ca: to trust instead of the very certificate that the lab's service shows.
    Raises: ConfigError, LabInUse (by a process that does not serve it).
    """
    name = _meant(name)
    with served_here(name, token_file, ca) as client:
        if client is not None:
            yield client
            return
    with kept_lab(name, leave=True) as lab:
        # invitations are for when it is served, in whichever way
        service = Service(
            lab.controller, lab.registry, signup="invitation", follow=lambda rule: setattr(lab, "idle", rule)
        )
        token = lab.controller.tokens.issue("admin", serving.COMMAND_LINE)[0]
        transport = MemoryTransport(service.server())
        try:
            with ControllerClient("http://localhost", token, transport=transport) as client:
                yield client
        finally:
            lab.controller.tokens.drop("admin", serving.COMMAND_LINE)
            service.audit.flush()


@contextmanager
def served_here(
    name: str | None,
    token_file: Path | None = None,
    ca: Path | None = None,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Iterator[ControllerClient | None]:
    """The controller that serves a lab on this host now; None if nobody does. Arguments as of `controller_of`."""
    folder = emlab_home() / "labs" / _meant(name)
    served = serving.address(folder)
    if served is None:
        yield None
        return
    file = token_file or folder / serving.TOKEN_FILE
    fingerprint = served.fingerprint if ca is None else None
    with ControllerClient(served.url, read_token(file), ca=ca, fingerprint=fingerprint, timeout_s=timeout_s) as client:
        try:
            yield client
        except NotPermitted as exc:
            if _holds(client):
                raise
            raise ConfigError(
                f"the token in {file} opens nothing any more: name a file with another one with --token-file; "
                "if no admin's token is left, `emlab serve` makes one when it starts"
            ) from exc


def _holds(client: ControllerClient) -> bool:
    """Whether its token is anybody's, as far as that can be told."""
    try:
        client.me()
    except EmlabError as exc:
        return not isinstance(exc, NotPermitted)
    return True


def _meant(name: str | None, *, new: bool = False) -> str:
    """The lab of this name, or the only one. Raises ConfigError."""
    there = lab_names()
    if name is None and len(there) > 1:
        raise ConfigError(f"there are several labs: name one of {', '.join(there)} with --lab")
    name = name or next(iter(there), NEW_LAB)
    if name not in there and not new:
        raise ConfigError(f"there is no lab {name!r} that was kept; there are: {', '.join(there) or 'none'}")
    return name


@contextmanager
def kept_lab(name: str | None, *, new: bool = False, leave: bool = False) -> Iterator[Lab]:
    """The lab of this name, open; closed and still kept when the block ends. Without a name: the only one there is.

    Args:
        new: make it if there is none. leave: its clouds stay as they are then; else they are paused.
    Raises: ConfigError: there is no such lab, or it is not clear which is meant. LabInUse.
    """
    name = _meant(name, new=new)
    there = (emlab_home() / "labs" / name).is_dir()
    lab = Lab(name=name, vault="auto" if there else "plain", idle=None, keep=True)
    try:
        lab.start()
    except LabInUse as exc:
        if (served := serving.address(lab.path)) is None:
            raise
        raise LabInUse(
            f"the lab {name} is served at {served.url}: use em.ControllerClient there, or end `emlab serve` first"
        ) from exc
    try:
        yield lab
    finally:
        if leave:
            lab.leave()
        else:
            lab.close()


def owners_cloud(lab: Lab, user: str, token_file: Path | None) -> UserCloud:
    """The cloud of a user as its owner has it. Raises UnknownUser, ConfigError (no token)."""
    lab.controller.cloud(user)  # whoever is not there needs no token
    return lab.controller.cloud(user, token=read_token(token_file))


def new_cloud(lab: Lab, user: str, token_file: Path | None) -> UserCloud:
    """The user has signed up; the token is in the file, which is new (USER.token without a name).

    Raises: ConfigError: the user has a cloud, the file is there already, or the lab is encrypted (nobody would know
        the key); then there is no new cloud.
    """
    if lab.vault != "plain":
        raise ConfigError(f"the lab {lab.name} is encrypted: sign {user} up in Python, where the key can be kept")
    path = Path(f"{user}.token") if token_file is None else token_file
    _check_new(path)
    cloud = lab.controller.signup(user)
    try:
        cloud.save_token(path)
    except BaseException:
        cloud.delete()  # whose token nobody would ever know
        raise
    return cloud


def read_token(path: Path | None) -> str:
    """The token in a file that nobody else can read; without one, from the terminal unseen, or from what is piped in.

    Raises: ConfigError: there is none, or others can read it too.
    """
    token = _asked() if path is None else read_private(path, "token").decode("ascii", "replace").strip()
    if not (token and token.isascii() and token.isprintable()):
        raise ConfigError("there is no token: give --token-file FILE, or pipe it in")
    return token


def read_secret(user: str) -> Secret:
    """What opens the user's vault, typed unseen or piped in. Raises WrongKey, ConfigError."""
    text = _asked(f"key, passphrase or recovery code of {user}")
    if not text:
        raise ConfigError("there is no key: type it, or pipe it in")
    if _KEY.fullmatch(text):
        return Key(bytes.fromhex(text))
    try:
        return RecoveryCode(text)
    except MistypedCode:
        return Passphrase(text)


def _check_new(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{path} is there already: name another file for the new token")


@contextmanager
def fresh_token_file(path: Path) -> Iterator[BinaryIO]:
    """A new file for a token, which only this user can read. Raises ConfigError: it is there already."""
    _check_new(path)
    with replacing(path) as file:
        yield file


def _asked(what: str = "the owner's token") -> str:
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"{what} (not shown): ").strip()
    return sys.stdin.readline(MAX_TOKEN_BYTES).strip()
