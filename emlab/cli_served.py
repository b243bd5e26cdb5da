"""The command line for a lab that is served here or elsewhere, or was kept: serve, status, pause, wake, lock ..."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from emlab.errors import ConfigError, EmlabError
from emlab.remote import ControllerClient

app = typer.Typer(no_args_is_help=True)
token_app = typer.Typer(help="Tokens of owners, providers and admins.", no_args_is_help=True)

LabOption = Annotated[str | None, typer.Option("--lab", help="A lab of this host; the only one without it.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="A controller elsewhere, such as https://host:4430.")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="Your token, in a file of mode 0600; of a lab here the admin's."),
]
CaOption = Annotated[Path | None, typer.Option("--ca", help="The certificate to trust with --url.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Users = Annotated[list[str] | None, typer.Argument(help="Whose clouds.")]
All = Annotated[bool, typer.Option("--all", help="Every cloud.")]


@app.command()
def serve(
    *,
    config: Annotated[Path, typer.Option("--config", help="A lab's TOML file, or the ancestor's machines.json.")],
    host: Annotated[str | None, typer.Option(help="Listen there, instead of what the file says.")] = None,
    port: Annotated[int | None, typer.Option(help="Listen there, instead of what the file says.")] = None,
) -> None:
    """Serve a lab's controller and clouds over HTTPS until you end it with Ctrl-C or SIGTERM."""
    from emlab import machines, serving
    from emlab.lab import Lab, read_toml

    if config.suffix == ".json":
        of_lab, of_service, remarks = machines.load(config)
        for remark in remarks:
            print(f"not taken over: {remark}", file=sys.stderr)
        lab = Lab.of({"name": "machines", "keep": True, **of_lab}, config)
    else:
        raw = read_toml(config)
        of_service = raw.pop("serve", {})
        lab = Lab.of(raw, config)
    chosen = serving.settings(of_service)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    serving.serve(lab, msgspec.structs.replace(chosen, **given), lambda text: print(text, flush=True))


@app.command()
def status(
    users: Users = None,
    *,
    lab: LabOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """How the clouds stand."""
    with controller(lab, url, token_file, ca) as client:
        found = [client.status(user) for user in users] if users else client.clouds().statuses()
        _show(found, as_json=as_json)


def _turning(name: str, done: str) -> Callable[..., None]:
    def turn(
        users: Users = None,
        *,
        all_: All = False,
        lab: LabOption = None,
        url: UrlOption = None,
        token_file: TokenOption = None,
        ca: CaOption = None,
        as_json: JsonOption = False,
    ) -> None:
        if bool(users) == all_:
            raise ConfigError("name whose clouds are meant, or say --all")
        with controller(lab, url, token_file, ca) as client:
            chosen = users or [cloud.user for cloud in client.clouds()]
            turned = []
            for user in chosen:
                try:
                    getattr(client, name)(user)
                    turned.append(client.status(user))
                except EmlabError as exc:
                    print(f"{user}: {exc.kind}: {exc}", file=sys.stderr)
            _show(turned, as_json=as_json)
        if len(turned) < len(chosen):
            raise ConfigError(f"{len(chosen) - len(turned)} of {len(chosen)} clouds were not {done}")

    turn.__doc__ = {
        "pause": "Let clouds sleep: they use no CPU, and wake when they are used.",
        "wake": "Let clouds run.",
        "lock": "Stop clouds and close their vaults, so that only their owners' keys open them.",
    }[name]
    return turn


for _name, _done in (("pause", "paused"), ("wake", "woken"), ("lock", "locked")):
    app.command(_name)(_turning(_name, _done))


@app.command()
def unlock(
    user: Annotated[str, typer.Argument(help="Whose cloud.")],
    *,
    lab: LabOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a vault with its owner's key (64 hex digits), passphrase or recovery code, asked for unseen or piped in."""
    from emlab.kept import read_secret

    with controller(lab, url, token_file, ca) as client:
        client.status(user)  # whoever is not there needs no key
        client.unlock(user, read_secret(user))
        _show([client.status(user)], as_json=as_json)


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="Whose cloud.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask again.")] = False,
    lab: LabOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
) -> None:
    """Remove a cloud and all its data, for ever."""
    with controller(lab, url, token_file, ca) as client:
        client.status(user)
        if not yes:
            typer.confirm(f"remove the cloud of {user} and all its data, for ever?", abort=True)
        client.forget(user)
        print(f"the cloud of {user} is gone")


@app.command()
def audit(
    *,
    after: Annotated[int, typer.Option(help="Rows after this number.")] = 0,
    lab: LabOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who did what, and what was refused."""
    with controller(lab, url, token_file, ca) as client:
        rows = client.audit(after=after)
        while more := client.audit(after=rows[-1].seq) if rows else []:
            rows += more
        _show(rows, as_json=as_json)


@token_app.command("list")
def token_list(
    *,
    lab: LabOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which tokens there are; none of them is shown."""
    with controller(lab, url, token_file, ca) as client:
        _show(client.tokens(), as_json=as_json)


@token_app.command("issue")
def token_issue(
    kind: Annotated[str, typer.Argument(help="owner, admin or invitation.")],
    subject: Annotated[str, typer.Argument(help="Whose.")],
    out: Annotated[Path, typer.Option("--out", help="File for the token, which only you can read.")],
    *,
    ttl_s: Annotated[float | None, typer.Option(help="Seconds until it expires; never without it.")] = None,
    lab: LabOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a further token."""
    from emlab.kept import fresh_token_file

    with controller(lab, url, token_file, ca) as client, fresh_token_file(out) as file:
        issued = client.issue(kind, subject, ttl_s=ttl_s)
        file.write(f"{issued.token}\n".encode())
        _show([issued.about], as_json=as_json)


@token_app.command("revoke")
def token_revoke(
    token: Annotated[str, typer.Argument(help="Its id, from `emlab token list`.")],
    *,
    lab: LabOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a token open nothing any more, at once."""
    with controller(lab, url, token_file, ca) as client:
        _show([client.revoke(token)], as_json=as_json)


@contextmanager
def controller(
    lab: str | None, url: str | None, token_file: Path | None, ca: Path | None
) -> Iterator[ControllerClient]:
    """The controller that is meant: elsewhere, of a lab that is served on this host, or of one that was kept."""
    from emlab import kept

    if url is not None:
        with ControllerClient(url, kept.read_token(token_file), ca=ca) as client:
            yield client
    else:
        with kept.controller_of(lab, token_file) as client:
            yield client


def _show(rows: Sequence[msgspec.Struct], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(msgspec.to_builtins(row)))
        return
    table = [[*type(row).__struct_fields__] for row in rows[:1]]
    table += [[_cell(value) for value in msgspec.structs.astuple(row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if not rows:
        print("none")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
