"""The command line for a lab that is served here or elsewhere, or was kept: serve, status, pause, wake, lock ..."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias, TypeVar

import msgspec
import typer

from emlab.errors import ConfigError, EmlabError
from emlab.key import TokenKind
from emlab.remote import ControllerClient

app = typer.Typer(no_args_is_help=True)
token_app = typer.Typer(help="Tokens of owners, providers and admins.", no_args_is_help=True)
COMPLETE_S = 2.0  # until a shell that completes gets nothing


class Partly(NamedTuple):
    """Rows of what was done, and a sentence of what was not, with which the command fails."""

    rows: Sequence[msgspec.Struct]
    failure: str


Rows: TypeAlias = Sequence[msgspec.Struct] | Partly
Act = TypeVar("Act", bound=Callable[..., Rows])


def complete_lab(incomplete: str) -> list[str]:
    """Labs of this host that begin so."""
    from emlab.parts import lab_names

    return [name for name in lab_names() if name.startswith(incomplete)]


def _served(ctx: typer.Context, ask: Callable[[ControllerClient], list[str]], incomplete: str) -> list[str]:
    """What a lab that is served on this host says, for who types; nothing where it cannot be asked."""
    from emlab import kept

    if ctx.params.get("url") is not None:  # who waits for a completion is asked for no token
        return []
    try:
        with kept.served_here(ctx.params.get("lab"), timeout_s=COMPLETE_S) as client:
            return [name for name in ask(client) if name.startswith(incomplete)] if client is not None else []
    except EmlabError:  # a shell that completes has no place for an error: the command itself will say it
        return []


def _names(ctx: typer.Context, incomplete: str) -> list[str]:
    return _served(ctx, lambda client: [cloud.user for cloud in client.clouds()], incomplete)


def _token_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    return _served(ctx, lambda client: [token.id for token in client.tokens()], incomplete)


Users = Annotated[list[str] | None, typer.Argument(help="Whose clouds.", autocompletion=_names)]
User = Annotated[str, typer.Argument(help="Whose cloud.", autocompletion=_names)]
All = Annotated[bool, typer.Option("--all", help="Every cloud.")]


def _options(
    *,
    lab: Annotated[
        str | None,
        typer.Option("--lab", help="A lab of this host; the only one without it.", autocompletion=complete_lab),
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="A controller elsewhere, such as https://host:4430.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="Your token, in a file of mode 0600; of a lab here the admin's."),
    ] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="The certificate to trust.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """The options of every command that asks a controller."""


def _asks(group: typer.Typer, name: str) -> Callable[[Act], Act]:
    """The function is a command of that name: it is given the controller, and the rows that it returns are shown."""
    shared = inspect.signature(_options, eval_str=True).parameters

    def register(act: Act) -> Act:
        own = list(inspect.signature(act, eval_str=True).parameters.values())[1:]

        @functools.wraps(act)
        def command(**given: object) -> None:
            lab, url, token_file, ca, as_json = (given.pop(option) for option in shared)
            with _controller(lab, url, token_file, ca) as client:  # type: ignore[arg-type]
                done = act(client, **given)
                rows, failure = done if isinstance(done, Partly) else (done, "")
                if rows or not failure:
                    _show(rows, as_json=bool(as_json))
            if failure:
                raise ConfigError(failure)

        parameters = [*own, *shared.values()]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command(name)(command)
        return act

    return register


@contextmanager
def _controller(
    lab: str | None, url: str | None, token_file: Path | None, ca: Path | None
) -> Iterator[ControllerClient]:
    """The controller that is meant: elsewhere, of a lab that is served on this host, or of one that was kept."""
    from emlab import kept

    if url is not None:
        with ControllerClient(url, kept.read_token(token_file), ca=ca) as client:
            yield client
    else:
        with kept.controller_of(lab, token_file, ca) as client:
            yield client


@_asks(app, "status")
def status(client: ControllerClient, users: Users = None) -> Rows:
    """How the clouds stand."""
    return [client.status(user) for user in users] if users else client.clouds().statuses()


@_asks(app, "pause")
def pause(client: ControllerClient, users: Users = None, *, all_: All = False) -> Rows:
    """Let clouds sleep: they use no CPU, and wake when they are used."""
    return _turned(client, client.pause, users, all_=all_)


@_asks(app, "wake")
def wake(client: ControllerClient, users: Users = None, *, all_: All = False) -> Rows:
    """Let clouds run."""
    return _turned(client, client.wake, users, all_=all_)


@_asks(app, "lock")
def lock(client: ControllerClient, users: Users = None, *, all_: All = False) -> Rows:
    """Stop clouds and close their vaults, so that only their owners' keys open them."""
    return _turned(client, client.lock, users, all_=all_)


def _turned(client: ControllerClient, turn: Callable[[str], None], users: list[str] | None, *, all_: bool) -> Rows:
    """How those clouds stand with which it was done; a sentence for each other one."""
    if bool(users) == all_:
        raise ConfigError("name whose clouds are meant, or say --all")
    chosen = users or [cloud.user for cloud in client.clouds()]
    done = []
    for user in chosen:
        try:
            turn(user)
            done.append(client.status(user))
        except EmlabError as exc:
            print(f"{user}: {exc.kind}: {exc}", file=sys.stderr)
    if len(done) < len(chosen):
        return Partly(done, f"it was done with {len(done)} of {len(chosen)} clouds")
    return done


