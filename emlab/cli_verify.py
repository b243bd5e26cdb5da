"""The command line for what anybody can verify: `emlab verify FILE...`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from emlab.errors import ConfigError

app = typer.Typer(no_args_is_help=True)


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="Receipts, saved releases, archives of `emlab export`.")],
    *,
    trust: Annotated[
        list[str] | None, typer.Option("--trust", help="An aggregator's signing key (hex); anybody's without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Check receipts and logs, each on its own and against each other; status 1 if anything does not hold."""
    from emlab import verifying

    verdicts = verifying.verify(files, trust)
    if as_json:
        for row in verifying.rows(verdicts):
            print(json.dumps(msgspec.to_builtins(row)))
    else:
        print("\n\n".join(f"{path}\n{verdict}" for path, verdict in verdicts.items()))
    wrong = [str(path) for path, verdict in verdicts.items() if not verdict]
    if wrong:
        raise ConfigError(f"not to be trusted: {', '.join(wrong)}")
