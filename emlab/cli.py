"""The command line; see `cli_served` for a served lab. An error is a sentence on standard error, and status 1."""

from __future__ import annotations

import logging
import os
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from emlab import cli_served, cli_verify
from emlab.errors import ConfigError, EmlabError
from emlab.experiment import Experiment, Scalar
from emlab.report import check_folder

app = typer.Typer(help="A laboratory for individual user clouds.", no_args_is_help=True, add_completion=True)
images_app = typer.Typer(help="The image that clouds run on Docker.", no_args_is_help=True)
app.add_typer(images_app, name="images")
app.add_typer(cli_served.app)
app.add_typer(cli_verify.app)
app.add_typer(cli_served.token_app, name="token")

INTERRUPTED = 130  # typer's exit status after Ctrl-C
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"emlab {version('emlab')}")
        raise typer.Exit


@app.callback()
def emlab(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which emlab this is.")
    ] = False,
) -> None:
    """A laboratory for individual user clouds."""


@app.command()
def demo(
    *,
    engine: Annotated[str, typer.Option(help="docker, process, memory, or auto: docker if it can be used.")] = "auto",
    vault: Annotated[
        str,
        typer.Option(help="plain (not encrypted), gocryptfs, fscrypt, ecryptfs, or auto."),
    ] = "plain",
    users: Annotated[int, typer.Option(help="How many simulated people.")] = 6,
    days: Annotated[int, typer.Option(help="How many days of each.")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed gives the same people.")] = 1,
    epsilon: Annotated[float, typer.Option(help="Privacy loss of each person.")] = 1.0,
    out: Out = Path("results/demo"),
    phone_days: Annotated[
        str, typer.Option(envvar="EMLAB_PHONE_DAYS", help="Folder of real e-mission days (*.json.gz).")
    ] = "",
) -> None:
    """Simulate people, store their days, pause their clouds, ask a question, release a private answer."""
    from emlab import demo as story
    from emlab.record import summarize

    if engine == "auto":
        engine, reason = _choose_engine()
        print(f"engine: {engine} ({reason})")
    files = story.phone_days_in(Path(phone_days)) if phone_days else []
    told = story.tell(
        out,
        engine=engine,
        vault=vault,
        n_users=users,
        days=days,
        seed=seed,
        phone_days=files,
        epsilon=epsilon,
        say=print,
    )
    print("\n" + told.clouds.drop(columns=["cloud"]).to_string(index=False))
    print("\n" + summarize(told.events).round(1).to_string())
    print(f"\n{told.release}\n{told.distance}\n\nsee {out / 'report.html'}")


def _choose_engine() -> tuple[str, str]:
    """The engine for a newcomer: docker if one answers and the image is there or can be built, else process."""
    from emlab.parts import build_image, choose_engine

    engine, reason = choose_engine()
    if engine == "docker" or "images build" not in reason:
        return engine, reason
    print("a Docker engine answers; building the image of this version of emlab, once ...")
    try:
        build_image(print)
    except EmlabError as exc:
        return "process", f"the image could not be built: {exc}"
    return choose_engine()


@app.command()
def run(
    experiment: Annotated[Path, typer.Argument(help="An experiment's TOML file.")],
    *,
    out: Out,
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, in place of the file's.")] = None,
) -> None:
    """Run an experiment's notebook over its grid, one folder per parameter set."""
    loaded = Experiment.load(experiment, dict(map(_assignment, set_ or [])))
    check_folder(out)
    frame = loaded.run(out)
    print(frame.to_string(index=False))
    if not frame["ok"].all():
        raise ConfigError(f"{int((~frame['ok']).sum())} of {len(frame)} runs failed; their folders are in {out}")


def _assignment(text: str) -> tuple[str, Scalar]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set wants name=value, not {text!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word is a text
    if not isinstance(parsed, Scalar):
        raise ConfigError(f"--set {name}: one text, number or truth value, not {value!r}")
    return name.strip(), parsed


UserOption = Annotated[str, typer.Option("--user", help="Whose cloud.")]
LabOption = Annotated[str | None, typer.Option("--lab", help="A lab that was kept; the only one without it.")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="The owner's token, in a file of mode 0600; asked for or piped in without it."),
]


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Archives, e-mission JSON or GPX; each may be packed (.gz).")],
    *,
    user: UserOption,
    lab: LabOption = None,
    token_file: TokenOption = None,
    new: Annotated[bool, typer.Option("--new", help="Sign the user up first; the token goes to --token-file.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Store the good entries of a file with bad ones.")] = False,
    with_policy: Annotated[bool, typer.Option("--with-policy", help="Permit also what an archive permits.")] = False,
    zone: Annotated[str, typer.Option(help="Time zone of GPX files, such as Europe/Berlin.")] = "UTC",
) -> None:
    """Store what is in files in a user's cloud. Again: nothing changes."""
    from emlab import kept

    with kept.kept_lab(lab, new=new) as opened:
        cloud = (kept.new_cloud if new else kept.owners_cloud)(opened, user, token_file)
        for file in files:
            report = cloud.import_(file, partial=partial, with_policy=with_policy, zone=zone)
            print(f"{file.name}: {report}")


@app.command()
def export(
    *,
    user: UserOption,
    out: Annotated[Path, typer.Option("--out", help="An archive, .json or .json.gz; or a track, .gpx.")],
    lab: LabOption = None,
    token_file: TokenOption = None,
) -> None:
    """Take everything out of a user's cloud: entries, profile, policy, ledger."""
    from emlab import kept

    with kept.kept_lab(lab) as opened:
        cloud = kept.owners_cloud(opened, user, token_file)
        path = cloud.export(out)
        print(f"{path}: of {sum(cloud.counts().values())} entries of {user}; only you can read it")


@images_app.command("build")
def images_build(
    base: Annotated[str | None, typer.Option(help="A Debian 12 image to start from.")] = None,
) -> None:
    """Build the image of this version of emlab; pulls debian:bookworm-slim, or makes a base where it cannot."""
    from emlab.parts import build_image

    print(build_image(print, base=base))


@app.command()
def clean(
    lab: Annotated[
        str | None, typer.Option(help="Only this lab, even if it was kept.", autocompletion=cli_served.complete_lab)
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask again.")] = False,
) -> None:
    """Remove labs whose process is gone, with clouds and data; kept labs only when named."""
    from emlab.cleaning import clean as clean_labs
    from emlab.parts import emlab_home

    def confirm() -> None:
        if not yes:
            typer.confirm(f"remove the lab {lab} with all its clouds and their data, for ever?", abort=True, err=True)

    lines = clean_labs(emlab_home(), lab, confirm=confirm)
    print("\n".join(lines) or "nothing to clean")


def main() -> None:
    """Run the command line."""
    level = os.environ.get("EMLAB_LOG", "WARNING").upper()
    try:
        if level not in logging.getLevelNamesMapping():
            raise ConfigError(f"EMLAB_LOG is {level!r}; choose one of {', '.join(logging.getLevelNamesMapping())}")
        logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
        app()
    except EmlabError as exc:
        print(f"emlab: {exc}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as exc:
        if exc.code == INTERRUPTED:
            print("emlab: interrupted; if anything was left, `emlab clean` removes it", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