@_asks(app, "unlock")
def unlock(client: ControllerClient, user: User) -> Rows:
    """Open a vault with its owner's key (64 hex digits), passphrase or recovery code, asked for unseen or piped in."""
    from emlab.kept import read_secret

    client.status(user)  # whoever is not there needs no key
    client.unlock(user, read_secret(user))
    return [client.status(user)]


@_asks(app, "forget")
def forget(
    client: ControllerClient,
    user: User,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask again.")] = False,
) -> Rows:
    """Remove a cloud and all its data, for ever; shows the others."""
    client.status(user)
    others = [status for status in client.clouds().statuses() if status.user != user]
    if not yes:
        typer.confirm(f"remove the cloud of {user} and all its data, for ever?", abort=True, err=True)
    client.forget(user)  # an owner's token ends with the cloud
    return others


@_asks(app, "audit")
def audit(client: ControllerClient, *, after: Annotated[int, typer.Option(help="Rows after this number.")] = 0) -> Rows:
    """Who did what, and what was refused."""
    rows = client.audit(after=after)
    while more := client.audit(after=rows[-1].seq) if rows else []:
        rows += more
    return rows


@_asks(token_app, "list")
def token_list(client: ControllerClient) -> Rows:
    """Which tokens there are; none of them is shown."""
    return client.tokens()


@_asks(token_app, "issue")
def token_issue(
    client: ControllerClient,
    kind: Annotated[TokenKind, typer.Argument(help="What it is for.")],
    subject: Annotated[str, typer.Argument(help="Whose; of an invitation a note for you: it binds no name.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="File for the token, which only you can read.")],
    ttl_s: Annotated[float | None, typer.Option(help="Seconds until it expires; never without it.")] = None,
    public: Annotated[str | None, typer.Option(help="Of a provider: its public key, 64 hex digits.")] = None,
) -> Rows:
    """Make a further token. For an owner's the key of the vault is asked for, unseen or piped in.

    A provider has one token: this registers it, and an earlier token ends.
    """
    from emlab.kept import fresh_token_file, read_secret

    if (kind == "provider") != (public is not None):
        raise ConfigError("a provider is registered with its public key: --public KEY; nobody else has one here")
    with fresh_token_file(out) as file:
        if public is not None:
            admitted = client.admit_provider(subject, public, ttl_s=ttl_s)
            file.write(f"{admitted.token}\n".encode())
            return [admitted.about]
        key = read_secret(subject) if kind == "owner" and client.me().kind == "admin" else None
        issued = client.issue(kind, subject, ttl_s=ttl_s, key=key)
        file.write(f"{issued.token}\n".encode())
    return [issued.about]


@_asks(token_app, "revoke")
def token_revoke(
    client: ControllerClient,
    token: Annotated[str, typer.Argument(help="Its id, from `emlab token list`.", autocompletion=_token_ids)],
) -> Rows:
    """Let a token open nothing any more, at once."""
    return [client.revoke(token)]


@app.command()
def serve(
    *,
    config: Annotated[Path, typer.Option("--config", help="A lab's TOML file, or the ancestor's machines.json.")],
    host: Annotated[str | None, typer.Option(help="Listen there, instead of what the file says.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Listen there, instead of what the file says.", min=0, max=65535)
    ] = None,
) -> None:
    """Serve a lab's controller and clouds over HTTPS until you end it with Ctrl-C or SIGTERM."""
    from emlab import machines, serving
    from emlab.lab import Lab, read_toml

    if config.suffix == ".json":
        of_lab, of_service, remarks = machines.load(config)
        for remark in remarks:
            print(f"not taken over: {remark}", file=sys.stderr)
        name = machines.lab_name(config)
        print(f"the lab is called {name}, after the file", file=sys.stderr)
        lab = Lab.of({"name": name, "keep": True, **of_lab}, config)
    else:
        raw = read_toml(config)
        of_service = raw.pop("serve", {})
        if "name" not in raw:
            raise ConfigError(f"{config} has no name: a lab that is served is found again by it")
        lab = Lab.of({"keep": True, **raw}, config)
    chosen = serving.settings(of_service, config)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    serving.serve(lab, msgspec.structs.replace(chosen, **given), lambda text: print(text, flush=True))


@app.command()
def aggregator(
    *, config: Annotated[Path, typer.Option("--config", help="A TOML file such as conf/aggregator.toml.")]
) -> None:
    """Run an aggregator: it alone sees clear answers, adds the noise and signs, until Ctrl-C or SIGTERM."""
    from emlab.apps import aggregator as program
    from emlab.ending import exit_on_sigterm

    exit_on_sigterm()
    program.serve(program.load(config), lambda text: print(text, flush=True))


def _show(rows: Sequence[msgspec.Struct], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(msgspec.to_builtins(row)))
        return
    table = [[*type(row).__struct_fields__] for row in rows[:1]]
    table += [[_cell(*item) for item in msgspec.structs.asdict(row).items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if not rows:
        print("none")


def _cell(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and name.split("_")[-1] == "ts":
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%SZ}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
